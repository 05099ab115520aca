"""Fit the zero-loss peak at every position; leave the counts alone, or resample them, as the route needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from phonon_eels.config.settings import AlignZlp
from phonon_eels.errors import DataError
from phonon_eels.forward.frames import in_mev
from phonon_eels.forward.scan import STATUS_MEANINGS, Alignment, ScanFit, electrons
from phonon_eels.forward.zero_loss import (
    GAUSSIAN_TAIL,
    PeakSearch,
    counts_in_peak,
    estimate_shape,
    fit_zero_loss,
    refined_shape,
    saturation_seen,
    score_zero_loss,
    search_peaks,
    without_saturated,
)
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.spectrum_image import EnergyAxis, ScanAxis, SpectrumImage, StepResult
from phonon_eels.steps.maps import count_status, quantity, scan_dataset
from phonon_eels.steps.spec import StepContext, StepSpec
from phonon_eels.steps.vacuum import VacuumReference, known_reference, reference_summary, vacuum_reference

FAST_SHAPE_ROWS = 8
"""Rows, spread over the scan, that the fast estimator takes the shape of the peak from."""


def align_zlp(image: SpectrumImage, settings: AlignZlp, context: StepContext) -> StepResult:
    """Estimate the zero-loss centre (the mode of the fitted peak), FWHM, tails and counts of every position.

    Parameters
    ----------
    image
        Raw counts, (rows, columns, channels).
    settings
        See `AlignZlp`.

    Returns
    -------
    StepResult
        Maps of the peak's parameters with standard deviations (Fisher information of the shifted Poisson likelihood, all
        shape parameters free). With resampling also the image, its peaks at 0 meV. Where vacuum is marked, or was given
        as a file, the table `vacuum_reference` (`steps.vacuum.known_reference` reads it). Masked positions are left out.

    Raises
    ------
    DataError
        If no position has a zero-loss peak in the search window.
    """
    axis = image.energy
    window = slice(0, axis.n_channels)
    if settings.search_window_mev is not None:
        window = axis.window(*settings.search_window_mev, name="align_zlp.search_window_mev")
    masked = np.zeros(image.shape[:2], bool) if image.masked is None else image.masked
    level = saturation_seen(image, context.backend)
    seen = image if level is None and image.bad is None else without_saturated(image, level, context.backend)
    if settings.estimator == "fast":
        search, reference, center, fit = _fast(image, seen, settings, window, context)
    else:
        # Vacuum is fitted too, for the reference; it has no part in the shape nor in any number of the scan.
        everywhere = search_peaks(image, window, context.backend)
        search = everywhere.without(masked)
        shape = estimate_shape(image, search, context.backend)
        gaussian = settings.line_shape == "gaussian"
        if level is not None:
            shape = refined_shape(seen, search, shape, settings.fit_half_width_fwhm, gaussian, context.backend)
        frames = None if context.route == "classic" else frames_of(image, context)
        model, alignment, fit = fit_zero_loss(
            seen, everywhere, shape, settings.fit_half_width_fwhm, gaussian, context.backend, context.progress, frames
        )
        assert model.zero_loss is not None
        reference = model.zero_loss
        center = axis.offset_mev + axis.dispersion_mev * alignment.channel + fit.params[..., 1]
    fitted = np.isin(fit.status, (CONVERGED, AT_BOUND))
    usable = fitted & ~masked
    if not usable.any():
        raise DataError(
            "the zero-loss peak could not be fitted at any position; look at the file with `phonon-eels inspect`, "
            "or give align_zlp.search_window_mev"
        )
    fwhm, counts, counts_std = counts_in_peak(fit, reference, axis.dispersion_mev)
    values = _maps(fit, reference, center, fwhm, counts, counts_std, usable)
    vacuum, vacuum_words = _vacuum(image, np.where(fitted, center, np.nan), context)
    maps = scan_dataset(image, values, fit.status, STATUS_MEANINGS)
    resample = settings.alignment == "resample" or (settings.alignment == "auto" and context.route == "classic")
    result = _resampled(image, np.where(usable, center, np.nan), reference, context) if resample else None
    return StepResult(
        image=result,
        maps=maps,
        tables={} if vacuum is None else {"vacuum_reference": vacuum.table()},
        summary={
            **_summary(values, fit, reference, image, resample, search),
            "estimator": settings.estimator,
            "saturation_counts": level,
            **({} if vacuum is None else {"vacuum_reference": reference_summary(vacuum)}),
        },
        messages=(
            *_messages(image, fit, search, values, resample, masked),
            *_saturation_messages(level),
            *vacuum_words,
        ),
    )


def _saturation_messages(level: float | None) -> tuple[str, ...]:
    if level is None:
        return ()
    return (
        f"the zero-loss peaks are cut off at {level:g} counts (the highest value, in several channels of several spectra): those "
        "channels and their neighbours were left out of the fit; set acquisition.saturation_counts if this is the detector's "
        "limit",
    )


def _fast(
    image: SpectrumImage, seen: SpectrumImage, settings: AlignZlp, window: slice, context: StepContext
) -> tuple[PeakSearch, ZeroLossShape, np.ndarray, ScanFit]:
    """Fit the shape on some rows, then estimate every position by moments and scores of that shape."""
    rows = np.unique(np.linspace(0, image.shape[0] - 1, min(image.shape[0], FAST_SHAPE_ROWS)).astype(int))
    backend, half_width = context.backend, settings.fit_half_width_fwhm
    sample = _rows_of(image, rows)
    search = search_peaks(sample, window, backend)
    if image.masked is not None:
        search = search.without(image.masked[rows])
    shape = estimate_shape(sample, search, backend)
    gaussian = settings.line_shape == "gaussian"
    shape = refined_shape(_rows_of(seen, rows), search, shape, half_width, gaussian, backend)
    if gaussian:
        shape = replace(shape, tail_loss=GAUSSIAN_TAIL, tail_gain=GAUSSIAN_TAIL)
    height = float(np.nanmedian(search.height)) / electrons(image)[0]
    fit = score_zero_loss(seen, window, shape, height, half_width, backend, context.progress)
    return search, shape, image.energy.offset_mev + fit.params[..., 1], fit


def _rows_of(image: SpectrumImage, rows: np.ndarray) -> SpectrumImage:
    axis = ScanAxis(image.scan[0].name, image.scan[0].step_nm, len(rows))
    return image.with_(
        counts=image.counts[rows],
        bad=None if image.bad is None else image.bad[rows],
        variance=None if image.variance is None else image.variance[rows],
        scan=(axis, image.scan[1]),
        haadf=None,
        haadf_frames=None,
        frames=None,
        halves=None,
        regions=None,
    )


def _vacuum(
    image: SpectrumImage, center_mev: np.ndarray, context: StepContext
) -> tuple[VacuumReference | None, tuple[str, ...]]:
    """Return the vacuum reference (of a file of its own, else of the marked region, else None) and what to say of it."""
    reference = known_reference(context, "ingest")
    marked = image.region("vacuum")
    if reference is None and marked.any():
        if not np.isfinite(center_mev[marked]).any():
            return None, ("no zero-loss peak was found in the region marked as vacuum: there is no vacuum reference",)
        reference = vacuum_reference(image, center_mev, context.backend)
    return reference, () if reference is None else (reference.sentence,)


def _maps(
    fit: ScanFit,
    shape: ZeroLossShape,
    center: np.ndarray,
    fwhm: np.ndarray,
    counts: np.ndarray,
    counts_std: np.ndarray,
    usable: np.ndarray,
) -> dict[str, tuple[np.ndarray, str]]:
    tail_loss, tail_gain = (shape.tail_loss * np.exp(fit.params[..., 3]), shape.tail_gain * np.exp(fit.params[..., 4]))
    values = {
        "zlp_center_mev": (center, "meV"),
        "zlp_center_mev_std": (fit.std[..., 1], "meV"),
        "zlp_fwhm_mev": (fwhm, "meV"),
        "zlp_fwhm_mev_std": (fwhm * fit.std[..., 2], "meV"),
        "zlp_counts": (counts, "electrons"),
        "zlp_counts_std": (counts_std, "electrons"),
        "zlp_tail_loss": (tail_loss, "1"),
        "zlp_tail_loss_std": (tail_loss * fit.std[..., 3], "1"),
        "zlp_tail_gain": (tail_gain, "1"),
        "zlp_tail_gain_std": (tail_gain * fit.std[..., 4], "1"),
        # Channels that share noise leave chi-squared below their number: it is compared with what the noise lets it be.
        "chi2_per_dof": (fit.pearson_chi2 / np.maximum(fit.chi2_mean - fit.chi2_taken, 1.0), "1"),
    }
    return {name: (np.where(usable, array, np.nan), unit) for name, (array, unit) in values.items()}


def _summary(
    values: dict[str, tuple[np.ndarray, str]],
    fit: ScanFit,
    shape: ZeroLossShape,
    image: SpectrumImage,
    resample: bool,
    search: PeakSearch,
) -> dict[str, Any]:
    def mean_of(name: str) -> dict[str, Any]:
        array, unit = values[name]
        finite = array[np.isfinite(array)]
        spread = float(finite.std(ddof=1) / np.sqrt(finite.size)) if finite.size > 1 else float("nan")
        return quantity(float(finite.mean()) if finite.size else float("nan"), spread, unit)

    names = ("zlp_center_mev", "zlp_fwhm_mev", "zlp_tail_loss", "zlp_tail_gain", "zlp_counts")
    center = values["zlp_center_mev"][0]
    return {
        **{name: mean_of(name) for name in names},
        "zlp_center_spread_mev": float(np.nanstd(center)),
        "zlp_fwhm_spread_mev": float(np.nanstd(values["zlp_fwhm_mev"][0])),
        "reference": {"fwhm_mev": shape.fwhm_mev, "tail_loss": shape.tail_loss, "tail_gain": shape.tail_gain},
        "alignment": "resample" if resample else "coordinate",
        "line_shape": "split Pearson VII",
        "peaks_at_window_edge": int(search.at_edge.sum()),
        "status_counts": count_status(fit.status, STATUS_MEANINGS),
        "channels_per_fwhm": shape.fwhm_mev / image.energy.dispersion_mev,
    }


def _messages(
    image: SpectrumImage,
    fit: ScanFit,
    search: PeakSearch,
    values: dict[str, tuple[np.ndarray, str]],
    resample: bool,
    masked: np.ndarray,
) -> tuple[str, ...]:
    messages = []
    failed = int(np.count_nonzero(~np.isin(fit.status, (CONVERGED, AT_BOUND)) & ~masked))
    if failed:
        messages.append(f"the zero-loss peak could not be fitted at {failed} of {fit.status.size} positions")
    per_fwhm = float(np.nanmedian(values["zlp_fwhm_mev"][0])) / image.energy.dispersion_mev
    if per_fwhm < 3.0:
        messages.append(
            f"the zero-loss peak is only {per_fwhm:.1f} channels wide: its centre depends on the assumed shape of the peak"
        )
    misfits = values["chi2_per_dof"][0]
    misfit = float(np.nanmedian(misfits)) if np.isfinite(misfits).any() else np.nan
    if misfit > 1.5:
        messages.append(
            f"chi-squared per degree of freedom of the zero-loss fit is {misfit:.1f} (1 expected): the peak's shape or the "
            "noise model is not right, and the standard deviations of its parameters are too small"
        )
    if search.at_edge.any():
        messages.append(
            f"{int(search.at_edge.sum())} positions have their highest channel at the end of the search window"
        )
    if resample:
        messages.append(
            "counts were resampled to put the zero-loss peak at 0 meV: neighbouring channels are correlated"
        )
    return tuple(messages)


def _resampled(
    image: SpectrumImage, center_mev: np.ndarray, shape: ZeroLossShape, context: StepContext
) -> SpectrumImage:
    """Bring every zero-loss peak to 0 meV with counts conserved; spectra without a peak become NaN."""
    from phonon_eels.backends.resample import resample_block

    axis = image.energy
    zero = round(axis.channel(float(np.nanmedian(center_mev))))
    shift = zero - (center_mev - axis.offset_mev) / axis.dispersion_mev
    gain, dark = image.noise.gain, image.noise.dark_level
    read = image.noise.read_noise_e
    half_width = max(round(shape.fwhm_mev / axis.dispersion_mev), 2)

    def move(part: int) -> Any:
        def block(counts: np.ndarray, bad: np.ndarray | None, shifts: np.ndarray) -> np.ndarray:
            mask = np.empty((0, 0), bool) if bad is None else bad.reshape(-1, bad.shape[2])
            flat = np.ascontiguousarray(counts, dtype=float).reshape(-1, counts.shape[2])
            moved = (np.empty_like(flat), np.empty_like(flat))
            context.backend.run(resample_block, flat, mask, shifts.ravel(), gain, dark, read, half_width, *moved)
            return np.asarray(moved[part].reshape(counts.shape)).astype(np.float32)

        return context.backend.map_cube(block, [image.counts, image.bad, shift[:, :, None]], dtype=np.float32)

    moved_axis = EnergyAxis(-zero * axis.dispersion_mev, axis.dispersion_mev, axis.n_channels)
    in_electrons = replace(image.noise, gain=1.0, dark_level=0.0)
    return image.with_(counts=move(0), variance=move(1), bad=None, halves=None, energy=moved_axis, noise=in_electrons)


def alignment_of(image: SpectrumImage, context: StepContext) -> Alignment:
    """Return where the zero-loss peak of every position lies in an image of a later step."""
    if image.variance is not None:  # resampled: all peaks are at 0 meV
        return Alignment.at_zero(image)
    # A calibration changes the energy axis, and writes the centres on the new one.
    calibrated = "zlp_center_mev" in context.maps.get("calibrate", {})
    maps = context.maps["calibrate" if calibrated else "align_zlp"]
    alignment = Alignment.from_center(np.asarray(maps["zlp_center_mev"].values), image)
    return replace(alignment, frames=frames_of(image, context))


def frames_of(image: SpectrumImage, context: StepContext) -> np.ndarray | None:
    """Return where the zero-loss peaks of the added frames lay, (rows, columns, 4) of `forward.frames` in meV.

    None where there was one frame, or the sum is to be taken for one (``register_frames.fast_path``).

    Raises
    ------
    DataError
        If they are those of another scan.
    """
    maps = context.maps.get("register_frames")
    if maps is None or "frame_pair_offset_channel" not in maps:
        return None
    offset, weight = (maps[f"frame_pair_{name}"].values for name in ("offset_channel", "weight"))
    if offset.shape[1:] != image.shape[:2]:
        raise DataError(
            f"register_frames has left offsets for {list(offset.shape[1:])} rows and columns, the image has "
            f"{list(image.shape[:2])}; run register_frames again"
        )
    pairs = np.stack([offset[0], weight[0], offset[1], weight[1]], axis=-1).astype(float)
    return in_mev(pairs, image.energy.dispersion_mev)


ALIGN_ZLP = StepSpec(
    name="align_zlp",
    run=align_zlp,
    makes={"zlp_center_mev": "meV", "zlp_fwhm_mev": "meV", "zlp_counts": "electrons"},
    reference="maximum likelihood of a split Pearson VII; shifted Poisson noise",
)
