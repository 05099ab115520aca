"""Ingest masks what cannot be used, fills in the detector's noise, and stops at data that cannot be analysed."""

from typing import Any

import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import load_material
from phonon_eels.config.settings import Ingest
from phonon_eels.errors import DataError, QualityError
from phonon_eels.spectrum_image import EnergyAxis, NoiseModel, ScanAxis, SpectrumImage, StepResult
from phonon_eels.steps.ingest import INGEST, ingest
from phonon_eels.steps.spec import StepContext

ENERGY = EnergyAxis(-60.0, 0.5, 300)


def scan(gain: float = 2.0, dark: float = 30.0, **changes: Any) -> SpectrumImage:
    random = np.random.default_rng(4)
    shape = 3000.0 / (1 + (ENERGY.energies_mev / 4.0) ** 2) ** 1.7 + 1.0
    counts = gain * random.poisson(np.broadcast_to(shape, (14, 15, 300))) + dark
    axes = (ScanAxis("row", 0.1, 14), ScanAxis("column", 0.2, 15))
    return SpectrumImage(counts.astype(np.float32), ENERGY, axes, title="night 3").with_(**changes)


def run(
    image: SpectrumImage, threads: int = 1, acquisition: dict[str, Any] | None = None, **settings: Any
) -> StepResult:
    context = StepContext(load_material("bi2212"), CpuBackend(threads), acquisition_settings=acquisition or {})
    return ingest(image, Ingest(**settings), context)


def as_array(cube: Any) -> np.ndarray:
    return np.asarray(cube)


def test_good_scan() -> None:
    image = scan(haadf=np.random.default_rng(0).random((14, 15)))
    result = run(image)
    assert result.image is not None
    assert result.maps is not None
    np.testing.assert_array_equal(as_array(result.image.counts), image.counts)
    assert result.image.bad is None
    noise = result.image.noise
    assert noise.gain == pytest.approx(2.0, rel=0.05)
    assert noise.dark_level == pytest.approx(30.0, abs=1.0)
    assert noise.read_noise_e < 0.6
    assert set(noise.source.values()) == {"measured"}
    assert result.maps["total_counts"].attrs["units"] == "counts"
    np.testing.assert_allclose(result.maps["total_counts"], image.counts.sum(axis=2, dtype=float))
    np.testing.assert_array_equal(result.maps["haadf"], image.haadf)
    assert not result.maps["status"].any()
    assert set(INGEST.makes) <= set(result.maps)
    assert list(result.tables["quality"].columns) == ["check", "verdict", "value", "unit", "sentence"]
    summary = result.summary
    assert summary["noise"]["gain"]["status"] == "measured"
    assert summary["noise"]["gain"]["std"] > 0
    assert "acquisition.beam_energy_kev" in summary["missing"]
    assert "acquisition.gain" not in summary["missing"]
    assert abs(summary["mean_spectrum_zero_loss"]["position_mev"]) < 0.3


def test_given_noise_is_kept() -> None:
    given = NoiseModel(2.1, 29.0, source={"gain": "given", "dark_level": "given"})
    noise = run(scan(noise=given)).image.noise  # type: ignore[union-attr]
    assert (noise.gain, noise.dark_level) == (2.1, 29.0)
    assert noise.source == {
        "gain": "given",
        "dark_level": "given",
        "read_noise_e": "measured",
        "noise_correlation": "measured",
    }


def test_noise_of_another_gain_is_not_mixed_in() -> None:
    result = run(scan(noise=NoiseModel(8.0, source={"gain": "given"})))
    assert result.image is not None
    assert result.image.noise.dark_level == 0.0
    assert result.image.noise.source == {"gain": "given"}
    assert any("whose gain is not the one given" in message for message in result.messages)
    assert any("8 is given and used" in message for message in result.messages)


def test_noise_can_be_left_alone() -> None:
    result = run(scan(), estimate_noise=False)
    assert result.image is not None
    assert result.image.noise == NoiseModel()
    assert "gain" not in set(result.tables["quality"]["check"])


def test_what_cannot_be_used_is_masked_and_told() -> None:
    image = scan()
    image.counts[2, 3, 7] = np.nan
    image.counts[4, 5] = 11.0
    image.counts[6, 1, 120] = 65000.0
    image.counts[0, 0, 10] = -5.0
    result = run(image, acquisition={"saturation_counts": 60000.0})
    assert result.image is not None
    assert result.maps is not None
    status = result.maps["status"].values
    assert (status[2, 3], status[4, 5], status[6, 1]) == (1, 2, 3)
    assert np.count_nonzero(status) == 3
    bad = as_array(result.image.bad)
    assert bad[2, 3, 7]
    assert bad[4, 5].all()
    assert bad[6, 1, 120]
    assert bad.sum() == 2 + 300
    counts = as_array(result.image.counts)
    assert counts[2, 3, 7] == 0.0
    assert counts[0, 0, 10] == -5.0, "negative counts are data"
    assert np.isfinite(counts).all()
    assert result.summary["status"] == {"ok": 207, "not_finite": 1, "empty": 1, "saturated": 1}


def test_frames_are_masked_where_one_is_saturated() -> None:
    one = scan(gain=1.0, dark=0.0).counts.astype(np.uint16)
    frames = np.stack([one, one])
    frames[1, 3, 3, 120] = 65535
    image = scan().with_(counts=frames.sum(axis=0, dtype=np.int64), frames=frames)
    result = run(image)
    assert result.image is not None
    assert result.image.counts.dtype == np.int32
    bad = as_array(result.image.bad)
    assert bad[3, 3, 120]
    assert bad.sum() == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda y: y * np.nan, "NaN or infinite; export the file again"),
        (lambda y: -y, "are negative: counts cannot be"),
        (lambda y: np.random.default_rng(0).poisson(50.0, y.shape), "no zero-loss peak in range"),
    ],
)
@pytest.mark.parametrize("quality", ["stop", "warn"])
def test_data_that_cannot_be_analysed_stop(change: Any, reason: str, quality: str) -> None:
    image = scan()
    with pytest.raises(DataError, match=f"night 3: .*{reason}"):
        run(image.with_(counts=change(image.counts)), quality=quality)


def test_failed_check_stops_unless_told_to_go_on() -> None:
    image = scan()
    image.counts[:9] = 5.0
    with pytest.raises(QualityError, match=r"135 of 210 positions hold no spectrum.*set ingest\.quality to warn"):
        run(image)
    result = run(image, quality="warn")
    assert any("135 of 210 positions" in message for message in result.messages)


def test_result_does_not_depend_on_the_blocks() -> None:
    image = scan()
    image.counts[2, 3, 7] = np.nan
    one, many = run(image, threads=1), run(image, threads=5)
    assert one.image is not None
    assert many.image is not None
    assert one.maps is not None
    assert many.maps is not None
    np.testing.assert_array_equal(as_array(one.image.counts), as_array(many.image.counts))
    np.testing.assert_array_equal(as_array(one.image.bad), as_array(many.image.bad))
    assert one.maps.identical(many.maps)
    assert one.image.noise == many.image.noise
