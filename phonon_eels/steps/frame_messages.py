"""What `register_frames` has to say of frames, their drift and what adding them costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.forward.frames import REACH_CHANNELS
from phonon_eels.lattice.line_drift import LineDrift
from phonon_eels.lattice.registration import SURE_MARGIN, Drift
from phonon_eels.spectrum_image import SpectrumImage

if TYPE_CHECKING:
    import xarray as xr

COARSE_COLUMN_NM = 0.11
"""Positions farther apart than this sample the columns of atoms too coarsely for a sure registration
(`docs/validation.md`)."""


def frame_messages(
    image: SpectrumImage, drift: Drift, reasons: list[str], maps: xr.Dataset, summary: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return one sentence for everything a user should know of the frames that were added."""
    row, column, energy = (
        summary[f"added_blur_{name}"]["value"] for name in ("row_fwhm_angstrom", "column_fwhm_angstrom", "fwhm_mev")
    )
    messages = [
        f"adding by whole positions and channels blurs the sum by {row:.2g} Å along the rows' direction, {column:.2g} Å "
        f"along the columns' and {energy:.2g} meV (FWHM); the offsets of every frame and position are kept as coordinates"
    ]
    step = max(axis.step_nm for axis in image.scan if axis.n > 1) if max(image.shape[:2]) > 1 else 0.0
    if image.haadf_frames is not None and step > COARSE_COLUMN_NM:
        messages.append(
            f"positions {10 * step:.2g} Å apart see the columns of atoms too coarsely for a sure registration: at 1.2 Å a "
            "quarter of simulated walks came out a lattice period off, at 1.4 Å nearly all, and period_margin in the table drift "
            "does not show it (docs/validation.md): look at the halves among the defences before trusting the sum"
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
    if image.haadf_frames is None:
        messages.append("no HAADF image of each frame: the scan drift was not measured, the frames were added in place")
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
