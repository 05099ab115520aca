"""Layer averages: whole-channel shifts, masks, errors, block independence."""

import dask.array as da
import numpy as np

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.lattice.layer_spectra import average_layers
from phonon_eels.spectrum_image import EnergyAxis, NoiseModel, ScanAxis, SpectrumImage


def _image(counts, **more):
    rows, columns, n = counts.shape
    axes = (ScanAxis("row", 0.1, rows), ScanAxis("column", 0.1, columns))
    return SpectrumImage(counts, EnergyAxis(-5.0, 1.0, n), axes, **more)


def test_spectra_are_brought_to_a_common_zero():
    counts = np.zeros((2, 3, 20))
    centre = np.array([[0.0, 1.1, -2.2], [0.4, 2.0, 0.0]])
    for place, energy in np.ndenumerate(centre):
        counts[place][int(np.rint(energy)) + 5] = 100.0
    found = average_layers(_image(counts), np.zeros((2, 3), int), 1, centre, CpuBackend(1))
    assert found.energy_loss_mev[np.nanargmax(found.mean_e[0])] == 0.0
    assert np.nanmax(found.mean_e) == 100.0


def test_gain_dark_and_mask_are_taken_off():
    rng = np.random.default_rng(0)
    electrons = rng.poisson(50.0, (40, 40, 6))
    counts = 4.0 * electrons + 20.0
    bad = np.zeros(counts.shape, bool)
    counts[3, :, 2], bad[3, :, 2] = 1e6, True
    labels = np.where(np.arange(40)[:, None] % 2 == 0, 0, 1) * np.ones((1, 40), int)
    labels[:, 0] = -1
    image = _image(counts, bad=bad, noise=NoiseModel(gain=4.0, dark_level=20.0, read_noise_e=3.0))
    found = average_layers(image, labels, 2, None, CpuBackend(1))
    chosen = electrons[0::2, 1:].reshape(-1, 6)
    np.testing.assert_allclose(found.mean_e[0], chosen.mean(axis=0))
    np.testing.assert_allclose(found.std_e[0], np.sqrt((chosen.mean(axis=0) + 9.0) / len(chosen)))
    np.testing.assert_array_equal(found.n_positions, [780, 780])
    assert found.mean_e[1, 2] < 60.0


def test_bytes_do_not_depend_on_blocks_or_threads():
    rng = np.random.default_rng(1)
    counts = rng.normal(10.0, 3.0, (23, 17, 9)).astype(np.float32)
    labels, centre = rng.integers(-1, 3, (23, 17)), rng.normal(0.0, 1.5, (23, 17))
    centre[2, 3] = np.nan
    results = [
        average_layers(_image(array), labels, 3, centre, CpuBackend(threads))
        for array, threads in ((counts, 1), (counts, 5), (da.from_array(counts, chunks=(4, 5, 9)), 3))
    ]
    for other in results[1:]:
        assert other.mean_e.tobytes() == results[0].mean_e.tobytes()
        assert other.std_e.tobytes() == results[0].std_e.tobytes()


def test_sums_below_nothing_have_the_deviation_of_the_reading():
    """A few positions, hardly an electron each, dark level taken off: their sum may be negative, its variance may not."""
    counts = np.zeros((1, 4, 3))
    counts[..., 1] = -30.0
    noise = NoiseModel(gain=1.0, dark_level=0.0, read_noise_e=3.0)
    found = average_layers(_image(counts, noise=noise), np.zeros((1, 4), int), 1, None, CpuBackend(1))
    np.testing.assert_allclose(found.mean_e[0], [0.0, -30.0, 0.0])
    np.testing.assert_allclose(found.std_e[0], 3.0 / np.sqrt(4.0))
    quiet = average_layers(_image(counts), np.zeros((1, 4), int), 1, None, CpuBackend(1))
    np.testing.assert_allclose(quiet.std_e[0], 1.0 / 4.0)
