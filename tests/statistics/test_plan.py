"""What a plan foretells of a plane's amplitude, against planes fitted on scans simulated as planned."""

import numpy as np
import pytest
from scipy.stats import chi2

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Settings, SimulationSettings
from phonon_eels.config.planning import PlanSettings
from phonon_eels.forward.scan import fit_scan
from phonon_eels.lattice.modulation import Scores, basis, fit_unit
from phonon_eels.plan.expectation import expect
from phonon_eels.plan.planes import unit_of, unit_std_mev
from phonon_eels.simulate import simulate
from phonon_eels.steps.registry import find_step
from tests.unit.forward.spectra import BI2212, alignment_of, context_of, model_of, start_params, with_results

pytestmark = pytest.mark.statistics
STEPS = ("align_zlp", "fit_peaks", "assign_layers", "map_superstructure", "measure_modulation")
ROWS, COLUMNS, ROW_STEP, COLUMN_STEP = 56, 36, 0.0551, 0.145
PLAN = PlanSettings.model_validate({
    "beam": {"zero_loss_electrons": 2e5},
    "scan": {
        "c_step_nm": ROW_STEP, "b_step_nm": COLUMN_STEP, "c_length_nm": ROWS * ROW_STEP, "b_length_nm": COLUMNS * COLUMN_STEP,
    },
})  # fmt: skip


def simulated(seed):
    """Return a scan without modulation, with the simulator's own wander, thickness, drift and corrugation."""
    tree = {
        "seed": seed, "modulation": {"energy_enabled": False}, "detector": {"spike_rate": 0.0, "fixed_pattern": 0.0},
        "scan": {
            "rows": ROWS, "columns": COLUMNS, "row_step_nm": ROW_STEP, "column_step_nm": COLUMN_STEP, "c_origin_nm": 0.0,
        },
    }  # fmt: skip
    return simulate(SimulationSettings.model_validate(tree), BI2212)


@pytest.fixture(scope="module")
def expectation():
    return expect(PLAN, BI2212)


def told(expectation):
    return unit_std_mev(PLAN, unit_of(PLAN, BI2212, expectation), expectation.model.mode_names.index("CuO78"))


def planes_where_layers_are_known(seed, expectation):
    """Fit the planes of CuO78 with layers and phase as planted: cos and sin of each, (n, 2)."""
    scan = simulated(seed)
    model = model_of(scan)
    held = fit_scan(
        scan.image, model, alignment_of(scan), start_params(scan, model), CpuBackend(2), free_energies=False, profile=True,
        max_iterations=15,
    )  # fmt: skip
    maps, half = scan.truth_maps, expectation.half_slab
    repeat = 0.5 * BI2212.crystal.c_nm
    c = np.mod(maps["c_position_nm"].values, repeat)
    shares = np.stack([np.interp(np.minimum(c, repeat - c), half.c_nm, np.abs(s)) for s in half.signed_share])
    # Counted along the outward normal the wave has one sign in all planes.
    regressors = basis(maps["phase_rad"].values, shares)
    energies = np.broadcast_to(model.mode_energies_mev, (ROWS, COLUMNS, model.n_modes))
    scores = Scores(held.score, held.information, energies, held.status == 0)
    unit = maps["half_slab"].values
    m = model.mode_names.index("CuO78")
    fits = [fit_unit(scores, model.mode_energies_mev, regressors, unit == u, model.fwhm_mev) for u in np.unique(unit)]
    full = np.median([fit.n_positions for fit in fits])
    return np.array([fit.value[m, 1:] for fit in fits if fit.n_positions > 0.8 * full])


def agree(planes, expected, slack):
    """The rms of the components is the one told, within the 99 % limits of chi-squared, and `slack` upwards."""
    ratio = np.sqrt((planes**2).mean()) / expected
    low, high = np.sqrt(chi2.ppf([0.005, 0.995], planes.size) / planes.size)
    assert low < ratio < slack * high, (ratio, len(planes))


def test_planes_scatter_as_foretold_where_layers_are_known(expectation):
    planes = np.concatenate([planes_where_layers_are_known(seed, expectation) for seed in range(200, 206)])
    assert len(planes) >= 18
    agree(planes, told(expectation), 1.0)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_planes_scatter_as_foretold_in_the_whole_chain(expectation):
    """Layers, phase, zero-loss peaks and localisation are those that the steps find; 10 % more is allowed for them."""
    planes = np.concatenate([planes_of_the_chain(seed) for seed in range(100, 106)])
    assert len(planes) >= 18
    agree(planes, told(expectation), 1.1)


def planes_of_the_chain(seed):
    """Return cos and sin of the planes of CuO78 as `measure_modulation` finds them, (n, 2)."""
    image, context = simulated(seed).image, context_of()
    for name in STEPS:
        result = find_step(name).load().run(image, getattr(Settings(), name), context)
        assert result.skipped is None, result.skipped
        context = with_results(context, **{name: result})
    units = result.tables["units"]
    return units[(units["mode"] == "CuO78") & units["used"]][["cos_mev", "sin_mev"]].to_numpy()
