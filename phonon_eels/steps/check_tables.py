"""What checks of a scan have found, as tables and maps: for `ingest`, and for pictures of a file that was only looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.quality.consistency import picture_points
from phonon_eels.steps.maps import quantity, scan_dataset

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from phonon_eels.quality.consistency import Consistency
    from phonon_eels.quality.noise import NoiseEstimate
    from phonon_eels.quality.statistics import ScanStatistics
    from phonon_eels.quality.zero_loss import ZeroLoss
    from phonon_eels.spectrum_image import NoiseModel, SpectrumImage

MEANINGS = ("ok", "not_finite", "empty", "saturated")
MEASURABLE = ("gain", "dark_level", "read_noise_e")
UNITS = {
    "gain": "counts per electron", "dark_level": "counts", "read_noise_e": "electrons", "noise_correlation": "1",
}  # fmt: skip


def position_status(statistics: ScanStatistics) -> np.ndarray:
    """Return what is wrong with each position, numbers of `MEANINGS`, (rows, columns)."""
    return np.select([statistics.not_finite > 0, statistics.empty, statistics.saturated > 0], [1, 2, 3], 0)


def check_maps(image: SpectrumImage, statistics: ScanStatistics) -> xr.Dataset:
    """Return the maps ``total_counts``, ``haadf`` and ``status``."""
    values: dict[str, tuple[np.ndarray, str]] = {"total_counts": (statistics.total_counts, "counts")}
    if image.haadf is not None:
        values["haadf"] = (np.asarray(image.haadf, dtype=np.float64), "1")
    return scan_dataset(image, values, position_status(statistics), MEANINGS)


def check_tables(
    image: SpectrumImage,
    statistics: ScanStatistics,
    estimate: NoiseEstimate | None,
    quality: Sequence[Mapping[str, Any]],
    seen: Consistency,
) -> dict[str, pd.DataFrame]:
    """Return the checks, and what their pictures are made of: mean spectrum, gain by the width of bins, single points."""
    import pandas as pd

    mean = {"energy_loss_mev": image.energy.energies_mev, "mean_counts": statistics.mean_spectrum}
    bins = [] if estimate is None else estimate.by_bin
    names = ["bin_channels", "variance_over_mean", "variance_over_mean_std"]
    return {
        "quality": pd.DataFrame(list(quality), columns=["check", "verdict", "value", "unit", "sentence"]),
        "mean_spectrum": pd.DataFrame(mean),
        "gain_by_bin": pd.DataFrame(list(bins), columns=names),
        "check_pictures": pd.DataFrame(picture_points(image, seen), columns=["check", "x", "y"]),
    }


def peak_summary(zero_loss: ZeroLoss | str) -> dict[str, float] | None:
    """Return where the zero-loss peak of the mean spectrum lies; None where there is none."""
    if isinstance(zero_loss, str):
        return None
    return {"position_mev": zero_loss.position_mev, "fwhm_mev": zero_loss.fwhm_mev}


def noise_summary(noise: NoiseModel, estimate: NoiseEstimate | None) -> dict[str, Any]:
    """Return the noise model as summaries hold it, its deviations where it was measured."""
    found: dict[str, Any] = {}
    for name, unit in UNITS.items():
        source = noise.source.get(name, "assumed")
        measured = getattr(estimate, name, None) if estimate is not None and name in MEASURABLE else None
        std = measured.std if measured is not None and source == "measured" else float("nan")
        found[name] = quantity(getattr(noise, name), std, unit, source)
    return found


def check_pictures(
    image: SpectrumImage,
    statistics: ScanStatistics,
    zero_loss: ZeroLoss | str,
    estimate: NoiseEstimate,
    quality: Sequence[Mapping[str, Any]],
    seen: Consistency,
) -> dict[str, Any]:
    """Return what `figures.plot_quality` and `figures.plot_checks` take."""
    tables = check_tables(image, statistics, estimate, quality, seen)
    return {
        "checks": tables["quality"],
        "pictures": tables["check_pictures"],
        "mean_spectrum": tables["mean_spectrum"],
        "gain_by_bin": tables["gain_by_bin"],
        "maps": check_maps(image, statistics),
        "noise": noise_summary(image.noise, estimate),
        "zero_loss": peak_summary(zero_loss),
    }
