"""One `read` for all files: a spectrum image with energies in meV, the scan in nm and typed acquisition metadata.

Nothing is guessed: what the file does not say must be given under `acquisition` in the settings, and the message
names the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.errors import ConfigError, InputFileError
from phonon_eels.io import axes as axis_dicts
from phonon_eels.io.haadf import find_haadf, given_haadf, native_type
from phonon_eels.io.metadata import NOISE_FIELDS, file_acquisition, file_noise
from phonon_eels.io.vendor import FileSignal, entry, load_signals
from phonon_eels.spectrum_image import Acquisition, EnergyAxis, NoiseModel, ScanAxis, SpectrumImage

if TYPE_CHECKING:
    from phonon_eels.config.settings import AcquisitionSettings

_FRAME_NAMES = ("frame", "frames", "time", "stack", "sequence", "image number")


def read(
    path: str | Path,
    *,
    acquisition: AcquisitionSettings | None = None,
    haadf: str | Path | None = None,
    signal: int | None = None,
    lazy: bool = True,
) -> SpectrumImage:
    """Read a spectrum image, a line scan (one row) or a single spectrum (one position).

    Parameters
    ----------
    path
        ``.hspy .zspy .hdf5 .dm3 .dm4 .emd .msa``, Nion Swift's ``.ndata .ndata1 .h5 .nhdf .nsproj``, or a ``.zip``
        with one such file in it.
    acquisition
        What the file does not say, or says wrongly.
    haadf
        Dark-field image of the same scan in a file of its own (``.tif .png .npy`` or any of the above).
        Default: the one in the file, if there is one.
    signal
        Which signal of a file that holds several spectrum images, as `inspect` numbers them.
    lazy
        Leave the counts on disk (dask) instead of loading them.

    Returns
    -------
    SpectrumImage
        With several frames `frames` holds them raw and `counts` is their sum, without registration.

    Raises
    ------
    InputFileError
        If the file cannot be read, holds no spectrum image or several, or lacks what must be known.
    DataError
        If the HAADF has another shape than the scan.
    ConfigError
        If `acquisition` contradicts a unit that the file states.
    """
    path = Path(path)
    signals = load_signals(path, lazy=lazy)
    chosen = choose_spectrum(signals, signal, path)
    image = to_spectrum_image(chosen, path, acquisition)
    image = image.with_(**find_haadf(signals, chosen, image, path))
    if haadf is not None:
        image = image.with_(haadf=given_haadf(Path(haadf), image), haadf_frames=None)
    return image if lazy else _loaded(image)


def choose_spectrum(signals: list[FileSignal], number: int | None, path: Path) -> FileSignal:
    """Return the spectrum image that is meant.

    Raises
    ------
    InputFileError
        If there is none, or several and no number says which.
    """
    spectra = [item for item in signals if item.kind == "spectrum"]
    listed = "; ".join(f"{item.number}: {item.title or 'untitled'} {tuple(item.data.shape)}" for item in spectra)
    if number is not None:
        for item in spectra:
            if item.number == number:
                return item
        raise InputFileError(
            f"{path}: signal {number} is not a spectrum image; choose ingest.signal from {listed or 'none at all'}"
        )
    if not spectra:
        found = ", ".join(f"{item.kind} {tuple(item.data.shape)}" for item in signals)
        raise InputFileError(
            f"{path} holds no spectra, only {found}; needed is a signal with an energy axis "
            f"(in HyperSpy: one signal axis with the unit eV), so give the spectrum image's file"
        )
    unreadable = [entry(item.metadata, "PhononEELS.unreadable") for item in signals]
    lost = [str(reason) for reason in unreadable if reason]
    if lost:
        raise InputFileError(
            f"{path}: {len(lost)} of its items cannot be read (the first: {lost[0]}); mend that, or choose one of the "
            f"others with ingest.signal: {listed}"
        )
    scans = _scans(spectra)
    if len(scans) > 1:
        raise InputFileError(f"{path} holds {len(scans)} spectrum images: {listed}; choose one with ingest.signal")
    return scans[0]


def scan_numbers(path: str | Path) -> list[int]:
    """Return the numbers of the spectrum images of a file, or of its single spectra where it holds nothing else: what `signal` may be.

    Raises
    ------
    InputFileError
        If the file cannot be read.
    """
    return [item.number for item in _scans([item for item in load_signals(Path(path)) if item.kind == "spectrum"])]


def _scans(spectra: list[FileSignal]) -> list[FileSignal]:
    """Live views of the spectrometer lie beside the scan in a session: single spectra, no choice to make."""
    return [item for item in spectra if item.data.ndim > 1] or spectra


def to_spectrum_image(signal: FileSignal, path: Path, settings: AcquisitionSettings | None = None) -> SpectrumImage:
    """Turn one signal of a file into the package's order and units, without HAADF.

    Raises
    ------
    InputFileError
        If an axis has no unit or the wrong one; the message names the key that mends it.
    """
    given = settings.model_dump() if settings is not None else {}
    energy_number = _energy_axis_number(signal, path, given)
    others = [number for number in range(signal.data.ndim) if number != energy_number]
    frame_number, scan_numbers = _scan_axis_numbers(signal, others, path)
    order = [*([frame_number] if frame_number is not None else []), *scan_numbers, energy_number]
    data = signal.data.transpose(order)
    # A single spectrum is one position, a line scan one row.
    missing = 2 - len(scan_numbers)
    data = data.reshape(
        (*data.shape[: len(order) - 1 - len(scan_numbers)], *[1] * missing, *data.shape[-1 - len(scan_numbers) :])
    )
    energy, data = _energy_axis(signal, energy_number, path, given, data)
    scan = _scan_axes(signal, scan_numbers, path, given)
    data = _native(data)
    frames = data if frame_number is not None else None
    n_frames = int(frames.shape[0]) if frames is not None else 1
    acquisition = _acquisition(signal, given, n_frames)
    return SpectrumImage(
        counts=data if frames is None else sum_of_frames(frames),
        energy=energy,
        scan=scan,
        noise=_noise(signal, given, n_frames, acquisition),
        acquisition=acquisition,
        frames=frames if n_frames > 1 else None,
        title=signal.title or path.stem,
    )


def sum_of_frames(frames: Any) -> Any:
    """Add frames one after the other, so that the result does not depend on how they are chunked.

    Parameters
    ----------
    frames
        (frames, rows, columns, channels).

    Returns
    -------
    array
        (rows, columns, channels); whole numbers stay whole (64-bit), others keep their type.
    """
    kind = np.dtype(frames.dtype).kind
    total = frames[0].astype(np.int64 if kind in "iu" else np.float64)
    for number in range(1, frames.shape[0]):
        total = total + frames[number]
    return total if kind in "iu" else total.astype(frames.dtype)


def _energy_axis_number(signal: FileSignal, path: Path, given: Mapping[str, Any]) -> int:
    units = [axis_dicts.axis_unit(axis) for axis in signal.axes]
    with_energy = [number for number, unit in enumerate(units) if axis_dicts.mev_per_unit(unit) is not None]
    marked = [number for number, axis in enumerate(signal.axes) if not axis.get("navigate", False)]
    if len(with_energy) > 1:
        raise InputFileError(f"{path}: {len(with_energy)} axes have an energy unit; one energy axis is needed")
    if with_energy:
        number = with_energy[0]
        if signal.flags_meant and marked != [number]:
            name = axis_dicts.name_of(signal.axes[number])
            raise InputFileError(
                f"{path}: the axes are in the wrong order: the axis {name} has the unit {units[number]} but is not the "
                f"signal axis; in HyperSpy: s.as_signal1D({number}) on the array's axes, or s.transpose, and save again"
            )
        return number
    if len(marked) != 1:
        raise InputFileError(
            f"{path}: none of the {len(signal.axes)} axes has an energy unit and {len(marked)} are signal axes, so the "
            f"energy axis cannot be told; in HyperSpy give it the unit eV and make it the signal axis"
        )
    number = marked[0]
    if units[number] is not None:
        raise InputFileError(
            f"{path}: the signal axis {axis_dicts.name_of(signal.axes[number])} has the unit {units[number]}, not eV, "
            f"meV or keV; the axes are in the wrong order or the unit is wrong: mend it in HyperSpy and save again"
        )
    if given.get("energy_unit") is None:
        raise InputFileError(
            f"{path}: the energy axis has no unit (step {signal.axes[number].get('scale')}); "
            f"set acquisition.energy_unit to eV or meV"
        )
    return number


def _scan_axis_numbers(signal: FileSignal, others: list[int], path: Path) -> tuple[int | None, list[int]]:
    """Tell the frame axis from the scan's: the one that is no length."""
    if len(others) <= 2:
        # Frames of a line scan or of a single spectrum are known by their name alone.
        frames = [n for n in others if str(signal.axes[n].get("name") or "").lower() == "frame"]
        frames = [n for n in frames if axis_dicts.nm_per_unit(axis_dicts.axis_unit(signal.axes[n])) is None]
        return (frames[0], [n for n in others if n != frames[0]]) if len(frames) == 1 else (None, others)
    if len(others) > 3:
        raise InputFileError(
            f"{path}: {len(others) + 1} axes; at most frames, rows, columns and energy can be used: "
            f"take a part of the data in HyperSpy (s.inav) and save it"
        )
    named = [n for n in others if str(signal.axes[n].get("name") or "").lower() in _FRAME_NAMES]
    no_length = [n for n in others if axis_dicts.nm_per_unit(axis_dicts.axis_unit(signal.axes[n])) is None]
    for candidates in (named, no_length):
        if len(candidates) == 1:
            return candidates[0], [n for n in others if n != candidates[0]]
    raise InputFileError(
        f"{path}: which of the three axes {', '.join(axis_dicts.name_of(signal.axes[n]) for n in others)} counts the "
        f"frames cannot be told; in HyperSpy name it 'frame' and save again"
    )


def _energy_axis(
    signal: FileSignal, number: int, path: Path, given: Mapping[str, Any], data: Any
) -> tuple[EnergyAxis, Any]:
    axis = signal.axes[number]
    unit, wanted = axis_dicts.axis_unit(axis), given.get("energy_unit")
    if unit is not None and wanted is not None and axis_dicts.mev_per_unit(unit) != axis_dicts.mev_per_unit(wanted):
        raise ConfigError(
            f"acquisition.energy_unit = {wanted}, but {path} says {unit}; the setting is for files without a unit: "
            f"remove it, or mend the unit in the file"
        )
    factor = axis_dicts.mev_per_unit(unit or wanted)
    assert factor is not None  # _energy_axis_number has seen to it
    offset, scale = axis_dicts.uniform(axis, str(path))
    n_channels = int(signal.data.shape[number])
    if n_channels < 3:
        raise InputFileError(f"{path}: the energy axis has {n_channels} channels; this is no spectrum")
    if scale < 0.0:
        offset, scale, data = offset + scale * (n_channels - 1), -scale, data[..., ::-1]
    return EnergyAxis(_clean(offset * factor), _clean(scale * factor), n_channels), data


def _clean(value: float) -> float:
    """Take off what a conversion from eV added: 0.0602 eV is 60.2 meV, not 60.199999999999996."""
    rounded = float(f"{value:.12g}")
    return rounded if abs(rounded - value) <= 1e-14 * max(abs(value), 1.0) * 10 else value


def _scan_axes(
    signal: FileSignal, numbers: list[int], path: Path, given: Mapping[str, Any]
) -> tuple[ScanAxis, ScanAxis]:
    found = [_scan_axis(signal, number, path, given) for number in numbers]
    single = ScanAxis("row", step_nm=1.0, n=1)
    found = [*[single] * (2 - len(found)), *found]
    return replace(found[0], name="row"), replace(found[1], name="column")


def _scan_axis(signal: FileSignal, number: int, path: Path, given: Mapping[str, Any]) -> ScanAxis:
    axis, n = signal.axes[number], int(signal.data.shape[number])
    unit = axis_dicts.axis_unit(axis)
    factor = axis_dicts.nm_per_unit(unit or given.get("scan_unit"))
    if n == 1 and factor is None:
        return ScanAxis("row", step_nm=1.0, n=1)
    if factor is None:
        if given.get("scan_step_nm") is not None:
            return ScanAxis("row", step_nm=float(given["scan_step_nm"]), n=n)
        says = f"the unit {unit}, which is no length" if unit else "no unit"
        raise InputFileError(
            f"{path}: the scan axis {axis_dicts.name_of(axis)} has {says}; "
            f"set acquisition.scan_step_nm{'' if unit else ' or acquisition.scan_unit'}"
        )
    offset, scale = axis_dicts.uniform(axis, str(path))
    return ScanAxis("row", step_nm=_clean(abs(scale) * factor), n=n, offset_nm=_clean(offset * factor) + 0.0)


def _acquisition(signal: FileSignal, given: Mapping[str, Any], n_frames: int) -> Acquisition:
    found = file_acquisition(signal.metadata, signal.original)
    wanted = {name: given[name] for name in Acquisition.__dataclass_fields__ if given.get(name) is not None}
    return replace(found, **wanted, n_frames=max(n_frames, found.n_frames))


def _noise(signal: FileSignal, given: Mapping[str, Any], n_frames: int, acquisition: Acquisition) -> NoiseModel:
    """Noise of the sum of all frames: dark levels add, read noise adds in squares; settings win over the file."""
    values, source = file_noise(signal.metadata, signal.original)
    factors = {"gain": 1.0, "dark_level": float(n_frames), "read_noise_e": acquisition.n_frames**0.5}
    for name, factor in factors.items():
        if given.get(name) is not None:
            values[name], source[name] = given[name] * factor, "given"
    denoised = bool(values.pop("denoised", False))
    return NoiseModel(**values, source={name: source.get(name, "assumed") for name in NOISE_FIELDS}, denoised=denoised)


def _native(data: Any) -> Any:
    """Bring counts to this machine's byte order, and lazy ones to chunks of whole spectra."""
    data = data.astype(native_type(data.dtype)) if data.dtype != native_type(data.dtype) else data
    return data.rechunk({data.ndim - 1: -1}) if hasattr(data, "dask") else data


def _loaded(image: SpectrumImage) -> SpectrumImage:
    frames = None if image.frames is None else np.asarray(image.frames)
    counts = np.ascontiguousarray(image.counts) if frames is None else sum_of_frames(frames)
    return image.with_(counts=counts, frames=frames)
