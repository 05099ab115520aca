"""`.hspy` files as HyperSpy users have them."""

from pathlib import Path

import dask.array as da
import numpy as np
import pytest

from phonon_eels.errors import OutputError
from phonon_eels.io.export import spectrum_chunks, write_hspy
from phonon_eels.io.read import read
from tests.unit.io.scans import small_scan


def test_read_gives_back_what_was_written(tmp_path: Path) -> None:
    image = small_scan()
    back = read(write_hspy(image, tmp_path / "a b.hspy"))
    np.testing.assert_array_equal(np.asarray(back.counts), image.counts)
    assert back.counts.dtype == np.uint16
    np.testing.assert_array_equal(back.haadf, image.haadf)
    assert back.energy == image.energy
    assert back.scan == image.scan
    assert back.acquisition == image.acquisition
    assert (back.noise.gain, back.noise.dark_level) == (0.5, 3.0)
    # What was only assumed is not written, so that nobody takes it for known.
    assert back.noise.read_noise_e == 0.0
    assert dict(back.noise.source) == {
        "gain": "given",
        "dark_level": "measured",
        "read_noise_e": "assumed",
        "noise_correlation": "assumed",
    }


def test_frames_come_first_and_are_summed(tmp_path: Path) -> None:
    image = small_scan()
    frames = np.stack([image.counts, image.counts + 1, image.counts + 7])
    haadf = np.random.default_rng(0).random((3, 4, 5))
    back = read(write_hspy(image.with_(frames=frames, haadf_frames=haadf), tmp_path / "f.hspy"))
    np.testing.assert_array_equal(np.asarray(back.frames), frames)
    np.testing.assert_array_equal(np.asarray(back.counts), frames.sum(axis=0))
    np.testing.assert_array_equal(back.haadf_frames, haadf)
    assert back.acquisition.n_frames == 3


def test_lazy_equals_eager(tmp_path: Path) -> None:
    image = small_scan()
    write_hspy(image, tmp_path / "eager.hspy")
    write_hspy(image.with_(counts=da.from_array(image.counts, chunks=(1, 2, -1))), tmp_path / "lazy.hspy")
    a, b = read(tmp_path / "eager.hspy", lazy=False), read(tmp_path / "lazy.hspy", lazy=True)
    assert isinstance(a.counts, np.ndarray)
    assert isinstance(b.counts, da.Array)
    assert b.counts.chunks[2] == (64,), "every chunk holds whole spectra"
    np.testing.assert_array_equal(a.counts, b.counts.compute())


def test_haadf_and_compression_can_be_left_out(tmp_path: Path) -> None:
    image = small_scan(rows=16, columns=16)
    small = write_hspy(image, tmp_path / "small.hspy", haadf=False)
    large = write_hspy(image, tmp_path / "large.hspy", compress=False)
    assert read(small).haadf is None
    assert small.stat().st_size < 0.7 * large.stat().st_size


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_hspy(small_scan(), tmp_path / "x.hspy")
    before = path.read_bytes()
    image = small_scan()
    with pytest.raises(OutputError, match=r"cannot write .*choose another results folder"):
        write_hspy(image, path / "below_a_file" / "y.hspy")
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.hspy"]


@pytest.mark.parametrize(
    ("shape", "size", "want"),
    [
        ((256, 256, 1024), 8e6, (7, 256, 1024)),
        ((256, 4096, 2048), 8e6, (1, 820, 2048)),
        ((3, 4, 1024), 1, (1, 1, 1024)),
        ((9, 16, 16, 64), 1e9, (1, 16, 16, 64)),
    ],
)
def test_chunks_hold_whole_spectra(shape: tuple[int, ...], size: float, want: tuple[int, ...]) -> None:
    assert spectrum_chunks(shape, np.float32, size) == want


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # HyperSpy's own deprecations
def test_hyperspy_opens_it(tmp_path: Path) -> None:
    import hyperspy.api as hs

    image = small_scan()
    path = write_hspy(image.with_(frames=np.stack([image.counts] * 2)), tmp_path / "x.hspy")
    signal = hs.load(path)
    assert type(signal).__name__ == "EELSSpectrum"
    assert signal.axes_manager.navigation_shape == (5, 4, 2)
    axis = signal.axes_manager.signal_axes[0]
    assert (axis.units, axis.scale, axis.offset) == ("eV", 0.0005, -0.0101)
    assert axis.is_binned
    assert signal.metadata.Acquisition_instrument.TEM.Detector.EELS.collection_angle == 25.0
    signal.save(tmp_path / "again.zspy")
    back = read(tmp_path / "again.zspy")
    np.testing.assert_array_equal(back.haadf, image.haadf)
    assert back.energy == image.energy
    np.testing.assert_array_equal(np.asarray(back.frames)[1], image.counts)
