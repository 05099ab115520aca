"""What Gauss-Newton leaves out of the Hessian of a component fit: the residuals times the model's second derivatives.

The shared start has it for every spectrum: it knows the second derivatives at the mean spectrum's fit, and the residuals that
its first order leaves are those at the optimum, to first order. Subtracted from the normal equations of the first step it makes
that a Newton step, after which a second is the last in five spectra of six instead of three of four. The covariance stays that
of the Fisher matrix.
"""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.component_solve import element, set_element
from phonon_eels.kernels.device import inlined


@inlined(reducing=False)
def relative_curvature(
    first: int, pairs: np.ndarray, series: np.ndarray, change: np.ndarray, inverse: np.ndarray, out: np.ndarray
) -> int:
    """Write how much of the Hessian the residuals that the first order leaves are, in units of the Fisher matrix's diagonals.

    Residuals times second derivatives of the model are what Gauss-Newton leaves out of the Hessian.
    """
    unit = series[series.shape[0] - 1]
    for k in range(pairs.shape[0]):
        a, b, owner = pairs[k, 0], pairs[k, 1], pairs[k, 2]
        scale = inverse[owner] if owner >= 0 else 1.0
        out[k] = scale * change[first + k] * unit[a] * unit[b]
    return 0


@inlined(reducing=False)
def bend_hessian(gram: np.ndarray, blocks: int, pairs: np.ndarray, curvature: np.ndarray, diagonal: np.ndarray) -> int:
    """Subtract from the normal equations what Gauss-Newton leaves out, as the shared start knows it; keep what was subtracted."""
    for a in range(4 * blocks):
        diagonal[a] = gram[(a >> 2) * (blocks + 1), 5 * (a & 3)]
    for k in range(pairs.shape[0]):
        a, b = pairs[k, 3], pairs[k, 4]
        value = curvature[k] * math.sqrt(diagonal[a] * diagonal[b])
        curvature[k] = value
        set_element(gram, blocks, a, b, element(gram, blocks, a, b) - value)
    return 0


@inlined(reducing=False)
def unbend_hessian(gram: np.ndarray, blocks: int, pairs: np.ndarray, curvature: np.ndarray) -> int:
    """Add again what `bend_hessian` subtracted."""
    for k in range(pairs.shape[0]):
        a, b = pairs[k, 3], pairs[k, 4]
        set_element(gram, blocks, a, b, element(gram, blocks, a, b) + curvature[k])
    return 0


@inlined(reducing=False)
def bent_share(pairs: np.ndarray, curvature: np.ndarray, step: np.ndarray, predicted: float) -> float:
    """Return what the curvature that `bend_hessian` knows adds to the promise of a step, over that."""
    total = 0.0
    for k in range(pairs.shape[0]):
        a, b = pairs[k, 3], pairs[k, 4]
        total += (1.0 if a == b else 2.0) * curvature[k] * step[a] * step[b]
    return total / predicted
