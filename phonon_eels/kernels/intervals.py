"""Intervals of the modes' energies by profile likelihood, where deviations do not tell them.

At few counts the objective is no parabola in an energy, and at a bound it has no bottom: Fisher intervals then hold the truth
less often than they say. The interval of all energies at which the objective, everything else fitted anew, lies less than
z² above its least is right to a higher order (Barndorff-Nielsen and Cox, Inference and Asymptotics, 1994).
"""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.least_squares import minimise
from phonon_eels.kernels.likelihood import SINGULAR
from phonon_eels.kernels.linear import solve_factored

Array = np.ndarray

NO_INTERVAL, FISHER, PROFILE, OPEN, UNSTEADY = 0, 1, 2, 3, 4
"""Kinds of interval: none (no such mode there), energy ± z deviations, profile, profile that ends at a bound of the energy,
profile on which a better fit was found or none: then the interval is that of the bounds."""
ONE_SIGMA, NINETY_FIVE = 1.0, 1.959963984540054
CLOSE = 0.01
"""The end of an interval is accepted where the root of the rise is this close to z; a last secant mends the rest."""
SEARCHES = 10
WORSE = 0.05
"""A fit with the energy held that comes out lower than the free fit by more than this has found another minimum."""


@kernel
def interval_end(
    energy: int, target: float, direction: float, first_mev: float, least: float, z: Array,
    variance: Array, shift_e: float, likelihood: int, energies_mev: Array, dispersion_mev: float,
    reference: Array, background: Array, kind: int, factor: Array, tables: Array,
    first_node_mev: Array, node_step_mev: float, corrections: Array, free: Array, lower: Array,
    upper: Array, prior_mean: Array, prior_precision: Array, estimate: Array,
    follow: Array, trial: Array, jacobian: Array, rows: Array, vectors: Array,
    matrices: Array, columns: Array, index: Array, work: Array, bits: Array,
) -> tuple[float, int]:  # fmt: skip
    """Return where the root of the objective's rise reaches `target` on one side, and the kind of end.

    Parameters
    ----------
    energy
        Number of the parameter, which must be fixed in `free`.
    first_mev
        Distance to try first.
    least
        Objective of the estimate.
    follow
        How all parameters change with the energy, (parameters,): where their fit starts; 1 for those that follow it.
    """
    low, low_root, high, high_root = 0.0, 0.0, math.inf, 0.0
    reach = upper[energy] - estimate[energy] if direction > 0.0 else estimate[energy] - lower[energy]
    distance = min(first_mev, reach)
    for _ in range(SEARCHES):
        for p in range(estimate.shape[0]):
            trial[p] = estimate[p] + direction * distance * follow[p]
            trial[p] = min(max(trial[p], lower[p]), upper[p])
        trial[energy] = estimate[energy] + direction * distance
        status, value, _, _ = minimise(
            z, variance, shift_e, likelihood, energies_mev, dispersion_mev, reference, background, kind, factor, tables,
            first_node_mev, node_step_mev, corrections, free, lower, upper, prior_mean, prior_precision, 12, False, trial,
            jacobian, rows, vectors, matrices, columns, index, work, bits,
        )  # fmt: skip
        if status == SINGULAR or not math.isfinite(value) or value < least - WORSE:
            return direction * math.inf, UNSTEADY
        root = math.sqrt(max(value - least, 0.0))
        if root < target:
            if distance >= reach:
                return estimate[energy] + direction * reach, OPEN
            low, low_root = distance, root
        else:
            high, high_root = distance, root
        if math.isfinite(high):
            following = low + (target - low_root) * (high - low) / max(high_root - low_root, 1e-12)
        else:
            following = distance * min(target / max(root, 0.25 * target), 4.0)
        following = min(following, reach)
        if abs(root - target) < CLOSE * target:
            return estimate[energy] + direction * following, PROFILE
        distance = following
    return estimate[energy] + direction * distance, PROFILE


@kernel
def energy_intervals(
    profile_below: float, shown_above: float, n_index: int, least: float, z: Array, variance: Array,
    shift_e: float, likelihood: int, energies_mev: Array, dispersion_mev: float, reference: Array,
    background: Array, kind: int, factor: Array, tables: Array, first_node_mev: Array,
    node_step_mev: float, corrections: Array, free: Array, lower: Array, upper: Array,
    prior_mean: Array, prior_precision: Array, params: Array, std: Array, jacobian: Array,
    rows: Array, vectors: Array, matrices: Array, columns: Array, index: Array,
    index_held: Array, work: Array, bits: Array,
    intervals: Array,  # out (M, 4): ends at 68 %, ends at 95 %
    kinds: Array,  # out (M,)
) -> int:  # fmt: skip
    """Write the intervals of all modes' energies after `fit_one`.

    Parameters
    ----------
    profile_below
        Modes whose area is less than this many of its deviations, or whose energy is near a bound, are profiled.
    shown_above
        Modes whose area is less than this many of its deviations have no interval.

    Of modes whose energies follow another's, that one alone has an interval, for all of them: the best seen of them counts.
    """
    n_modes = tables.shape[0]
    follow, trial = columns[3], columns[4]
    inverse = matrices[2]
    for m in range(n_modes):  # rows of the covariance, before the searches overwrite the factor
        for a in range(n_index):
            inverse[m, a] = 1.0 if index[a] == N_LOCAL + n_modes + m else 0.0
        solve_factored(matrices[1], n_index, inverse[m])
    for m in range(n_modes):
        energy = N_LOCAL + n_modes + m
        kinds[m] = NO_INTERVAL
        intervals[m, :] = math.nan
        shown, well = False, False
        for k in range(n_modes):
            if k == m or free[N_LOCAL + n_modes + k] == -energy - 1:
                shown = shown or params[N_LOCAL + k] > shown_above * std[N_LOCAL + k]
                well = well or params[N_LOCAL + k] > profile_below * std[N_LOCAL + k]
        if free[energy] <= 0 or not shown:
            continue
        own = -1
        for a in range(n_index):
            if index[a] == energy:
                own = a
        room = min(params[energy] - lower[energy], upper[energy] - params[energy])
        if own >= 0 and well and room > 3.0 * std[energy]:
            kinds[m] = FISHER
            for k in range(4):
                away = ONE_SIGMA if k < 2 else NINETY_FIVE
                intervals[m, k] = params[energy] + (away if k % 2 else -away) * std[energy]
            continue
        follow[:] = 0.0
        first, widened = 0.1 * (upper[energy] - lower[energy]), 1.0
        if own >= 0:
            for a in range(n_index):
                follow[index[a]] = inverse[m, a] / inverse[m, own]
            first = std[energy]
            widened = std[energy] / math.sqrt(inverse[m, own])
        for k in range(n_modes):
            if free[N_LOCAL + n_modes + k] == -energy - 1:
                follow[N_LOCAL + n_modes + k] = 1.0
        free[energy] = 0
        kinds[m] = PROFILE
        for k in range(4):
            target = widened * (ONE_SIGMA if k < 2 else NINETY_FIVE)
            direction = 1.0 if k % 2 else -1.0
            if k >= 2:
                first = max(abs(intervals[m, k - 2] - params[energy]) * NINETY_FIVE, 1e-6)
            end, how = interval_end(
                energy, target, direction, first, least, z, variance, shift_e, likelihood, energies_mev, dispersion_mev,
                reference, background, kind, factor, tables, first_node_mev, node_step_mev, corrections, free, lower, upper,
                prior_mean, prior_precision, params, follow, trial, jacobian, rows, vectors, matrices, columns, index_held,
                work, bits,
            )  # fmt: skip
            intervals[m, k] = end
            kinds[m] = max(kinds[m], how)
        free[energy] = 1
        if kinds[m] == UNSTEADY:
            for k in range(4):
                intervals[m, k] = upper[energy] if k % 2 else lower[energy]
    return 0
