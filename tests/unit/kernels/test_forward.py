"""The model of one spectrum: its Jacobian, and its agreement with the simulator."""

import numpy as np
import pytest

from phonon_eels.forward.information import model_at
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.interpolation import cubic_slopes, cubic_weights, mode_cell
from tests.unit.forward.spectra import BI2212, model_of, simulated, true_params

NAMES = ("height", "shift", "width", "tail+", "tail-", "level", "slope", "bend")


class Evaluator:
    """The kernel with its scratch; the derivative lines stay those of the first parameters, as during a fit."""

    def __init__(self, model, params):
        self.model, self.first = model, params.copy()

    def __call__(self, params):
        return model_at(self.model, params, self.first)


@pytest.fixture(scope="module")
def quiet():
    return simulated(1, 2)


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_cubic_weights_are_exact_for_cubics(fraction):
    value, slope = np.array(cubic_weights(fraction)), np.array(cubic_slopes(fraction))
    x = np.arange(-1.0, 3.0)
    for power in range(4):
        assert value @ x**power == pytest.approx(fraction**power, abs=1e-13)
        derivative = power * fraction ** (power - 1) if power else 0.0
        assert slope @ x**power == pytest.approx(derivative, abs=1e-12)


def test_cells_stay_inside_the_table():
    assert mode_cell(-100.0, 30.0, 0.5, 20) == 1
    assert mode_cell(1000.0, 30.0, 0.5, 20) == 17
    assert mode_cell(32.6, 30.0, 0.5, 20) == 5


@pytest.mark.parametrize(
    ("shift", "background"),
    [
        (-0.37, "linear"),
        (0.0, "linear"),
        (0.21, "exponential"),
        (0.1, "power_law"),
        (0.1, "exp_polynomial"),
    ],
)
def test_jacobian_against_finite_differences(quiet, shift, background):
    model = model_of(quiet, background=background)
    params = true_params(quiet, model)[0, 0].copy()
    params[1:8] = shift, 0.03, -0.02, 0.015, 2.0, 0.9, 0.4
    modes = model.n_modes
    params[N_LOCAL + modes : N_LOCAL + 2 * modes] += 0.123
    params[N_LOCAL + 2 * modes :] = 0.2
    evaluator = Evaluator(model, params)
    _, jacobian = evaluator(params)
    steps = np.concatenate(
        [[1e-3 * params[0], 1e-5, 1e-5, 1e-5, 1e-5, 1e-2, 1e-4, 1e-4], np.full(modes, 1.0), np.full(2 * modes, 1e-4)]
    )
    for p, step in enumerate(steps):
        high, low = params.copy(), params.copy()
        high[p] += step
        low[p] -= step
        slope = (evaluator(high)[0] - evaluator(low)[0]) / (2.0 * step)
        name = NAMES[p] if p < N_LOCAL else f"mode row {p - N_LOCAL}"
        assert np.abs(slope).max() > 0.0 or (p == 7 and background != "exp_polynomial"), name
        assert np.abs(jacobian[p] - slope).max() <= 2e-5 * np.abs(slope).max(), name


@pytest.mark.parametrize(
    ("dispersion", "channels", "zero_mev"),
    [(0.5, 340, 0.1), (0.5, 340, -0.24), (1.0, 170, 0.4), (0.25, 680, 0.0), (2.0, 85, 0.7)],
)
def test_model_equals_the_simulator(dispersion, channels, zero_mev):
    energy = {"dispersion_mev": dispersion, "channels": channels, "zero_mev": zero_mev}
    without = simulated(1, 1, energy=energy, phonons={"area_e": 0.0})
    simulation = simulated(1, 1, energy=energy)
    model = model_of(simulation)
    params = true_params(simulation, model)[0, 0]
    values, _ = Evaluator(model, params)(params)
    first = round(simulation.image.energy.channel(0.0) + params[1] / dispersion * 0) + model.first_channel
    window = slice(first, first + values.size)
    counts = np.asarray(simulation.image.counts[0, 0, window], dtype=float)
    lines = counts - np.asarray(without.image.counts[0, 0, window], dtype=float)
    no_modes = params.copy()
    no_modes[N_LOCAL : N_LOCAL + model.n_modes] = 0.0
    ours = values - Evaluator(model, no_modes)(no_modes)[0]
    assert np.abs(ours - lines).max() < 1e-3 * lines.max()
    # The whole spectrum, against its own Poisson noise.
    assert np.abs((values - counts) / np.sqrt(counts)).max() < (0.1 if dispersion <= 1.0 else 1.0)


def test_model_follows_wandering_width_and_tails():
    zero_loss = {"width_wander": 0.02, "tail_wander": 0.01}
    simulation = simulated(1, 6, zero_loss=zero_loss, energy={"jitter_mev": 0.2})
    model = model_of(simulation)
    zero = round(simulation.image.energy.channel(0.0))
    first = zero + model.first_channel
    for column in range(6):
        params = true_params(simulation, model)[0, column]
        if abs(params[1]) > 0.25:
            continue
        values, _ = Evaluator(model, params)(params)
        center = simulation.truth_maps["zlp_center_mev"].values[0, column]
        moved = round((center - params[1]) / model.dispersion_mev)
        counts = simulation.image.counts[0, column, first + moved : first + moved + values.size].astype(float)
        assert np.abs((values - counts) / np.sqrt(counts)).max() < 0.2


def test_line_moves_as_an_interpolated_table_should(quiet):
    """Between nodes and between channels: the line of a model whose nodes lie elsewhere is the same."""
    model = model_of(quiet)
    shifted = BI2212.model_copy(
        update={
            "modes": tuple(
                mode.model_copy(update={"bounds_mev": (mode.bounds_mev[0] - 0.31, mode.bounds_mev[1] + 0.4)})
                for mode in BI2212.modes
            )
        }
    )
    other = model_of(quiet, shifted)
    params = true_params(quiet, model)[0, 0]
    params[0] = 0.0
    ours, theirs = Evaluator(model, params)(params)[0], Evaluator(other, params)(params)[0]
    assert np.abs(ours - theirs).max() < 1e-4 * ours.max()
