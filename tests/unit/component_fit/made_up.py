"""Spectra of known truth for the tests of the component fit."""

import numpy as np

from phonon_eels.component_fit.model import Component, build_model
from phonon_eels.component_fit.start import evaluate_model

ENERGIES = np.linspace(15.0, 105.0, 180)
TRUTH = np.array([1500.0, 38.0, 6.0, 2000.0, 57.0, 6.0, 2500.0, 78.0, 6.0, 60.0, 0.04, 10.0])


def three_gaussians():
    """Return the components of the benchmark: 12 free parameters."""
    return [
        Component("gaussian", "a", {"centre": 36.0, "fwhm": 7.0}),
        Component("gaussian", "b", {"centre": 58.0, "fwhm": 7.0}),
        Component("gaussian", "c", {"centre": 80.0, "fwhm": 7.0}),
        Component("exponential", "tail"),
        Component("offset", "floor"),
    ]


def expected(components, params, energies=ENERGIES):
    """Return the expected counts, (channels,)."""
    model = build_model(components, energies)
    return evaluate_model(model, np.asarray(params, dtype=float))[0][: energies.size]


def counts(shape, seed=0, params=TRUTH):
    """Return Poisson counts of the three Gaussians, (*shape, channels)."""
    mean = expected(three_gaussians(), params)
    return np.random.default_rng(seed).poisson(mean, (*shape, mean.size))
