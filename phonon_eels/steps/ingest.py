"""Take in what was read: check it, measure the detector's noise, mask what cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.errors import DataError, QualityError
from phonon_eels.quality.checks import consistency_records, records, sentence_for
from phonon_eels.quality.consistency import look_at_consistency
from phonon_eels.quality.noise import NoiseEstimate, estimate_noise
from phonon_eels.quality.statistics import ScanStatistics, saturation_level, scan_statistics
from phonon_eels.quality.zero_loss import ZeroLoss, find_zero_loss
from phonon_eels.spectrum_image import NoiseModel, SpectrumImage, StepResult
from phonon_eels.steps.check_tables import (
    MEANINGS,
    MEASURABLE,
    check_maps,
    check_tables,
    noise_summary,
    peak_summary,
    position_status,
)
from phonon_eels.steps.maps import count_status
from phonon_eels.steps.spec import StepContext, StepSpec
from phonon_eels.steps.vacuum import VacuumReference, reference_of_scan, reference_summary, region_counts

if TYPE_CHECKING:
    from phonon_eels.config.settings import Ingest

_FATAL = ("finite", "negative", "constant", "zero_loss_peak")


def ingest(image: SpectrumImage, settings: Ingest, context: StepContext) -> StepResult:
    """Check a spectrum image as it was read and make it canonical.

    Counts stay as they are, negative ones too; values that are no finite numbers become 0 and are masked, as are
    saturated channels and positions without a spectrum.

    Parameters
    ----------
    image
        Raw counts, (rows, columns, channels), lazily from the file.
    settings
        What to measure, and whether a failed check stops.
    context
        Gives the backend and the `acquisition` settings.

    Returns
    -------
    StepResult
        The image with mask and noise model; maps ``total_counts`` (counts), ``haadf`` and ``status``; table
        ``quality``; a summary of axes, acquisition, noise and what is missing, by settings key.

    Raises
    ------
    DataError
        If there is no zero-loss peak in range, no finite value, or the cube is mostly negative.
    QualityError
        If another check fails and ``ingest.quality`` is "stop".
    """
    given = context.acquisition_settings.get("saturation_counts")
    level = saturation_level(image, given)
    statistics = scan_statistics(image, context.backend, saturation=level, progress=context.progress)
    zero_loss = find_zero_loss(statistics.mean_spectrum, image.energy)
    estimate = None
    if settings.estimate_noise:
        usable = (statistics.not_finite == 0) & ~statistics.empty
        usable &= True if image.masked is None else ~image.masked
        estimate = estimate_noise(image, zero_loss if isinstance(zero_loss, ZeroLoss) else None, usable)
    seen = look_at_consistency(image, statistics, zero_loss)
    quality = [*records(image, statistics, zero_loss, estimate), *consistency_records(image, seen, zero_loss)]
    messages = _judge(image, quality, settings.quality)
    status = position_status(statistics)
    noise, told = _noise_model(image.noise, estimate)
    result = image.with_(
        counts=_finite(image.counts, statistics, context),
        frames=_finite_frames(image.frames, statistics),
        bad=_mask(image, statistics, level, context),
        noise=noise,
    )
    vacuum = _vacuum(image, settings, context)
    tables = check_tables(result, statistics, estimate, quality, seen)
    summary = _summary(result, statistics, zero_loss, estimate, status)
    if vacuum is not None:
        tables["vacuum_reference"] = vacuum.table()
        summary = {**summary, "vacuum_reference": reference_summary(vacuum)}
    return StepResult(
        image=result,
        maps=check_maps(result, statistics),
        tables=tables,
        summary=summary,
        messages=(*messages, *told, *_masked_words(image)),
    )


def _vacuum(image: SpectrumImage, settings: Ingest, context: StepContext) -> VacuumReference | None:
    """Add up the scan of vacuum alone, its detector measured on itself."""
    vacuum = context.vacuum
    if vacuum is None:
        return None
    noise = vacuum.noise
    if settings.estimate_noise:
        noise, _ = _noise_model(noise, estimate_noise(vacuum))
    return reference_of_scan(vacuum.with_(noise=noise), image, context.backend)


def _masked_words(image: SpectrumImage) -> tuple[str, ...]:
    counted = {name: n for name, n in region_counts(image).items() if n and name != "sample"}
    if not counted:
        return ()
    words = ", ".join(f"{n} {name}" for name, n in counted.items())
    return (f"{sum(counted.values())} positions are masked ({words}): not fitted, not averaged",)


def _judge(image: SpectrumImage, quality: list[dict[str, Any]], on_failure: str) -> tuple[str, ...]:
    """Stop at what cannot be analysed, and at what should not be unless told to go on."""
    fatal = [record for record in quality if record["verdict"] == "fail" and record["check"] in _FATAL]
    title = image.title or "the spectrum image"
    if fatal:
        raise DataError(f"{title}: {sentence_for(fatal, 'fail')}")
    failed = sentence_for(quality, "fail")
    if failed and on_failure == "stop":
        raise QualityError(f"{title}: {failed}; to go on nevertheless set ingest.quality to warn")
    warned = [str(record["sentence"]) for record in quality if record["verdict"] == "warn"]
    return (*([failed] if failed else []), *warned)


def _noise_model(noise: NoiseModel, estimate: NoiseEstimate | None) -> tuple[NoiseModel, tuple[str, ...]]:
    """Fill in what is not given with what was measured; what belongs to another gain than the given one is left out."""
    if estimate is None:
        return noise, ()
    if estimate.gain is None:
        return noise, estimate.reasons
    source = dict(noise.source)
    values: dict[str, Any] = {}
    gain_is_given = source.get("gain", "assumed") != "assumed"
    differs = abs(estimate.gain.value - noise.gain) > max(5.0 * estimate.gain.std, 0.2 * noise.gain)
    if gain_is_given and differs:
        return noise, ("dark level and read noise are not taken from the data, whose gain is not the one given",)
    for name in MEASURABLE:
        measured = getattr(estimate, name)
        if measured is not None and source.get(name, "assumed") == "assumed":
            values[name], source[name] = measured.value, "measured"
    if source.get("noise_correlation", "assumed") == "assumed":
        values["noise_correlation"], source["noise_correlation"] = estimate.noise_correlation, "measured"
    return replace(noise, **values, source=source), estimate.reasons


def _finite(counts: Any, statistics: ScanStatistics, context: StepContext) -> Any:
    """Counts without NaN, and sums of frames in the narrowest whole-number type that holds them."""
    if statistics.n_not_finite:
        dtype = counts.dtype
        return context.backend.map_cube(
            lambda block: np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0).astype(dtype, copy=False),
            [counts],
            dtype=dtype,
        )
    if counts.dtype == np.int64 and statistics.minimum >= -(2**31) and statistics.maximum < 2**31:
        return counts.astype(np.int32)
    return counts


def _finite_frames(frames: Any, statistics: ScanStatistics) -> Any:
    if frames is None or not statistics.n_not_finite:
        return frames
    if hasattr(frames, "dask"):
        return frames.map_blocks(np.nan_to_num, nan=0.0, posinf=0.0, neginf=0.0, dtype=frames.dtype)
    return np.nan_to_num(frames, nan=0.0, posinf=0.0, neginf=0.0)


def _mask(image: SpectrumImage, statistics: ScanStatistics, level: float | None, context: StepContext) -> Any:
    """True where a channel must not be used; None if all may be."""
    saturated = bool(statistics.saturated.any())
    if not saturated and not statistics.n_not_finite and not statistics.empty.any():
        return image.bad

    def mask(counts: np.ndarray, empty: np.ndarray, bad: np.ndarray | None, *frames: np.ndarray) -> np.ndarray:
        found: np.ndarray = ~np.isfinite(counts) | empty
        if saturated and level is not None:
            for exposure in frames or (counts,):
                found |= exposure >= level
        return found if bad is None else found | bad

    frames = [] if image.frames is None else [image.frames[number] for number in range(image.frames.shape[0])]
    return context.backend.map_cube(mask, [image.counts, statistics.empty[..., None], image.bad, *frames], dtype=bool)


def _summary(
    image: SpectrumImage,
    statistics: ScanStatistics,
    zero_loss: ZeroLoss | str,
    estimate: NoiseEstimate | None,
    status: np.ndarray,
) -> Mapping[str, Any]:
    rows, columns = image.scan
    acquisition = {name: getattr(image.acquisition, name) for name in type(image.acquisition).__dataclass_fields__}
    return {
        "title": image.title,
        "shape": {"rows": rows.n, "columns": columns.n, "channels": image.energy.n_channels},
        "energy": {
            "offset_mev": image.energy.offset_mev,
            "dispersion_mev": image.energy.dispersion_mev,
            "last_mev": image.energy.last_mev,
        },
        "scan": {"row_step_nm": rows.step_nm, "column_step_nm": columns.step_nm},
        "acquisition": acquisition,
        "noise": noise_summary(image.noise, estimate),
        "mean_spectrum_zero_loss": peak_summary(zero_loss),
        "counts": {
            "type": str(image.counts.dtype),
            "minimum": statistics.minimum,
            "maximum": statistics.maximum,
            "mean_total": float(np.nanmean(statistics.total_counts)),
            "negative_fraction": statistics.n_negative / statistics.n_values,
        },
        "haadf": image.haadf is not None,
        "regions": region_counts(image),
        "missing": list(missing_keys(image)),
        "status": count_status(status, MEANINGS),
    }


def missing_keys(image: SpectrumImage) -> tuple[str, ...]:
    """Return the settings keys that would say what neither the file nor a measurement did."""
    unknown = [name for name, value in vars(image.acquisition).items() if value is None and name != "instrument"]
    unknown += [name for name in MEASURABLE if image.noise.source.get(name, "assumed") == "assumed"]
    return tuple(f"acquisition.{name}" for name in unknown)


INGEST = StepSpec(
    name="ingest",
    run=ingest,
    makes={"total_counts": "counts", "haadf": "1"},
    reference="shifted Poisson noise and gain as a plateau: Zietlow & Lindner 2025, Ultramicroscopy 275, 114159",
)
