"""Checks of a spectrum image: each passes, warns or fails with a number and a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from phonon_eels.quality.consistency import Consistency, look_at_consistency
from phonon_eels.quality.noise import NoiseEstimate, estimate_noise
from phonon_eels.quality.statistics import ScanStatistics, saturation_level, scan_statistics
from phonon_eels.quality.zero_loss import ZeroLoss, find_zero_loss
from phonon_eels.rounding import plus_minus
from phonon_eels.spectrum_image import SpectrumImage

if TYPE_CHECKING:
    from phonon_eels.backends.base import Backend

Verdict = Literal["pass", "warn", "fail"]
Record = dict[str, Any]

MAX_NEGATIVE_FRACTION = 0.6
"""Dark-corrected channels without electrons are negative half of the time; more than that is a subtracted cube."""
MAX_BAD_POSITIONS = 0.5
VIBRATIONAL_FWHM_MEV = 60.0
"""Zero-loss peaks wider than this come from microscopes without monochromator: phonons lie inside the peak."""
NARROWEST_FWHM_MEV = 0.5
"""No microscope comes near this: an axis in eV was taken for one in meV."""
MIN_CHANNELS_PER_FWHM = 3.0
COMMON_PEAK = 0.5
"""Share of the spectra whose highest channel lies together, below which the axes may have been mistaken."""
MAX_PATTERN_SIGMA = 0.3
"""Fixed pattern, in noise of a single spectrum, that sums of a hundred spectra show at 3 standard deviations."""


def check(image: SpectrumImage, backend: Backend, *, saturation_counts: float | None = None) -> list[Record]:
    """Check a spectrum image from scratch.

    Parameters
    ----------
    image
        Raw counts, (rows, columns, channels).
    backend
        Where the pass over the cube runs.
    saturation_counts
        Detector counts at which a channel is saturated; default: the top of an unsigned 8- or 16-bit type.

    Returns
    -------
    list of dict
        ``{check, verdict, value, unit, sentence}``; verdict is "pass", "warn" or "fail".
    """
    statistics = scan_statistics(image, backend, saturation=saturation_level(image, saturation_counts))
    zero_loss = find_zero_loss(statistics.mean_spectrum, image.energy)
    usable = (statistics.not_finite == 0) & ~statistics.empty
    estimate = estimate_noise(image, zero_loss if isinstance(zero_loss, ZeroLoss) else None, usable)
    seen = look_at_consistency(image, statistics, zero_loss)
    return [*records(image, statistics, zero_loss, estimate), *consistency_records(image, seen, zero_loss)]


def records(
    image: SpectrumImage, statistics: ScanStatistics, zero_loss: ZeroLoss | str, estimate: NoiseEstimate | None
) -> list[Record]:
    """Turn what has been measured into verdicts; see `check`."""
    found = [*_values(statistics), *_positions(statistics)]
    if statistics.minimum != statistics.maximum:
        found += _zero_loss(image, zero_loss)
    if estimate is not None:
        found += _noise(image, estimate)
    if image.haadf is not None:
        found.append(_haadf(image.haadf))
    return found


def consistency_records(image: SpectrumImage, seen: Consistency, zero_loss: ZeroLoss | str) -> list[Record]:
    """Turn what `look_at_consistency` saw into verdicts."""
    found = []
    fwhm = zero_loss.fwhm_mev if isinstance(zero_loss, ZeroLoss) else 0.0
    if seen.peak_channel.size > 1:
        reach = max(3.0 * fwhm / image.energy.dispersion_mev, 0.02 * image.energy.n_channels, 5.0)
        common = float(np.mean(np.abs(seen.peak_channel - np.median(seen.peak_channel)) <= reach))
        good = common >= COMMON_PEAK
        sentence = (
            f"{100.0 * common:.3g} % of the spectra along the middle row have their highest channel at the same place"
        )
        sentence += (
            "" if good else ": is the energy axis the last one, and was the beam on? export the file again if not"
        )
        found.append(_record("axis_order", "pass" if good else "warn", common, "fraction", sentence))
    if np.isfinite(seen.pattern_sigma):
        good = seen.pattern_sigma < MAX_PATTERN_SIGMA
        sentence = f"channels keep a pattern of {seen.pattern_sigma:.2g} of a single spectrum's noise"
        sentence += "" if good else ": the gain reference or the dark image is off, and sums of spectra will show it"
        found.append(_record("fixed_pattern", "pass" if good else "warn", seen.pattern_sigma, "noise std", sentence))
    if seen.frame_zero_mev.size > 1 and np.isfinite(seen.frame_zero_mev).any():
        drift = float(np.nanmax(seen.frame_zero_mev) - np.nanmin(seen.frame_zero_mev))
        good = drift <= fwhm or fwhm == 0.0
        sentence = f"the zero-loss peak moves by {drift:.3g} meV between the frames"
        sentence += "" if good else ", more than its width: register_frames brings them together channel by channel"
        found.append(_record("frame_drift", "pass" if good else "warn", drift, "meV", sentence))
    return found


def sentence_for(quality: list[Record], verdict: Verdict) -> str:
    """Return the sentences of all records with a verdict, joined."""
    return "; ".join(str(record["sentence"]) for record in quality if record["verdict"] == verdict)


def _record(check: str, verdict: Verdict, value: float | None, unit: str, sentence: str) -> Record:
    return {"check": check, "verdict": verdict, "value": value, "unit": unit, "sentence": sentence}


def _values(statistics: ScanStatistics) -> list[Record]:
    bad = statistics.n_not_finite / statistics.n_values
    negative = statistics.n_negative / max(statistics.n_values - statistics.n_not_finite, 1)
    found = [
        _record(
            "finite",
            "pass" if bad == 0 else "fail" if bad == 1 else "warn",
            bad,
            "fraction",
            "all values are finite numbers"
            if bad == 0
            else f"{statistics.n_not_finite} values ({100.0 * bad:.3g} %) are NaN or infinite"
            + ("; export the file again" if bad == 1 else "; they are masked"),
        ),
        _record(
            "negative",
            "fail" if negative > MAX_NEGATIVE_FRACTION else "pass",
            negative,
            "fraction",
            f"{negative:.3g} of the values are negative"
            + (
                ": counts cannot be, so something was subtracted or the sign is wrong; give the raw counts"
                if negative > MAX_NEGATIVE_FRACTION
                else ", as after dark correction; they are kept"
                if negative
                else ""
            ),
        ),
        _record(
            "whole_numbers",
            "pass" if statistics.whole_numbers else "warn",
            float(statistics.whole_numbers),
            "",
            "all values are whole numbers, as a detector gives them"
            if statistics.whole_numbers
            else "the values are no whole numbers: corrected or scaled counts, whose noise needs a known gain",
        ),
    ]
    if not statistics.saturated.any():
        found += _clipping(statistics)
    if statistics.minimum == statistics.maximum:
        what = "all channels of all positions are saturated" if statistics.maximum > 200 else "there is no signal"
        sentence = f"{what}: every value is {statistics.maximum:g}; take the scan again, or export it again"
        found.append(_record("constant", "fail", statistics.maximum, "counts", sentence))
    return found


def _clipping(statistics: ScanStatistics) -> list[Record]:
    """Tell saturation whose level nobody gave: one highest value again and again, or spectra with a flat top."""
    total = statistics.total_counts.size
    some = max(5, total // 100)
    cure = "set acquisition.saturation_counts to mask them"
    flat = statistics.flat_top[np.isfinite(statistics.flat_top)]
    levels, each = np.unique(flat, return_counts=True)
    # By chance few spectra have a flat top, and hardly two of them the same one.
    if flat.size and (each.max() >= some or flat.size >= 10 * some):
        verdict: Verdict = "fail" if flat.size > MAX_BAD_POSITIONS * total else "warn"
        sentence = (
            f"{flat.size} of {total} positions have a flat top (three or more channels with the same highest value, "
            f"most often {levels[np.argmax(each)]:g} counts): probably saturated; {cure}"
        )
        return [_record("clipping", verdict, flat.size / total, "fraction", sentence)]
    if statistics.maximum > 200 and statistics.n_at_maximum >= some and not statistics.empty.all():
        sentence = (
            f"{statistics.n_at_maximum} values are exactly the highest, {statistics.maximum:g} counts: "
            f"probably saturated; {cure}"
        )
        return [_record("clipping", "warn", statistics.maximum, "counts", sentence)]
    return []


def _positions(statistics: ScanStatistics) -> list[Record]:
    total = statistics.total_counts.size
    found = []
    for name, mask, what, cure in (
        (
            "saturation",
            statistics.saturated > 0,
            "have saturated channels, which are masked",
            "use a shorter dwell time",
        ),
        ("empty", statistics.empty, "hold no spectrum (one value in all channels)", "was the beam blanked?"),
    ):
        n = int(np.count_nonzero(mask))
        verdict: Verdict = "pass" if n == 0 else "fail" if n > MAX_BAD_POSITIONS * total else "warn"
        sentence = f"{n} of {total} positions {what}" + (f"; {cure}" if verdict == "fail" else "")
        found.append(_record(name, verdict, n / total, "fraction", sentence))
    return found


def _zero_loss(image: SpectrumImage, zero_loss: ZeroLoss | str) -> list[Record]:
    if isinstance(zero_loss, str):
        cure = "; give a scan that includes it, or mend the energy axis"
        return [_record("zero_loss_peak", "fail", None, "meV", zero_loss + cure)]
    position, fwhm, step = zero_loss.position_mev, zero_loss.fwhm_mev, image.energy.dispersion_mev
    sampled = fwhm / step
    off = abs(position) > fwhm
    wide, narrow = fwhm > VIBRATIONAL_FWHM_MEV, fwhm < NARROWEST_FWHM_MEV
    return [
        _record(
            "zero_loss_peak",
            "warn" if off else "pass",
            position,
            "meV",
            f"the zero-loss peak is at {position:.4g} meV"
            + (", more than its width from 0: the energy axis is off, align_zlp mends that" if off else ""),
        ),
        _record(
            "zero_loss_fwhm",
            "warn" if wide or narrow else "pass",
            fwhm,
            "meV",
            f"the zero-loss peak is {fwhm:.4g} meV wide (FWHM of the mean spectrum, drift included)"
            + (": too wide for phonons, unless the file's energy unit is wrong" if wide else "")
            + (": no microscope is that good, the file's energy unit is wrong (meV for eV?)" if narrow else ""),
        ),
        _record(
            "dispersion",
            "pass" if sampled >= MIN_CHANNELS_PER_FWHM else "warn",
            sampled,
            "channels per FWHM",
            f"{sampled:.3g} channels of {step:g} meV sample the zero-loss peak"
            + ("" if sampled >= MIN_CHANNELS_PER_FWHM else ": fewer than 3, so its shape cannot be fitted freely"),
        ),
    ]


def _noise(image: SpectrumImage, estimate: NoiseEstimate) -> list[Record]:
    found = []
    names: Mapping[str, tuple[str, str]] = {
        "gain": ("counts per electron", "the gain"),
        "dark_level": ("counts", "the dark level"),
        "read_noise_e": ("electrons", "the read noise"),
    }
    for name, (unit, words) in names.items():
        measured = getattr(estimate, name)
        used, source = getattr(image.noise, name), image.noise.source.get(name, "assumed")
        if measured is None:
            verdict: Verdict = "pass" if source != "assumed" else "warn"
            sentence = f"{words} could not be measured; {source} {used:g} {unit} is used"
            if source == "assumed":
                sentence += f", set acquisition.{name} if you know it"
            found.append(_record(name, verdict, None, unit, sentence))
            continue
        value, std = measured.value, measured.std
        differs = source == "given" and abs(value - used) > max(5.0 * std, 0.2 * abs(used))
        sentence = f"{words} measured on the data is {plus_minus(value, std, unit)}"
        if differs:
            sentence += f", but {used:g} is given and used: averaged or scaled counts, or a wrong value?"
        found.append(_record(name, "warn" if differs else "pass", value, unit, sentence))
    if estimate.noise_correlation > 1.1:
        found.append(
            _record(
                "noise_correlation",
                "warn",
                estimate.noise_correlation,
                "",
                f"neighbouring channels share noise: the true gain is {estimate.noise_correlation:.3g} times the "
                f"variance over mean of single channels",
            )
        )
    return found


def _haadf(haadf: np.ndarray) -> Record:
    values = np.asarray(haadf, dtype=np.float64)
    mean = float(np.mean(values))
    contrast = float(np.std(values)) / abs(mean) if mean else 0.0
    return _record(
        "haadf_contrast",
        "pass" if contrast >= 0.01 else "warn",
        contrast,
        "std/mean",
        f"the HAADF has a contrast of {contrast:.3g} (std/mean)"
        + ("" if contrast >= 0.01 else ": too little to see layers in"),
    )
