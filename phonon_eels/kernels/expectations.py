"""What a channel of a spectrum should hold: from its neighbouring channels, and from its neighbours in the scan.

Significances are signed roots of the deviance of the shifted Poisson law (electrons and read noise together), so that
a level means the same at half an electron and at ten thousand electrons per channel.
"""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel

NEAREST = 2
"""The expectation of a channel leaves out its next neighbours, which a spike may touch."""

PSEUDO_ELECTRONS = 20.0
"""Weight of the flat local mean in a neighbour's shape; above it the shape itself counts."""


@kernel
def deviance_sigma(observed_e: float, expected_e: float, read_variance_e: float) -> float:
    """Return the excess of a channel over its expectation in standard deviations, negative below it.

    Parameters
    ----------
    observed_e, expected_e
        Electrons; may be negative after dark correction.
    read_variance_e
        Variance of the read noise, electrons².
    """
    x = max(observed_e + read_variance_e, 0.0)
    m = max(expected_e + read_variance_e, 1e-9)
    deviance = m - x
    if x > 0.0:
        deviance += x * math.log(x / m)
    root = math.sqrt(max(2.0 * deviance, 0.0))
    return root if x >= m else -root


@kernel
def excess_scatter(ratio: float, n: float) -> float:
    """Return by how much scatter is larger than counting allows: a χ²/n beyond its 99 % quantile, at least 1.

    The quantile follows Wilson and Hilferty (doi:10.1073/pnas.17.12.684).
    """
    h = 2.0 / (9.0 * n)
    quantile = (1.0 - h + 2.326 * math.sqrt(h)) ** 3
    return max(1.0, ratio / quantile)


@kernel
def expect_from_channels(cleaned: np.ndarray, c: int, half: int, read_variance_e: float) -> tuple[float, float, float]:
    """Expect a channel from its own spectrum: a parabola through pairs of neighbours, so that slopes drop out.

    Returns
    -------
    tuple
        (expectation in electrons, its variance over the variance of one channel, excess scatter about the parabola).
    """
    n = cleaned.shape[0]
    reach = min(half, c, n - 1 - c)
    pairs = reach - NEAREST + 1
    if pairs < 3:
        return _flat_expectation(cleaned, c, half, read_variance_e)
    s1, s2, p0, p1, pp = 0.0, 0.0, 0.0, 0.0, 0.0
    for d in range(NEAREST, reach + 1):
        q = float(d * d)
        p = 0.5 * (cleaned[c - d] + cleaned[c + d])
        s1 += q
        s2 += q * q
        p0 += p
        p1 += p * q
    determinant = pairs * s2 - s1 * s1
    flat = p0 / pairs
    bend = (pairs * p1 - s1 * p0) / determinant
    pair_variance = 0.5 * (max(flat, 0.5 / pairs) + read_variance_e)
    # Curvature only where it is seen: elsewhere it would add noise.
    curved = bend * bend > 4.0 * pair_variance * pairs / determinant
    expected = max((s2 * p0 - s1 * p1) / determinant, 0.25 * flat) if curved else flat
    share = 0.5 * s2 / determinant if curved else 0.5 / pairs
    for d in range(NEAREST, reach + 1):
        fit = flat + (bend * (d * d - s1 / pairs) if curved else 0.0)
        residual = 0.5 * (cleaned[c - d] + cleaned[c + d]) - fit
        pp += residual * residual
    freedom = pairs - (2.0 if curved else 1.0)
    return expected, share, excess_scatter(pp / freedom / pair_variance, freedom)


@kernel
def _flat_expectation(cleaned: np.ndarray, c: int, half: int, read_variance_e: float) -> tuple[float, float, float]:
    """Mean of the neighbours there are, at the ends of a spectrum."""
    n = cleaned.shape[0]
    total, squares, used = 0.0, 0.0, 0
    for d in range(-half, half + 1):
        k = c + d
        if abs(d) >= NEAREST and 0 <= k < n:
            total += cleaned[k]
            squares += cleaned[k] * cleaned[k]
            used += 1
    if used < 2:
        return cleaned[c], 1.0, 1e30
    mean = total / used
    scatter = max(squares - used * mean * mean, 0.0) / (used - 1)
    variance = max(mean, 1.0 / used) + read_variance_e
    return mean, 1.0 / used, excess_scatter(scatter / variance, used - 1.0)


@kernel
def expect_from_positions(
    cleaned: np.ndarray, neighbours: np.ndarray, n_neighbours: int, c: int, half: int, read_variance_e: float
) -> tuple[float, float, float]:
    """Expect a channel from neighbouring positions: their shape times a factor that may slope along the channels.

    A shift of the zero-loss peak, or another strength of a line, multiplies the shape by such a slope.

    Parameters
    ----------
    neighbours
        Mean of the cleaned spectra of the neighbouring positions, electrons, (channels,).
    n_neighbours
        How many.

    Returns
    -------
    tuple
        As `expect_from_channels`.
    """
    n = cleaned.shape[0]
    own0, own1, far0, far1, far2 = 0.0, 0.0, 0.0, 0.0, 0.0
    used = 0
    lowest = neighbours[c]
    for d in range(-half, half + 1):
        k = c + d
        if abs(d) >= NEAREST and 0 <= k < n:
            lowest = min(lowest, neighbours[k])
            own0 += cleaned[k]
            own1 += cleaned[k] * d
            far0 += neighbours[k]
            far1 += neighbours[k] * d
            far2 += neighbours[k] * d * d
            used += 1
    if used < 2:
        return cleaned[c], 1.0, 1e30
    if own0 <= 0.0 or far0 < 1.0:
        return _flat_expectation(cleaned, c, half, read_variance_e)
    if lowest > 0.0 and lowest * lowest > 25.0 * (lowest + read_variance_e) and min(c, n - 1 - c) >= half and half >= 4:
        return _expect_by_ratio(cleaned, neighbours, n_neighbours, c, half, read_variance_e)
    ratio, slope, information = own0 / far0, 0.0, 1.0 / used
    flat = far0 / used
    determinant = far0 * far2 - far1 * far1
    # A slope costs noise: only where there are electrons enough to see it.
    sloped = min(own0, far0) > 100.0 * (1.0 + read_variance_e / flat) and determinant > 0.0
    if sloped:
        slope = (far0 * own1 - far1 * own0) / determinant
        ratio = (far2 * own0 - far1 * own1) / determinant
        information = max(neighbours[c], 0.0) * far2 / determinant
    pseudo = PSEUDO_ELECTRONS * (1.0 + read_variance_e / flat) / flat
    weight = n_neighbours + pseudo
    expected = ratio * (n_neighbours * neighbours[c] + pseudo * flat) / weight
    scatter, variance = 0.0, 0.0
    for d in range(-half, half + 1):
        k = c + d
        if abs(d) >= NEAREST and 0 <= k < n:
            model = (ratio + slope * d) * neighbours[k]
            scatter += (cleaned[k] - model) ** 2
            variance += model + read_variance_e + ratio * ratio * (neighbours[k] + read_variance_e) / n_neighbours
    freedom = used - (2.0 if sloped else 1.0)
    share = max(ratio, 0.0) / weight + (1.0 + max(ratio, 0.0) / n_neighbours) * information
    return expected, share, excess_scatter(scatter / freedom / max(variance / used, 1.0 / used), freedom)


@kernel
def _expect_by_ratio(
    cleaned: np.ndarray, neighbours: np.ndarray, n_neighbours: int, c: int, half: int, read_variance_e: float
) -> tuple[float, float, float]:
    """Where every channel holds many electrons: a parabola through the ratios, as a line may differ in strength."""
    s1, s2, p0, p1, level, variance, scatter = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    pairs = half - NEAREST + 1
    for d in range(NEAREST, half + 1):
        q = float(d * d)
        p = 0.5 * (cleaned[c - d] / neighbours[c - d] + cleaned[c + d] / neighbours[c + d])
        s1 += q
        s2 += q * q
        p0 += p
        p1 += p * q
    level = max(p0 / pairs, 0.0)
    for d in range(NEAREST, half + 1):
        for k in (c - d, c + d):
            own_variance = level * neighbours[k] + read_variance_e
            far_variance = level * level * (neighbours[k] + read_variance_e) / n_neighbours
            variance += (own_variance + far_variance) / neighbours[k] ** 2
    variance /= 4.0 * pairs  # of the mean of a pair
    determinant = pairs * s2 - s1 * s1
    bend = (pairs * p1 - s1 * p0) / determinant
    curved = bend * bend > 4.0 * variance * pairs / determinant
    ratio = (s2 * p0 - s1 * p1) / determinant if curved else p0 / pairs
    for d in range(NEAREST, half + 1):
        fit = p0 / pairs + (bend * (d * d - s1 / pairs) if curved else 0.0)
        residual = 0.5 * (cleaned[c - d] / neighbours[c - d] + cleaned[c + d] / neighbours[c + d]) - fit
        scatter += residual * residual
    freedom = pairs - (2.0 if curved else 1.0)
    information = s2 / determinant if curved else 1.0 / pairs
    one_channel = level * neighbours[c] + read_variance_e
    share = variance * information * neighbours[c] ** 2 / max(one_channel, 1e-9) + level / n_neighbours
    excess = excess_scatter(scatter / freedom / max(variance, 1e-30), freedom)
    return max(ratio, 0.0) * neighbours[c], share, excess


@kernel
def expect(
    cleaned: np.ndarray, neighbours: np.ndarray, n_neighbours: int, c: int, half: int, read_variance_e: float
) -> float:
    """Return the counts to expect in a channel: both expectations, weighted by what they are worth."""
    own, own_share, own_excess = expect_from_channels(cleaned, c, half, read_variance_e)
    if n_neighbours == 0:
        return own
    far, far_share, far_excess = expect_from_positions(cleaned, neighbours, n_neighbours, c, half, read_variance_e)
    own_weight, far_weight = 1.0 / (own_share * own_excess), 1.0 / (far_share * far_excess)
    return (own * own_weight + far * far_weight) / (own_weight + far_weight)
