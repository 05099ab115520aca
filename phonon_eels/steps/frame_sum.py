"""Add frames of spectra by whole positions and whole channels, so that counts stay what the detector counted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from phonon_eels.errors import DataError
from phonon_eels.spectrum_image import EnergyAxis, NoiseModel, ScanAxis, SpectrumImage
from phonon_eels.steps.mean_peak import peak_width_channels
from phonon_eels.steps.spec import StepContext

LOST_PEAK_FWHM = 3.0  # a zero-loss peak farther than this from its frame's is a spike or a hole in the specimen


@dataclass(frozen=True)
class FrameEnergies:
    """Zero-loss positions of all frames.

    Attributes
    ----------
    channel, std
        (frames, rows, columns), fractional channels.
    replaced
        True where the peak was not found and the frame's own median stands for it.
    counts
        Typical electrons per position, (frames,).
    """

    channel: np.ndarray
    std: np.ndarray
    replaced: np.ndarray
    counts: np.ndarray


def measure_energies(image: SpectrumImage, context: StepContext) -> FrameEnergies:
    """Mode of the zero-loss peak of every frame and position, on spectra smoothed by about its width.

    Masked positions have none: the median of their frame stands there.
    """
    frames, noise = image.frames, _frame_noise(image)
    assert frames is not None
    n_frames, n_rows, n_columns, _ = frames.shape
    shown = np.ones((n_rows, n_columns), dtype=bool) if image.masked is None else ~image.masked
    if not shown.any():
        raise DataError("all positions are masked: nothing is left to register; look at masks.files")
    typical = int(np.argsort(shown.sum(axis=1), kind="stable")[-1]) if not shown[n_rows // 2].any() else n_rows // 2
    middle = np.asarray(frames[0, typical], dtype=np.float64)[shown[typical]].mean(axis=0)
    width = peak_width_channels(middle)
    sigma = width / 2.3548
    # Three running means are as good as a Gaussian, and take the same time however wide they are.
    box = max(round(float(np.sqrt(4.0 * sigma**2 + 1.0))) | 1, 1)
    channel = np.zeros((n_frames, n_rows, n_columns))
    std, counts = np.full_like(channel, np.nan), np.zeros(n_frames)

    def modes(first: int, block: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[float]]:
        z = (np.asarray(block, dtype=np.float64) - noise.dark_level) / noise.gain
        totals = z.sum(axis=2)
        smooth = z
        for _ in range(3):
            smooth = ndimage.uniform_filter1d(smooth, box, axis=2, mode="nearest")
        top = np.argmax(smooth, axis=2)
        inner = np.clip(top, 1, smooth.shape[2] - 2)
        low, mid, high = (np.take_along_axis(smooth, (inner + k)[..., None], 2)[..., 0] for k in (-1, 0, 1))
        bend = np.minimum(low - 2.0 * mid + high, -1e-12)
        offset = np.where(inner == top, np.clip(0.5 * (low - high) / bend, -0.5, 0.5), 0.0)
        inside = shown[first : first + len(totals)]
        return (
            top + offset,
            totals,
            [float(np.median(row[own])) for row, own in zip(totals, inside, strict=True) if own.any()],
        )

    for f in range(n_frames):
        parts = context.backend.map_rows(modes, [frames[f]])
        channel[f] = np.concatenate([part[0] for part in parts])
        electrons = np.maximum(np.concatenate([part[1] for part in parts]), 1.0)
        # A median along each row: one spike must not cost the frame.
        medians = [row for part in parts for row in part[2]]
        counts[f] = sum(medians) / len(medians)
        # Gaussian peak seen through a Gaussian of its width: 1.24 σ/√N of counting, and the read noise under it.
        read = 4.0 * np.sqrt(np.pi) * sigma**3 * noise.read_noise_e**2
        std[f] = np.sqrt(1.54 * sigma**2 / electrons + read / electrons**2)
        context.progress(f + 1, n_frames)
    median = np.median(channel[:, shown], axis=1)[:, None, None]
    spread = 1.4826 * np.median(np.abs(channel - median)[:, shown], axis=1)[:, None, None]
    lost = (np.abs(channel - median) > np.maximum(LOST_PEAK_FWHM * width, 6.0 * spread)) & shown
    std[:, ~shown] = np.median(std[:, shown], axis=1)[:, None]
    return FrameEnergies(np.where(lost | ~shown, median, channel), std, lost, counts)


def _frame_noise(image: SpectrumImage) -> NoiseModel:
    """Noise of one frame; that of the image is that of the sum of all."""
    n = int(image.frames.shape[0])  # type: ignore[union-attr]
    return image.noise.of_share(1.0 / n)


def channel_shifts(
    energies: FrameEnergies,
    whole: np.ndarray,
    area: tuple[int, int, int, int],
    good: np.ndarray,
    image: SpectrumImage,
    align_energy: bool,
) -> tuple[float, np.ndarray, int, int]:
    """Return (reference channel, whole shift of each frame over the common area, first and last + 1 channel kept)."""
    n = image.energy.n_channels
    placed = np.stack([over_area(energies.channel[f], whole[f], area) if good[f] else
                       np.zeros((area[1] - area[0], area[3] - area[2])) for f in range(len(whole))])  # fmt: skip
    reference = float(np.floor(np.median(placed[good]) + 0.5))
    if not align_energy:
        return reference, np.zeros(placed.shape, dtype=np.int64), 0, n
    shift = np.where(good[:, None, None], np.floor(placed + 0.5) - reference, 0.0).astype(np.int64)
    first, last = max(0, -int(shift.min())), n - max(0, int(shift.max()))
    if last - first < 2:
        raise DataError(
            f"the zero-loss peak moves by {int(np.ptp(shift))} channels between spectra and the axis has {n}: "
            "no channel is common to all; set register_frames.align_energy=false"
        )
    return reference, shift, first, last


def over_area(values: np.ndarray, whole: np.ndarray, area: tuple[int, int, int, int]) -> np.ndarray:
    """What a frame holds at the common positions."""
    low, high, left, right = area
    return np.asarray(values[low + whole[0] : high + whole[0], left + whole[1] : right + whole[1]])


def sum_frames(
    image: SpectrumImage,
    whole: np.ndarray,
    shift: np.ndarray,
    area: tuple[int, int, int, int],
    channels: tuple[int, int],
    used: np.ndarray,
    context: StepContext,
) -> SpectrumImage:
    """Add the frames one after the other, lazily: at most two blocks are in memory per thread.

    The mask that a user drew counts in the positions of the first frame.
    """
    frames = image.frames
    assert frames is not None
    first, last = channels
    kept = last - first
    # Sums of numbers of up to 16 bits are exact in float32 up to 2^24, and rounded far below their noise beyond.
    dtype = np.float32 if np.dtype(frames.dtype).itemsize <= 2 or frames.dtype == np.float32 else np.float64
    saturation = context.acquisition_settings.get("saturation_counts")

    def add(block: np.ndarray, shifts: np.ndarray, total: np.ndarray | None) -> np.ndarray:
        moved = _moved(block, shifts[..., 0], first, kept).astype(dtype)
        return moved if total is None else np.asarray(total + moved)

    def saturated(
        block: np.ndarray, shifts: np.ndarray, known: np.ndarray | None, total: np.ndarray | None
    ) -> np.ndarray:
        marked = np.zeros(block.shape, bool) if known is None else np.array(known, dtype=bool)
        if saturation is not None:
            marked |= np.asarray(block) >= saturation
        moved = _moved(marked, shifts[..., 0], first, kept)
        return moved if total is None else np.asarray(moved | total)

    counts, bad = None, None
    for f in np.flatnonzero(used):
        own = over_area(frames[f], whole[f], area)
        counts = context.backend.map_cube(add, [own, shift[f][..., None], counts], dtype=dtype, n_channels=kept)
        if saturation is not None or image.bad is not None:
            known = None if image.bad is None else over_area(image.bad, whole[f], area)
            bad = context.backend.map_cube(
                saturated, [own, shift[f][..., None], known, bad], dtype=bool, n_channels=kept
            )
    n_used, n_frames = int(used.sum()), int(frames.shape[0])
    scan = tuple(
        ScanAxis(axis.name, axis.step_nm, high - low, axis.offset_nm + low * axis.step_nm)
        for axis, low, high in zip(image.scan, area[::2], area[1::2], strict=True)
    )
    haadf = image.haadf
    if image.haadf_frames is not None:
        images = [
            over_area(np.asarray(image.haadf_frames[f], dtype=np.float64), whole[f], area) for f in np.flatnonzero(used)
        ]
        haadf = np.mean(images, axis=0)
    elif haadf is not None:
        haadf = haadf[area[0] : area[1], area[2] : area[3]]
    regions = None if image.regions is None else image.regions[area[0] : area[1], area[2] : area[3]]
    energy = EnergyAxis(
        image.energy.offset_mev + first * image.energy.dispersion_mev, image.energy.dispersion_mev, kept
    )
    per_frame = max(image.acquisition.n_frames // n_frames, 1)
    return image.with_(
        counts=counts, bad=bad, variance=None, frames=None, haadf_frames=None, haadf=haadf, energy=energy, regions=regions,
        scan=(scan[0], scan[1]), noise=image.noise.of_share(n_used / n_frames),
        acquisition=replace(image.acquisition, n_frames=n_used * per_frame),
    )  # fmt: skip


def _moved(block: np.ndarray, shift: np.ndarray, first: int, kept: int) -> np.ndarray:
    """Channels first + shift … of every spectrum."""
    result = np.empty((*block.shape[:2], kept), dtype=block.dtype)
    for number in np.unique(shift):
        here = shift == number
        result[here] = block[here, first + number : first + number + kept]
    return result
