"""What `register_frames` has to say of frames, their drift and what adding them costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.forward.frames import REACH_CHANNELS
from phonon_eels.lattice.line_drift import LineDrift
from phonon_eels.lattice.registration import SURE_MARGIN
from phonon_eels.spectrum_image import SpectrumImage
from phonon_eels.steps.frame_drift import NOT_TESTABLE, FramePlaces, largest_step_nm

SURE_STEP_NM = 0.11
"""Up to this distance of positions no simulated walk came out a lattice period off (`docs/validation.md`)."""

if TYPE_CHECKING:
    import xarray as xr


def frame_messages(
    image: SpectrumImage, places: FramePlaces, reasons: list[str], maps: xr.Dataset, summary: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return one sentence for everything a user should know of the frames that were added."""
    drift = places.drift
    row, column, energy = (
        summary[f"added_blur_{name}"]["value"] for name in ("row_fwhm_angstrom", "column_fwhm_angstrom", "fwhm_mev")
    )
    messages = [
        f"adding by whole positions and channels blurs the sum by {row:.2g} Å along the rows' direction, {column:.2g} Å "
        f"along the columns' and {energy:.2g} meV (FWHM); the offsets of every frame and position are kept as coordinates"
    ]
    step = largest_step_nm(image)
    if places.why_not == NOT_TESTABLE:
        messages.append(
            f"the scan drift is not testable at this sampling: positions {10 * step:.2g} Å apart see the columns of atoms too coarsely to "
            "tell a frame from one a lattice period away (docs/validation.md); the frames were added in place, so drift between them "
            "blurs the sum and is not in its figure: look at the halves among the defences, scan with a finer step, or take the word of "
            "the HAADF with register_frames.largest_step_nm"
        )
    elif not places.why_not and step > SURE_STEP_NM:
        messages.append(
            f"positions are {10 * step:.2g} Å apart: beyond {10 * SURE_STEP_NM:.2g} Å a frame may come out a lattice period off without "
            "period_margin in the table drift showing it (docs/validation.md)"
        )
    far = int(summary["positions_taken_as_one_frame"])
    if far:
        messages.append(
            f"at {far} positions the zero-loss peak of some frame lies more than {REACH_CHANNELS:g} channels from the others': "
            "fits take the sum there for one frame, and its blur goes into the width (register_frames.align_energy mends that)"
        )
    if summary["fast_path"]:
        messages.append(
            "register_frames.fast_path: fits take the sum for one frame, its blur goes into the zero-loss width"
        )
    if places.why_not and places.why_not != NOT_TESTABLE:
        messages.append(f"{places.why_not}: the scan drift was not measured, the frames were added in place")
    messages += [f"frame {f} was left out: {reason}" for f, reason in enumerate(reasons) if reason]
    if drift.unsure.any():
        frames = ", ".join(str(f) for f in np.flatnonzero(drift.unsure))
        messages.append(
            f"frames {frames} could as well lie a lattice period elsewhere (odds below {np.exp(SURE_MARGIN):.0f} to one, "
            f"smallest margin {summary['smallest_period_margin']:.3g} in log likelihood): the HAADF shows too little that is not "
            "periodic; look at period_margin in the table drift"
        )
    if drift.jump_corrected.any():
        frames = ", ".join(str(f) for f in np.flatnonzero(drift.jump_corrected))
        messages.append(f"the best match was a wrong lattice period and was corrected in frames {frames}")
    typical = float(np.nanmedian(maps["energy_offset_channel_std"].values))
    if typical > 0.5:
        messages.append(f"the zero-loss peak of one frame is known to {typical:.1f} channels only; that blurs the sum")
    lost = int(summary["channels_cut"])
    if lost > 0.2 * image.energy.n_channels:
        messages.append(f"{lost} of {image.energy.n_channels} channels were cut because not every frame has them")
    return tuple(messages)


def line_messages(lines: LineDrift) -> tuple[str, ...]:
    """Return a sentence where frames drift by more than half a position from their first row to their last."""
    with np.errstate(invalid="ignore"):
        seen = (np.abs(lines.change) > 0.5) & (np.abs(lines.change) > 3.0 * lines.std)
    if not seen.any():
        return ()
    largest = float(np.nanmax(np.abs(lines.change)))
    return (
        f"{int(seen.any(axis=1).sum())} frames drift while they are scanned, by up to {largest:.2g} positions from the first row to the "
        "last against the mean of the others: the offsets of every row hold it, whole rows are not moved for it, and its blur is "
        "in the figure of the added blur",
    )
