"""What is this file? Every signal in it, and whether its spectra can be analysed, in meV, nm and settings keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.errors import PhononEELSError
from phonon_eels.io.axes import axis_unit, mev_per_unit, nm_per_unit
from phonon_eels.io.haadf import OWN_KEY, dark_field_images, find_haadf, haadf_signal
from phonon_eels.io.metadata import acquisition_to_json, electrons_per_count, noise_to_json
from phonon_eels.io.read import to_spectrum_image
from phonon_eels.io.vendor import FileSignal, entry, load_signals
from phonon_eels.quality.checks import consistency_records, records
from phonon_eels.quality.consistency import look_at_consistency
from phonon_eels.quality.noise import estimate_noise
from phonon_eels.quality.statistics import saturation_level, scan_statistics
from phonon_eels.quality.zero_loss import ZeroLoss, find_zero_loss
from phonon_eels.rounding import plus_minus
from phonon_eels.steps.check_tables import check_pictures

if TYPE_CHECKING:
    from phonon_eels.config.settings import AcquisitionSettings
    from phonon_eels.spectrum_image import SpectrumImage


def inspect(
    path: str | Path,
    *,
    acquisition: AcquisitionSettings | None = None,
    threads: int | None = None,
    look: Callable[[int, dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Look into a file and say what is in it; data are read once, block by block.

    Parameters
    ----------
    path
        Any file that `phonon_eels.read` reads.
    acquisition
        What the file does not say; the report then tells what is still missing.
    threads
        Blocks looked at at the same time.
    look
        Called for every spectrum image with the number of its signal and what `figures.plot_checks` takes.

    Returns
    -------
    dict
        JSON-ready: ``file``, ``bytes``, ``signals`` (one entry per signal with number, kind, title, type, shape,
        axes) and for each spectrum ``spectrum`` (axes in meV and nm, acquisition, noise, zero-loss peak, counts,
        quality, missing keys) or ``problem`` (why it cannot be used). `as_text` renders it.

    Raises
    ------
    InputFileError
        If the file cannot be read at all.
    """
    path = Path(path)
    signals = load_signals(path, lazy=True)
    size = path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    return {
        "file": str(path),
        "bytes": size,
        "signals": [_describe(item, signals, path, acquisition, threads, look) for item in signals],
    }


def _describe(
    item: FileSignal,
    signals: list[FileSignal],
    path: Path,
    acquisition: AcquisitionSettings | None,
    threads: int | None,
    look: Callable[[int, dict[str, Any]], None] | None,
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "number": item.number,
        "kind": item.kind,
        "title": item.title,
        "signal_type": item.signal_type,
        "dtype": str(item.data.dtype),
        "shape": [int(size) for size in item.data.shape],
        "axes": [_axis(axis, int(n)) for axis, n in zip(item.axes, item.data.shape, strict=True)],
    }
    if item.kind == "spectrum":
        try:
            image = to_spectrum_image(item, path, acquisition)
            haadf = _haadf(signals, item, image, path, found)
            found["spectrum"], pictures = _spectrum(image.with_(**haadf), threads, acquisition)
            found["spectrum"]["electrons_per_count"] = electrons_per_count(item.original)
            if look is not None:
                look(item.number, pictures)
        except PhononEELSError as problem:
            found["problem"] = str(problem)
    return found


def _haadf(
    signals: list[FileSignal], item: FileSignal, image: SpectrumImage, path: Path, found: dict[str, Any]
) -> dict[str, Any]:
    """Return the dark-field image in the file, and note images that cannot be it."""
    fitting = dark_field_images(signals, image.shape[:2])
    found["haadf_candidates"] = [other.number for other in fitting]
    found["images_of_another_shape"] = [
        other.number for other in signals if other.kind == "image" and tuple(other.data.shape) != image.shape[:2]
    ]
    source = haadf_signal(signals, item, image)
    if entry(item.metadata, OWN_KEY) is not None:
        found["haadf_source"] = f"{OWN_KEY} in the metadata"
    elif source is not None:
        found["haadf_source"] = f"signal {source.number}, {source.title}"
    elif len(fitting) > 1:
        found["haadf_problem"] = (
            f"{len(fitting)} images could be it (signals {', '.join(str(other.number) for other in fitting)}); "
            f"give one with --haadf"
        )
    try:
        return find_haadf(signals, item, image, path)
    except PhononEELSError as problem:
        found["haadf_problem"] = str(problem)
        return {}


def _axis(axis: Mapping[str, Any], n: int) -> dict[str, Any]:
    """Describe an axis as the file has it."""
    unit = axis_unit(axis)
    role = "energy" if mev_per_unit(unit) is not None else "length" if nm_per_unit(unit) is not None else "unknown"
    number = {name: _float(axis.get(name)) for name in ("offset", "scale")}
    return {"name": str(axis.get("name") or ""), "size": n, "unit": unit, **number, "quantity": role}


def _float(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _spectrum(
    image: SpectrumImage, threads: int | None, settings: AcquisitionSettings | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is told of a spectrum image, and what the pictures of its checks are made of."""
    given = settings.saturation_counts if settings is not None else None
    statistics = scan_statistics(image, CpuBackend(threads), saturation=saturation_level(image, given))
    peak = find_zero_loss(statistics.mean_spectrum, image.energy)
    usable = (statistics.not_finite == 0) & ~statistics.empty
    estimate = estimate_noise(image, peak if isinstance(peak, ZeroLoss) else None, usable)
    seen = look_at_consistency(image, statistics, peak)
    quality = [*records(image, statistics, peak, estimate), *consistency_records(image, seen, peak)]
    rows, columns = image.scan
    told = {
        "shape": {
            "frames": 1 if image.frames is None else int(image.frames.shape[0]),
            "rows": rows.n,
            "columns": columns.n,
            "channels": image.energy.n_channels,
        },
        "energy_mev": {
            "first": image.energy.offset_mev,
            "last": image.energy.last_mev,
            "dispersion": image.energy.dispersion_mev,
        },
        "scan_nm": {
            "row_step": rows.step_nm if rows.n > 1 else None,
            "column_step": columns.step_nm if columns.n > 1 else None,
        },
        "acquisition": acquisition_to_json(image.acquisition),
        "noise": noise_to_json(image.noise),
        "zero_loss": {"position_mev": peak.position_mev, "fwhm_mev": peak.fwhm_mev}
        if isinstance(peak, ZeroLoss)
        else {"problem": peak},
        "counts": {
            "minimum": statistics.minimum,
            "maximum": statistics.maximum,
            "mean": float(np.nanmean(statistics.mean_spectrum))
            if np.isfinite(statistics.mean_spectrum).any()
            else None,
            "mean_total": float(np.nanmean(statistics.total_counts)) if usable.any() else None,
            "lowest_channels": float(np.nanquantile(statistics.mean_spectrum, 0.1))
            if np.isfinite(statistics.mean_spectrum).any()
            else None,
            "negative_fraction": statistics.n_negative / statistics.n_values,
            "not_finite": statistics.n_not_finite,
            "whole_numbers": statistics.whole_numbers,
        },
        "measured": {
            name: None if value is None else {"value": value.value, "std": value.std}
            for name, value in (
                ("gain", estimate.gain),
                ("dark_level", estimate.dark_level),
                ("read_noise_e", estimate.read_noise_e),
            )
        },
        "haadf": image.haadf is not None,
        "quality": quality,
        "missing": missing_keys(image),
    }
    return told, check_pictures(image, statistics, peak, estimate, quality, seen)


def missing_keys(image: SpectrumImage) -> list[str]:
    """Return the settings keys of what the file does not say about the acquisition and the detector."""
    unknown = [name for name, value in vars(image.acquisition).items() if value is None and name != "instrument"]
    unknown += [
        name for name in ("gain", "dark_level", "read_noise_e") if image.noise.source.get(name, "assumed") == "assumed"
    ]
    return [f"acquisition.{name}" for name in unknown]


def as_text(report: Mapping[str, Any]) -> str:
    """Return a report of `inspect` as plain text, one fact a line."""
    signals = report["signals"]
    lines = [f"{report['file']}  ({report['bytes'] / 1e6:.3g} MB, {len(signals)} signal{'s' * (len(signals) > 1)})"]
    for item in signals:
        shape = " × ".join(str(size) for size in item["shape"])
        kind = {"spectrum": "spectra", "image": "image", "other": "not usable here"}[item["kind"]]
        tag = f", {item['signal_type']}" if item["signal_type"] else ""
        lines.append(f"{item['number']}: {item['title'] or 'untitled'} — {kind}{tag}, {shape}, {item['dtype']}")
        if item["kind"] != "spectrum":
            continue
        lines += [f"   axis {_axis_text(axis)}" for axis in item["axes"]]
        lines += [f"   {line}" for line in _spectrum_lines(item)]
    if sum(item["kind"] == "spectrum" for item in signals) > 1:
        lines.append("Several spectrum images: choose one with ingest.signal.")
    lines += [f"picture: {path}" for path in report.get("pictures", ())]
    return "\n".join(lines)


def _axis_text(axis: Mapping[str, Any]) -> str:
    name = axis["name"] or "without name"
    if axis["scale"] is None:
        return f"{name}: {axis['size']} unequal steps"
    unit = axis["unit"] or "(no unit)"
    return f"{name}: {axis['size']} from {axis['offset'] or 0.0:g} in steps of {axis['scale']:g} {unit}"


def _spectrum_lines(item: Mapping[str, Any]) -> list[str]:
    if "problem" in item:
        return [f"cannot be used: {item['problem']}"]
    found = item["spectrum"]
    shape, energy, counts = found["shape"], found["energy_mev"], found["counts"]
    frames = f"{shape['frames']} frames of " if shape["frames"] > 1 else ""
    steps = [f"{found['scan_nm'][name]:g} nm" for name in ("row_step", "column_step") if found["scan_nm"][name]]
    lines = [
        f"scan: {frames}{shape['rows']} rows × {shape['columns']} columns"
        + (f", step {' × '.join(steps)}" if steps else ", a single spectrum" if not steps else ""),
        f"energy loss: {energy['first']:g} … {energy['last']:g} meV, {energy['dispersion']:g} meV per channel",
        _zero_loss_text(found["zero_loss"]),
        f"counts: {counts['minimum']:g} … {counts['maximum']:g}, mean {_or_none(counts['mean'])} per channel, "
        f"lowest channels {_or_none(counts['lowest_channels'])}, {100 * counts['negative_fraction']:.3g} % negative",
        *_acquisition_lines(found["acquisition"]),
        *_noise_lines(found),
        _haadf_text(item),
    ]
    spoken = [
        record for record in found["quality"] if record["verdict"] != "pass" and record["check"] != "zero_loss_peak"
    ]
    lines += [f"{record['verdict']}: {record['sentence']}" for record in spoken]
    if found["missing"]:
        lines.append(f"not in the file: {', '.join(found['missing'])}")
    return lines


def _or_none(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _zero_loss_text(peak: Mapping[str, Any]) -> str:
    if "problem" in peak:
        return str(peak["problem"])
    return f"zero-loss peak: at {peak['position_mev']:.4g} meV, FWHM {peak['fwhm_mev']:.4g} meV (mean spectrum)"


def _acquisition_lines(acquisition: Mapping[str, Any]) -> list[str]:
    names = {
        "beam_energy_kev": "beam energy {:g} keV",
        "convergence_semi_angle_mrad": "convergence semi-angle {:g} mrad",
        "collection_semi_angle_mrad": "collection semi-angle {:g} mrad",
        "geometry": "geometry {}",
        "temperature_k": "temperature {:g} K",
        "dwell_time_s": "dwell time {:g} s",
        "instrument": "instrument {}",
    }
    known = [text.format(acquisition[name]) for name, text in names.items() if acquisition[name] is not None]
    return [f"acquisition: {', '.join(known)}"] if known else []


def _noise_lines(found: Mapping[str, Any]) -> list[str]:
    noise, lines = found["noise"], []
    units = {"gain": "counts per electron", "dark_level": "counts", "read_noise_e": "electrons"}
    for name, unit in units.items():
        source, measured = noise["source"].get(name, "assumed"), found["measured"][name]
        parts = [f"{noise[name]:.4g} {unit} in the file"] if source != "assumed" else []
        if name == "gain" and parts and found["electrons_per_count"]:
            parts[0] += f" (calibration {found['electrons_per_count']:.4g} electrons per count)"
        if measured is not None:
            parts.append(f"measured {plus_minus(measured['value'], measured['std'], unit)}")
        lines.append(f"{name.removesuffix('_e').replace('_', ' ')}: {'; '.join(parts) or 'unknown'}")
    return lines


def _haadf_text(item: Mapping[str, Any]) -> str:
    others = item["images_of_another_shape"]
    unused = f"; images {', '.join(map(str, others))} have another shape" if others else ""
    if "haadf_problem" in item:
        return f"HAADF: {item['haadf_problem']}"
    if item["spectrum"]["haadf"]:
        return f"HAADF: {item['haadf_source']}{unused}"
    return f"HAADF: none of the scan's shape{unused}"
