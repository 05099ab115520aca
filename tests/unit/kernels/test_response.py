"""Tables of lines seen through the instrument."""

import numpy as np
import pytest

from phonon_eels.kernels.response import PAD_CHANNELS, FineGrid, ZeroLossShape, build_mode_tables
from phonon_eels.units import thermal_energy_mev

KT = thermal_energy_mev(293.0)
SHAPE = ZeroLossShape(7.5, 1.6, 1.9)
CHANNELS = np.arange(-80, 231)
DISPERSION = 0.5
BOUNDS, WIDTHS = np.array([[38.0, 46.0], [73.0, 83.0]]), np.array([4.0, 4.5])


def _grid(dispersion=DISPERSION, narrowest=4.0, reach=225.0):
    return FineGrid(np.arange(round(-40 / dispersion), round(115 / dispersion)), dispersion, narrowest, reach)


@pytest.mark.parametrize("thermal", [KT, None], ids=["thermal", "loss alone"])
@pytest.mark.parametrize("shape", ["oscillator", "lorentzian", "gaussian"])
def test_line_has_unit_area_on_the_loss_side(shape, thermal):
    grid = _grid()
    line = grid.line(42.0, 4.0, thermal, shape)
    loss = line[grid.energies_mev > 0.0].sum() + 0.5 * line[grid.energies_mev == 0.0].sum()
    assert loss * grid.step_mev == pytest.approx(1.0, rel=1e-12)
    assert (line >= 0.0).all()


@pytest.mark.parametrize("shape", ["oscillator", "lorentzian", "gaussian"])
def test_line_obeys_detailed_balance(shape):
    grid = _grid()
    line = grid.line(42.0, 4.0, KT, shape)
    zero = int(np.flatnonzero(grid.energies_mev == 0.0)[0])
    steps = np.arange(1, 1000)
    e = grid.energies_mev[zero + steps]
    np.testing.assert_allclose(line[zero - steps], line[zero + steps] * np.exp(-e / KT), rtol=1e-9, atol=1e-300)


def test_without_temperature_there_is_no_gain():
    grid = _grid()
    assert not grid.line(42.0, 4.0, None, "oscillator")[grid.energies_mev <= 0.0].any()


@pytest.mark.parametrize("zero_loss", [None, SHAPE, ZeroLossShape(3.0, 3.0, 1.2)])
def test_convolution_keeps_every_electron(zero_loss):
    grid = _grid(reach=400.0)
    line = np.where(np.abs(grid.energies_mev - 42.0) < 3.0, 1.0, 0.0)
    seen = grid.seen(line, grid.response(zero_loss))
    # Electrons per channel, one value per fine step: a channel holds `per_channel` of them.
    assert seen.sum() / grid.per_channel == pytest.approx(line.sum() * grid.step_mev, rel=1e-2 if zero_loss else 1e-9)


def test_response_moves_no_energy():
    grid = _grid()
    line = np.where(np.abs(grid.energies_mev - 42.0) < 0.5 * grid.step_mev, 1.0, 0.0)
    seen = grid.seen(line, grid.response(SHAPE))
    assert grid.energies_mev[np.argmax(seen)] == pytest.approx(42.0, abs=grid.step_mev)
    # The loss side of the peak is the heavier one, also behind a line.
    assert np.interp(62.0, grid.energies_mev, seen) > 1.1 * np.interp(22.0, grid.energies_mev, seen)


@pytest.mark.parametrize("dispersion", [0.25, 0.5, 1.0, 2.0])
def test_samples_stand_at_the_centres_of_channels(dispersion):
    grid = _grid(dispersion)
    phases = 2
    sampled = grid.sampled(grid.energies_mev, phases)
    channels = np.arange(round(-40 / dispersion) - PAD_CHANNELS, round(115 / dispersion) + PAD_CHANNELS)
    assert sampled.shape == (phases, grid.n_window)
    for phase in range(phases):
        np.testing.assert_allclose(sampled[phase], (channels + phase / phases) * dispersion, atol=1e-9)


def test_tables_hold_the_lines_of_their_nodes():
    grid = FineGrid(CHANNELS, DISPERSION, 4.0, 225.0)
    tables = build_mode_tables(grid, SHAPE, BOUNDS, WIDTHS, KT, "oscillator")
    assert tables.n_modes == 2
    assert (tables.first_node_mev <= BOUNDS[:, 0]).all()
    nodes = tables.values.shape[2]
    assert (tables.first_node_mev + (nodes - 2) * tables.node_step_mev >= BOUNDS[:, 1]).all()
    energy = tables.first_node_mev[1] + 5 * tables.node_step_mev
    line = grid.seen(grid.line(energy, WIDTHS[1], KT, "oscillator"), grid.response(SHAPE))
    phases = tables.values.shape[3]
    np.testing.assert_allclose(tables.values[1, 0, 5], grid.sampled(line, phases), rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize(
    ("table", "change"),
    [(1, {"log_width": 0.02}), (2, {"log_tail_loss": 0.02}), (3, {"log_tail_gain": 0.02}), (4, {})],
    ids=["width", "tail+", "tail-", "intrinsic width"],
)
def test_derivative_tables(table, change):
    grid = FineGrid(CHANNELS, DISPERSION, 4.0, 225.0)
    tables = build_mode_tables(grid, SHAPE, BOUNDS, WIDTHS, KT, "oscillator")
    phases = tables.values.shape[3]
    energy = tables.first_node_mev[0] + 7 * tables.node_step_mev

    def line(width, shape):
        fine = grid.seen(grid.line(energy, width, KT, "oscillator"), grid.response(shape))
        return grid.sampled(fine, phases)

    if change:
        back = {key: -value for key, value in change.items()}
        slope = (line(4.0, SHAPE.changed(**change)) - line(4.0, SHAPE.changed(**back))) / 0.04
    else:
        slope = (line(4.1, SHAPE) - line(3.9, SHAPE)) / 0.2
    found = tables.values[0, table, 7]
    assert np.abs(found - slope).max() < 2e-3 * np.abs(slope).max()
    assert np.abs(slope).max() > 0.0


def test_classic_tables_do_not_depend_on_the_zero_loss_peak():
    tables = build_mode_tables(_grid(), None, BOUNDS, WIDTHS, None, "oscillator")
    assert not tables.values[:, 1:4].any()
    assert tables.values[:, 4].any()


def test_changed_shape():
    shape = SHAPE.changed(0.1, -0.2, 0.3)
    assert (shape.fwhm_mev, shape.tail_loss, shape.tail_gain) == pytest.approx(
        (7.5 * np.exp(0.1), 1.6 * np.exp(-0.2), 1.9 * np.exp(0.3))
    )
