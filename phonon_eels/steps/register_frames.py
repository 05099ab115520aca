"""Measure the drift of every frame and add the frames with whole-position and whole-channel shifts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from phonon_eels.config.frames import RegisterFrames
from phonon_eels.errors import DataError
from phonon_eels.forward.frames import frame_pairs
from phonon_eels.lattice.line_drift import LineDrift
from phonon_eels.lattice.registration import Drift, common_area
from phonon_eels.spectrum_image import SpectrumImage, StepResult
from phonon_eels.steps.frame_drift import NOT_TESTABLE, FramePlaces, place_frames, rejections
from phonon_eels.steps.frame_messages import frame_messages, line_messages
from phonon_eels.steps.frame_sum import FrameEnergies, channel_shifts, measure_energies, over_area, sum_frames
from phonon_eels.steps.maps import count_status, quantity
from phonon_eels.steps.spec import StepContext, StepSpec
from phonon_eels.units import FWHM_PER_SIGMA

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

Selection = Literal["all", "odd", "even", "first", "last"] | Sequence[int]
HALVES: dict[str, tuple[str, ...]] = {
    "odd_even": ("odd", "even"), "first_last": ("first", "last"), "both": ("odd", "even", "first", "last"),
}  # fmt: skip
ROUNDING_RMS = 12**-0.5
"""Blur of whole-number shifts, root mean square, in positions or channels."""

STATUS_MEANINGS = ("aligned", "energy_from_frame")


def register_frames(
    image: SpectrumImage, settings: RegisterFrames, context: StepContext, frames: Selection | None = None
) -> StepResult:
    """Measure scan and energy drift of each frame and add the frames (fast path).

    Counts are only moved by whole positions and channels, so that they stay what the detector counted. The offsets of
    every frame and position remain in the maps and the table `drift` for fits that shift the model instead.

    Parameters
    ----------
    image
        With `frames` (frames, rows, columns, channels) and `haadf_frames` (frames, rows, columns).
    settings
        See `RegisterFrames`.
    frames
        Which frames to add, instead of `settings.split`: all, every second ("odd": the first, third, …), half of them, or
        their numbers. Offsets and the common area are those of all frames, so that halves can be compared position by
        position.

    Returns
    -------
    StepResult
        The sum over the common area and the channels that every frame has; noise model and energy axis to match; with
        the sums of two halves of the frames beside it (`halves`), where there are four frames or more. The maps have the
        offsets of every frame and position as coordinates: ``row_offset_nm``, ``column_offset_nm`` (where that frame's
        probe stood, from the position that its counts were added to) and ``energy_offset_mev`` (its zero-loss peak, from
        the channel that it was added to).

    Raises
    ------
    DataError
        If no frame, position or channel is left.
    """
    if image.frames is None or image.frames.shape[0] < 2:
        return StepResult(skipped="one frame: nothing to register")
    if not settings.enabled:
        return StepResult(skipped="register_frames is off: the frames stay added as they are")
    n_frames = int(image.frames.shape[0])
    energies = measure_energies(image, context)
    places = place_frames(image, settings, context.backend)
    drift, lines = places.drift, places.lines
    reasons = rejections(places, energies.counts, settings)
    wanted = _selected(settings.split if frames is None else frames, n_frames)
    good = np.array([not reason for reason in reasons])
    used = good & wanted
    if not used.any():
        why = "; ".join(sorted({reason for reason in reasons if reason})) or "none selected"
        raise DataError(f"no frame is left of {n_frames}: {why}; look at the table drift, or select other frames")
    whole = np.floor(drift.shifts + 0.5).astype(int)
    area = common_area(whole[good], *image.shape[:2])
    if area[1] - area[0] < 1 or area[3] - area[2] < 1:
        raise DataError(
            f"the frames drift by {np.ptp(whole[good], axis=0).tolist()} positions (rows, columns) on a scan of "
            f"{list(image.shape[:2])}: nothing is common to all; set register_frames.enabled=false or leave frames out"
        )
    reference, shift, first, last = channel_shifts(energies, whole, area, good, image, settings.align_energy)
    result = sum_frames(image, whole, shift, area, (first, last), used, context)
    numbers, halves, dark_field = {}, None, {}
    if settings.halves != "none" and used.sum() >= 4:
        parts = [_part(used, name) for name in HALVES[settings.halves]]
        sums = [sum_frames(image, whole, shift, area, (first, last), part, context) for part in parts]
        halves = _stacked([half.counts for half in sums])
        if image.haadf_frames is not None:
            dark_field = {f"haadf_{name}": half.haadf for name, half in zip(HALVES[settings.halves], sums, strict=True)}
        numbers = _numbers(settings.halves, [int(part.sum()) for part in parts], int(used.sum()))
    table = _drift_table(image, places, energies, reasons, used)
    maps = _offset_maps(result, energies, shift, whole, area, reference, settings)
    maps = maps.assign_coords(
        _frame_places(result, maps, drift, whole, shift, lines.at_rows(image.shape[0])[:, area[0] : area[1]])
    )
    too_far = 0
    if not settings.fast_path:
        pairs, too_far = _frame_pairs(maps, shift, used)
        maps = maps.assign(pairs)
    summary = _summary(image, places, used, reasons, maps, (first, last))
    summary |= {"split": settings.split if isinstance(frames, str | None) else "numbers"}
    summary |= {"positions_taken_as_one_frame": too_far, "fast_path": settings.fast_path}
    summary |= added_blur(image, maps, drift, whole, used, lines)
    maps = maps.assign({name: (("row", "column"), values, {"units": "1"}) for name, values in dark_field.items()})
    summary |= numbers
    return StepResult(
        image=result.with_(halves=halves),
        maps=maps,
        tables={"drift": table},
        summary=summary,
        messages=(*frame_messages(image, places, reasons, maps, summary), *line_messages(lines)),
    )


def _numbers(kind: str, of_parts: list[int], of_all: int) -> dict[str, Any]:
    """Return what the summary says of the halves: frames in the first, the second and in all; a second pair likewise."""
    first = {"kind": HALVES[kind][0] + "_" + HALVES[kind][1], "n_frames": [*of_parts[:2], of_all]}
    if len(of_parts) == 2:
        return {"halves": first}
    return {"halves": first, "other_halves": {"kind": "first_last", "n_frames": [*of_parts[2:], of_all]}}


def _stacked(sums: list[Any]) -> Any:
    import dask.array

    da: Any = dask.array
    return da.stack([da.asarray(part) for part in sums])


def _part(used: np.ndarray, name: str) -> np.ndarray:
    """The used frames of one half; `odd` counts among those used, so that both halves have as many frames."""
    numbers = np.flatnonzero(used)
    part = np.zeros_like(used)
    part[numbers[_selected(name, numbers.size)]] = True  # type: ignore[arg-type]
    return part


def _frame_places(
    result: SpectrumImage, maps: xr.Dataset, drift: Drift, whole: np.ndarray, shift: np.ndarray, lines: np.ndarray
) -> dict[str, Any]:
    """Coordinates of every frame and position: where its probe and its zero-loss peak were, from where it was added."""
    dims, shape = ("frame", "row", "column"), (len(whole), *result.shape[:2])
    rest = (whole - drift.shifts)[:, None] - lines
    steps = (result.scan[0].step_nm, result.scan[1].step_nm)
    places = {
        f"{name}_offset_nm": (
            dims,
            np.broadcast_to((rest[:, :, k] * steps[k])[:, :, None], shape).astype(np.float32),
            {"units": "nm"},
        )
        for k, name in enumerate(("row", "column"))
    }
    energy = (maps["energy_offset_channel"].values - shift) * result.energy.dispersion_mev
    return {**places, "energy_offset_mev": (dims, energy.astype(np.float32), {"units": "meV"})}


def _frame_pairs(maps: xr.Dataset, shift: np.ndarray, used: np.ndarray) -> tuple[dict[str, Any], int]:
    """Maps of the pairs of shifts that stand for the frames in later fits, and at how many positions they do not."""
    offsets = np.where(used[:, None, None], maps["energy_offset_channel"].values - shift, np.nan)
    pairs, too_far = frame_pairs(offsets.astype(np.float64))
    dims = ("pair", "row", "column")
    return {
        "frame_pair_offset_channel": (
            dims,
            np.moveaxis(pairs[..., ::2], -1, 0).astype(np.float32),
            {"units": "channel"},
        ),
        "frame_pair_weight": (dims, np.moveaxis(pairs[..., 1::2], -1, 0).astype(np.float32), {"units": "1"}),
    }, int(too_far.sum())


def added_blur(
    image: SpectrumImage, maps: xr.Dataset, drift: Drift, whole: np.ndarray, used: np.ndarray, lines: LineDrift
) -> dict[str, Any]:
    """Return what adding by whole positions and channels costs: FWHM of a Gaussian of the same variance.

    Measured from what is left of the offsets of the frames that were added. The uncertainty of the offsets adds to it and
    stands beside, because what the data cannot tell is not known to be blur.
    """
    rest = ((whole - drift.shifts)[:, None] - lines.at_rows(image.shape[0]))[used]
    blur: dict[str, Any] = {}
    for k, axis in enumerate(image.scan):
        spread = FWHM_PER_SIGMA * float(np.sqrt(np.mean((rest[..., k] - rest[..., k].mean(axis=0)) ** 2)))
        known = drift.std[used, k]
        doubt = FWHM_PER_SIGMA * float(np.sqrt(np.nanmean(known**2))) if np.isfinite(known).any() else float("nan")
        scale = 10.0 * axis.step_nm
        status = "ok" if np.isfinite(doubt) else "not measured"
        blur[f"added_blur_{axis.name}_fwhm_angstrom"] = quantity(spread * scale, doubt * scale, "Å", status)
    rest_mev = maps["energy_offset_mev"].values[used]
    doubt_channel = maps["energy_offset_channel_std"].values[used]
    dispersion = image.energy.dispersion_mev
    blur["added_blur_fwhm_mev"] = quantity(
        FWHM_PER_SIGMA * float(np.sqrt(np.nanmean((rest_mev - np.nanmean(rest_mev, axis=0)) ** 2))),
        FWHM_PER_SIGMA * float(np.sqrt(np.nanmean(doubt_channel**2))) * dispersion,
        "meV",
    )
    return blur


def _selected(frames: Selection, n: int) -> np.ndarray:
    numbers = np.arange(n)
    named = {
        "all": numbers >= 0,
        "odd": numbers % 2 == 0,  # counted from one
        "even": numbers % 2 == 1,
        "first": numbers < n // 2,
        "last": numbers >= n - n // 2,
    }
    if isinstance(frames, str):
        if frames not in named:
            raise DataError(f"frames = {frames!r}: give one of {', '.join(named)}, or frame numbers from 0 to {n - 1}")
        return np.asarray(named[frames])
    if any(not 0 <= number < n for number in frames):
        raise DataError(f"frames = {list(frames)}: frame numbers run from 0 to {n - 1}")
    return np.asarray(np.isin(numbers, list(frames)))


def _drift_table(
    image: SpectrumImage, places: FramePlaces, energies: FrameEnergies, reasons: list[str], used: np.ndarray
) -> pd.DataFrame:
    import pandas as pd

    drift, lines = places.drift, places.lines

    row, column = image.scan
    mean = energies.channel.mean(axis=(1, 2))
    dispersion = image.energy.dispersion_mev
    return pd.DataFrame(
        {
            "frame": np.arange(used.size),
            "row_shift_nm": drift.shifts[:, 0] * row.step_nm,
            "row_shift_nm_std": drift.std[:, 0] * row.step_nm,
            "column_shift_nm": drift.shifts[:, 1] * column.step_nm,
            "column_shift_nm_std": drift.std[:, 1] * column.step_nm,
            "row_line_drift_nm": lines.change[:, 0] * row.step_nm,
            "row_line_drift_nm_std": lines.std[:, 0] * row.step_nm,
            "column_line_drift_nm": lines.change[:, 1] * column.step_nm,
            "column_line_drift_nm_std": lines.std[:, 1] * column.step_nm,
            "energy_shift_mev": (mean - mean[0]) * dispersion,
            "energy_shift_mev_std": energies.channel.std(axis=(1, 2)) * dispersion,
            "counts_e": energies.counts,
            "correlation": drift.correlation,
            "sharpness": places.sharpness,
            "period_margin": drift.margin,
            "jump_corrected": drift.jump_corrected,
            "used": used,
            "weight": used.astype(np.int64),
            "reason": reasons,
        }
    )


def _offset_maps(
    result: SpectrumImage,
    energies: FrameEnergies,
    shift: np.ndarray,
    whole: np.ndarray,
    area: tuple[int, int, int, int],
    reference: float,
    settings: RegisterFrames,
) -> xr.Dataset:
    """Offsets of every frame at the positions of the sum; NaN in a frame that does not cover them."""
    import xarray as xr

    size = result.shape[:2]

    def placed(values: np.ndarray) -> np.ndarray:
        maps = np.full((len(whole), *size), np.nan)
        for f in range(len(whole)):
            low, left = area[0] + whole[f, 0], area[2] + whole[f, 1]
            if low >= 0 and left >= 0:
                own = over_area(values[f], whole[f], area)
                if own.shape == size:
                    maps[f] = own
        return maps

    offset, std = placed(energies.channel) - reference, placed(energies.std)
    replaced = placed(energies.replaced.astype(float)) > 0
    status = (replaced.any(axis=0) & settings.align_energy).astype(np.int16)
    flags = {"units": "1", "flag_values": np.arange(2, dtype=np.int16), "flag_meanings": " ".join(STATUS_MEANINGS)}
    cube, flat, unit = ("frame", "row", "column"), ("row", "column"), {"units": "channel"}
    remaining = np.where(np.isfinite(offset), offset - shift, np.nan)
    return xr.Dataset(
        {
            "energy_offset_channel": (cube, offset.astype(np.float32), unit),
            "energy_offset_channel_std": (cube, std.astype(np.float32), unit),
            "energy_shift_channel": (cube, shift.astype(np.int32), unit),
            "energy_blur_channel": (flat, np.sqrt(np.nanmean(remaining**2, axis=0)), unit),
            "status": (flat, status, flags),
        },
        {
            "frame": ("frame", np.arange(len(whole)), {"units": "1"}),
            "row": ("row", result.scan[0].positions_nm, {"units": "nm"}),
            "column": ("column", result.scan[1].positions_nm, {"units": "nm"}),
        },
    )


def _summary(
    image: SpectrumImage,
    places: FramePlaces,
    used: np.ndarray,
    reasons: list[str],
    maps: xr.Dataset,
    channels: tuple[int, int],
) -> dict[str, Any]:
    drift, (row, column) = places.drift, image.scan
    ranges = {}
    coarse = places.why_not == NOT_TESTABLE
    not_measured = NOT_TESTABLE if coarse else "not measured"
    for k, axis in enumerate((row, column)):
        std = drift.std[used, k]
        measured = bool(np.isfinite(std).any())
        typical = float(np.nanmedian(std)) * axis.step_nm if measured else float("nan")
        extent = float(np.ptp(drift.shifts[used, k])) * axis.step_nm
        ranges[f"{axis.name}_drift_nm"] = quantity(extent, typical, "nm", "ok" if measured else not_measured)
    return {
        "n_frames": int(used.size),
        "n_frames_used": int(used.sum()),
        "rejected": {str(f): reason for f, reason in enumerate(reasons) if reason},
        "jumps_corrected": int(drift.jump_corrected.sum()),
        "frames_unsure": [int(f) for f in np.flatnonzero(drift.unsure)],
        "smallest_period_margin": _smallest(drift.margin),
        "lattice_periods_nm": [[p[0] * row.step_nm, p[1] * column.step_nm] for p in drift.periods.tolist()],
        **ranges,
        "position_blur_rms_nm": ROUNDING_RMS * row.step_nm,
        "energy_blur_rms_channel": ROUNDING_RMS,
        "measured_energy_blur_rms_channel": float(np.sqrt(np.nanmean(maps["energy_blur_channel"].values ** 2))),
        "channels_cut": image.energy.n_channels - (channels[1] - channels[0]),
        "status_counts": count_status(maps["status"].values, STATUS_MEANINGS),
    }


def _smallest(margin: np.ndarray) -> float:
    """Smallest margin; infinite ones are frames without any other candidate, NaN was not measured."""
    return float(margin.min()) if margin.size else float("nan")


REGISTER_FRAMES = StepSpec(
    name="register_frames",
    run=register_frames,
    makes={"energy_offset_channel": "channel", "energy_shift_channel": "channel", "energy_blur_channel": "channel"},
    bytes_per_channel=32.0,
    reference="doi:10.1364/OL.33.000156; doi:10.1109/TIP.2011.2181402",
)
