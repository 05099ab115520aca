"""The signal type in HyperSpy: what a user types in a notebook."""

import warnings

import hyperspy.api as hs
import matplotlib.pyplot as plt
import numpy as np
import pytest

from phonon_eels.errors import ConfigError, DataError
from phonon_eels.forward.information import model_at
from phonon_eels.forward.model import model_from_description
from phonon_eels.io import rosetta
from phonon_eels.io.export import write_hspy
from phonon_eels.signals import LazyPhononEELS, PhononEELS, register_nion_reader
from tests.unit.forward.spectra import SEPARATED, material_of, simulated
from tests.unit.io.nion_files import counts, write_ndata
from tests.unit.signals.registered import register

MATERIAL = material_of(*SEPARATED)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    register(monkeypatch)


@pytest.fixture(scope="module")
def counted():
    return simulated(
        3, 4, material=MATERIAL, energy={"jitter_mev": 0.4}, zero_loss={"width_wander": 0.01},
        phonons={"area_e": 8e3}, detector={"poisson": True, "gain": 2.5, "read_noise_e": 1.0},
    )  # fmt: skip


@pytest.fixture(scope="module")
def file(counted, tmp_path_factory):
    return write_hspy(counted.image, tmp_path_factory.mktemp("signals") / "scan.hspy")


@pytest.fixture
def signal(file):
    loaded = hs.load(str(file))
    loaded.set_signal_type("PhononEELS")
    return loaded


@pytest.fixture(scope="module")
def fitted(file):
    loaded = PhononEELS.from_spectrum_image(_image_of(file))
    loaded.align_zlp()
    return loaded, loaded.fit_peaks(MATERIAL)


def _image_of(file):
    from phonon_eels.io.read import read

    return read(file, lazy=False)


def test_loading_aligning_fitting(signal, counted):
    assert type(signal) is PhononEELS
    before = signal.data.copy()
    zero_loss = signal.align_zlp()
    maps = signal.fit_peaks(MATERIAL)
    np.testing.assert_array_equal(signal.data, before)
    pull = (zero_loss["zlp_center_mev"].data - counted.truth_maps["zlp_center_mev"].values) / zero_loss[
        "zlp_center_mev_std"
    ].data
    assert np.abs(pull).max() < 5.0
    energy, std = maps["energy_mev"], maps["energy_mev_std"]
    pull = (energy.data - counted.truth_maps["energy_mev"].values) / std.data
    assert np.abs(pull).max() < 5.0
    assert maps.modes == SEPARATED
    assert len(maps) == len(list(maps)) == len(maps.dataset.data_vars)
    assert "energy_mev" in repr(maps)


def test_maps_are_signals_that_plot(fitted):
    _, maps = fitted
    energy = maps["energy_mev"]
    assert energy.axes_manager.navigation_shape == (3,)
    assert energy.axes_manager.signal_shape == (4, 3)
    assert [axis.units for axis in energy.axes_manager.signal_axes] == ["nm", "nm"]
    assert energy.metadata.Signal.quantity == "energy_mev (meV)"
    assert energy.metadata.PhononEELS.modes == list(SEPARATED)
    assert maps["status"].metadata.PhononEELS.flag_meanings.split()[0] == "converged"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Agg cannot be shown
        energy.plot()
        maps["background_e"].plot()
    assert plt.get_fignums()
    plt.close("all")
    with pytest.raises(KeyError, match="none of the maps energy_mev"):
        maps["energy"]


def test_model_is_the_fit(fitted):
    signal, maps = fitted
    model = maps.to_model()
    assert [component.name for component in model] == ["zero_loss", "background", *SEPARATED]
    shown = model.as_signal(show_progressbar=False).data
    told, noise = maps.summary["model"], signal.to_spectrum_image().noise
    own = model_from_description(told, MATERIAL)
    axis = signal.to_spectrum_image().energy
    for row, column in np.ndindex(3, 4):
        at = {name: maps.dataset[name].values[..., row, column] for name in maps}
        channel = int(np.floor(axis.channel(float(at["zlp_center_mev"])) + 0.5))
        shift = float(at["zlp_center_mev"]) - axis.energies_mev[channel]
        local = [at[f"zlp_{name}"] for name in ("log_width", "log_tail_loss", "log_tail_gain")]
        params = np.array([at["zlp_height_e"], shift, *local, at["background_e"], at["background_ramp_e"], 0.0,
                           *at["area_e"], *at["fitted_energy_mev"], 0.0, 0.0, 0.0])  # fmt: skip
        n = own.energies_mev.size
        curve, _ = model_at(own, params)
        channels = channel + own.first_channel + np.arange(n)
        expected = np.full(axis.n_channels, np.nan)
        inside = (channels >= 0) & (channels < axis.n_channels)
        expected[channels[inside]] = noise.gain * curve[inside] + noise.dark_level
        both = np.isfinite(expected) & np.isfinite(shown[row, column])
        assert both.sum() > 300
        # The tables of single modes lie on a grid of their own: equal to a small part of the counting noise.
        sigma = np.sqrt(np.maximum(noise.gain * expected[both], 1.0))
        assert np.abs(shown[row, column][both] - expected[both]).max() < 0.02 * sigma.max()
        assert (np.abs(shown[row, column][both] - expected[both]) < 0.05 * sigma).all()


def test_model_can_be_fitted_and_stored(fitted, tmp_path):
    signal, maps = fitted
    model = maps.to_model()
    model.axes_manager.indices = (2, 1)
    name = SEPARATED[-1]
    ours, std = (maps[key].data[2, 1, 2] for key in ("energy_mev", "energy_mev_std"))
    assert model[name].energy_mev.value == pytest.approx(ours)
    assert model[name].energy_mev.std == pytest.approx(std)
    assert model[name].log_width.twin is model["zero_loss"].log_width
    model.fit(optimizer="lm")
    assert abs(model[name].energy_mev.value - ours) < 2.0 * std
    model.store("fit")
    signal.save(str(tmp_path / "with_model.hspy"))
    again = hs.load(str(tmp_path / "with_model.hspy"))
    assert type(again) is PhononEELS
    restored = again.models.fit.restore()
    np.testing.assert_allclose(
        restored.as_signal(show_progressbar=False).data, model.as_signal(show_progressbar=False).data, rtol=1e-12
    )
    # The zero-loss centres are in the file as well.
    np.testing.assert_array_equal(again.fit_peaks(MATERIAL)["energy_mev"].data, maps["energy_mev"].data)


def test_lazy_equals_eager(file, fitted):
    lazy = hs.load(str(file), lazy=True)
    lazy.set_signal_type("PhononEELS")
    assert type(lazy) is LazyPhononEELS
    lazy.align_zlp()
    np.testing.assert_array_equal(lazy.fit_peaks(MATERIAL)["energy_mev"].data, fitted[1]["energy_mev"].data)
    assert lazy._lazy
    lazy.compute(show_progressbar=False)
    assert type(lazy) is PhononEELS


def test_line_scan_and_single_spectrum(signal, fitted):
    line, single = signal.inav[:, 1], signal.inav[2, 1]
    for part, shape in ((line, (4,)), (single, ())):
        zero_loss = part.align_zlp()
        maps = part.fit_peaks(MATERIAL)
        assert zero_loss["zlp_center_mev"].data.shape == (shape or (1,))
        energy = maps["energy_mev"]
        assert energy.data.shape == (3, *shape)
        assert maps.to_model().as_signal(show_progressbar=False).data.shape == (*shape, 340)
        assert np.abs(energy.data - np.array([38.0, 57.5, 78.0]).reshape(3, *[1] * len(shape))).max() < 2.0


def test_what_cannot_be_done_is_said(signal, fitted):
    with pytest.raises(DataError, match=r"call s\.align_zlp\(\) before s\.fit_peaks\(\)"):
        signal.fit_peaks(MATERIAL)
    signal.align_zlp()
    with pytest.raises(DataError, match=r"scan of \(3, 4\) positions .*this one has \(2, 4\)"):
        signal.inav[:, :2].fit_peaks(MATERIAL)
    with pytest.raises(ConfigError, match=r"s\.align_zlp\(\): unknown key align_zlp\.window"):
        signal.align_zlp(window=(1, 2))
    with pytest.raises(DataError, match="only maps of fit_peaks carry a model"):
        signal.align_zlp().to_model()


def test_spikes(signal):
    signal.data[1, 2, 300] += 20000
    mended = signal.remove_spikes()
    assert type(mended) is PhononEELS
    assert mended.data[1, 2, 300] < 1000
    assert signal.data[1, 2, 300] > 20000


def test_there_and_back(counted):
    signal = PhononEELS.from_spectrum_image(counted.image)
    image = signal.to_spectrum_image()
    np.testing.assert_array_equal(image.counts, counted.image.counts)
    np.testing.assert_array_equal(image.haadf, counted.image.haadf)
    assert image.energy == counted.image.energy
    assert image.scan == counted.image.scan
    assert image.noise.gain == counted.image.noise.gain


def test_nion_reader_in_hyperspy(nion_file):
    import rsciio

    path, truth = nion_file
    given = hs.load(str(path), file_format=rosetta)
    np.testing.assert_array_equal(given.data, truth)
    n = len(rsciio.IO_PLUGINS)
    try:
        register_nion_reader()
        register_nion_reader()
        assert len(rsciio.IO_PLUGINS) == n + 1
        found = hs.load(str(path))
        lazy = hs.load(str(path), lazy=True)
    finally:
        del rsciio.IO_PLUGINS[n:]
    np.testing.assert_array_equal(found.data, truth)
    assert lazy._lazy
    assert found.axes_manager[-1].units == "eV"
    found.set_signal_type("PhononEELS")
    assert type(found) is PhononEELS


@pytest.fixture
def nion_file(tmp_path):
    truth = counts(3, 4, 64)
    return write_ndata(tmp_path / "scan.ndata1", truth), truth
