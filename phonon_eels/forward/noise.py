"""Noise that neighbouring channels share, because the detector spreads an electron over them."""

from __future__ import annotations

import numpy as np

INDEPENDENT = 1.02
"""Below this noise correlation channels count as independent: no deviation changes by a per cent."""
NEGLIGIBLE = 1e-5


def shared_noise(noise_correlation: float) -> np.ndarray:
    """Return the correlations of the electrons' noise between channels at distances 0, 1, 2 …, (0,) if there are none.

    A detector that gives an electron's signal to its neighbours in shares k leaves covariances Σ k k₊ₙ of the
    counts, which sum to 1 over both sides; the share at distance 0 is 1 / `noise_correlation`. The spread is taken as
    Gaussian, which the one number that is measured determines.

    Parameters
    ----------
    noise_correlation
        True gain over the variance / mean of single channels; see `NoiseModel`.
    """
    if not noise_correlation > INDEPENDENT:
        return np.zeros(0)
    from scipy.optimize import brentq
    from scipy.special import ndtr

    def shares(sigma: float) -> np.ndarray:
        half = int(np.ceil(5.0 * sigma + 0.5))
        edges = (np.arange(-half, half + 2) - 0.5) / sigma
        kernel = np.diff(ndtr(edges))
        return np.asarray(kernel / kernel.sum())

    sigma = brentq(lambda s: 1.0 / float((shares(s) ** 2).sum()) - noise_correlation, 0.05, 2.0 * noise_correlation)
    kernel = shares(float(sigma))
    lags = np.correlate(kernel, kernel, mode="full")[kernel.size - 1 :]
    kept = lags > NEGLIGIBLE
    return np.ascontiguousarray(lags[kept] / (lags[0] + 2.0 * lags[1:][kept[1:]].sum()))
