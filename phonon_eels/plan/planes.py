"""What one half-slab plane of a planned scan tells, and how many of them there are."""

from __future__ import annotations

import numpy as np

from phonon_eels.config import Material
from phonon_eels.config.planning import PlanSettings
from phonon_eels.lattice.modulation import Scores, UnitFit, basis, fit_unit
from phonon_eels.plan.expectation import Expectation, stack_of_plan

MOST_COLUMNS = 512
"""More positions along b than this are thinned out; only their number matters then."""


def units_per_scan(plan: PlanSettings, material: Material) -> int:
    """Return the number of half slabs that fit into the field of view wherever it begins."""
    return int(np.floor(plan.scan.c_length_nm / (0.5 * stack_of_plan(material).repeat_nm) + 1e-9))


def positions_per_unit(plan: PlanSettings, material: Material) -> float:
    """Return the mean number of positions in one half slab."""
    scan = plan.scan
    columns = max(round(scan.b_length_nm / scan.b_step_nm), 1)
    return 0.5 * stack_of_plan(material).repeat_nm / scan.c_step_nm * columns


def unit_of(plan: PlanSettings, material: Material, expectation: Expectation) -> UnitFit:
    """Return what one half-slab plane tells, from the score equations that the joint fit solves."""
    scan, held, model = plan.scan, expectation.held, expectation.model
    assert held.information is not None
    assert material.superstructure is not None
    columns = int(np.clip(round(scan.b_length_nm / scan.b_step_nm), 2, MOST_COLUMNS))
    b = (np.arange(columns) + 0.5) * scan.b_length_nm / columns
    phase = np.broadcast_to(2 * np.pi * b / material.superstructure.period_nm, (held.information.shape[1], columns))
    repeats = positions_per_unit(plan, material) / phase.size
    information = np.broadcast_to(
        (repeats * held.information[0])[:, None], (*phase.shape, 2 * model.n_modes, 2 * model.n_modes)
    )
    scores = Scores(
        np.zeros(information.shape[:3]),
        information,
        np.broadcast_to(model.mode_energies_mev, (*phase.shape, model.n_modes)),
        np.ones(phase.shape, dtype=bool),
    )
    share = np.broadcast_to(expectation.half_slab.signed_share[:, :, None], (model.n_modes, *phase.shape))
    regressors = basis(np.array(phase), share)
    return fit_unit(scores, model.mode_energies_mev, regressors, scores.usable, model.fwhm_mev)


def unit_std_mev(plan: PlanSettings, unit: UnitFit, mode: int) -> float:
    """Return the deviation of a component of a plane's amplitude: counting noise, and the scatter between planes."""
    counting = 0.5 * float(np.trace(unit.covariance[mode, 1:, 1:]))
    return float(np.sqrt(counting + plan.specimen.plane_scatter_mev**2))
