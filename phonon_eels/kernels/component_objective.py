"""The objective of a component fit at one point and its normal equations there, priors included."""

from __future__ import annotations

import numpy as np

from phonon_eels.kernels.component_normal import form_normal, weigh
from phonon_eels.kernels.components import evaluate_components
from phonon_eels.kernels.device import inlined, kernel


@inlined(reducing=False)
def prior_terms(params: np.ndarray, bounds: np.ndarray) -> float:
    """Return what the priors add to the objective."""
    total = 0.0
    for p in range(params.shape[0]):
        away = params[p] - bounds[2, p]
        total += bounds[3, p] * away * away
    return total


@inlined(reducing=False)
def add_priors(
    params: np.ndarray, bounds: np.ndarray, index: np.ndarray, n: int, gram: np.ndarray, gradient: np.ndarray
) -> int:
    """Add the priors to the normal equations."""
    blocks = (n + 3) // 4
    for a in range(n):
        p = index[a]
        if bounds[3, p] == 0.0:
            continue
        gram[(a >> 2) * (blocks + 1), 5 * (a & 3)] += bounds[3, p]
        gradient[a] += bounds[3, p] * (bounds[2, p] - params[p])
    return 0


@inlined(reducing=False)
def objective(
    likelihood: int,
    z: np.ndarray,
    mask: np.ndarray,
    shift_e: float,
    table: np.ndarray,
    owner: np.ndarray,
    affine: np.ndarray,
    bounds: np.ndarray,
    axis: np.ndarray,
    channel_mev: float,
    even_mev: float,
    params: np.ndarray,
    rows: np.ndarray,
    spans: np.ndarray,
    vectors: np.ndarray,
) -> float:
    """Evaluate model, derivatives, weights and residuals; return the objective up to what of it no model changes."""
    evaluate_components(
        table, owner, affine, params, axis, channel_mev, even_mev, rows, spans, vectors[3:7], vectors[0]
    )
    return weigh(likelihood, z, mask, shift_e, vectors[0], vectors[1], vectors[2]) + prior_terms(params, bounds)


@kernel
def linearise(
    rows: np.ndarray,
    index: np.ndarray,
    n: int,
    vectors: np.ndarray,
    spans: np.ndarray,
    params: np.ndarray,
    bounds: np.ndarray,
    gram: np.ndarray,
    gradient: np.ndarray,
) -> int:
    """Form the normal equations, priors included."""
    form_normal(rows, index, (n + 3) // 4, vectors[1], vectors[2], spans, gram, gradient)
    return int(add_priors(params, bounds, index, n, gram, gradient))
