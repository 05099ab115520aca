"""Frames, masks and checks in the report: do the energies repeat, what was left out, what the data were worth."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.rounding import number, plus_minus
from phonon_eels.spectrum_image import REGIONS
from phonon_eels.steps.report_numbers import ReportTable, records, table_of

if TYPE_CHECKING:
    from phonon_eels.spectrum_image import SpectrumImage
    from phonon_eels.steps.report_sources import Sources
    from phonon_eels.steps.spec import StepContext

WORDS = {"odd_even": ("odd frames", "even frames"), "first_last": ("first half", "last half")}
REPEATS_P = 0.01
"""Below it the report says that the energies do not repeat."""


def reproducibility_table(context: StepContext) -> ReportTable | None:
    """Return the energies of both halves of the frames and how far they differ, None for a single frame."""
    rows = records(table_of(context, "fit_peaks", "reproducibility"))
    if not rows:
        return None
    told = context.summaries.get("register_frames", {}).get("halves") or {}
    first, second = WORDS.get(str(told.get("kind")), ("first half", "second half"))
    n_frames = told.get("n_frames") or ["?", "?"]
    lines = [
        (
            str(row["mode"]),
            plus_minus(row["energy_first_mev"], row["energy_first_mev_std"]),
            plus_minus(row["energy_second_mev"], row["energy_second_mev_std"]),
            plus_minus(row["difference_mev"], row["difference_mev_std"]),
            f"{number(row['p_value']):.2g}",
        )
        for row in rows
        if row["mode"] != "all"
    ]
    together = next((number(row["p_value"]) for row in rows if row["mode"] == "all"), math.nan)
    verdict = "the energies repeat" if together >= REPEATS_P else "the energies do not repeat within their deviations"
    return ReportTable(
        "Energies of both halves of the frames",
        ("mode", f"{first} ({n_frames[0]}), meV", f"{second} ({n_frames[1]}), meV", "difference (meV)", "p"),
        tuple(lines),
        f"All differences together: p = {together:.2g}, {verdict}. Deviations are those of counting; areas, zero-loss "
        "shape and background were fitted to each half at every position, intrinsic widths are those of the whole.",
    )


def quality_figure(sources: Sources) -> Any:
    """Return the figure of the checks at ingest."""
    from phonon_eels import figures

    return figures.plot_quality(**_checked(sources))


def checks_figure(sources: Sources) -> Any:
    """Return a picture for every check at ingest."""
    from phonon_eels import figures

    return figures.plot_checks(pictures=sources.table("ingest", "check_pictures"), **_checked(sources))


def _checked(sources: Sources) -> dict[str, Any]:
    """Return what `ingest` looked at, as figures take it."""
    summary = sources.context.summaries.get("ingest") or {}
    return {
        "checks": sources.table("ingest", "quality"),
        "mean_spectrum": sources.table("ingest", "mean_spectrum"),
        "gain_by_bin": sources.table("ingest", "gain_by_bin"),
        "maps": sources.maps_or_none("ingest"),
        "noise": summary.get("noise") or {},
        "zero_loss": summary.get("mean_spectrum_zero_loss"),
    }


def regions_figure(image: SpectrumImage, context: StepContext, extent: Any) -> Any:
    """Return the figure of the marked regions, over the HAADF or else the counts of every position."""
    from phonon_eels import figures

    assert image.regions is not None
    background, title = image.haadf, "HAADF"
    if background is None:
        maps = context.maps.get("ingest")
        same = maps is not None and maps["total_counts"].shape == image.regions.shape
        background = maps["total_counts"].values if same and maps is not None else np.zeros(image.regions.shape)
        title = "total counts" if same else "the scan"
    return figures.plot_regions(background, image.regions, REGIONS, extent=extent, title=title)
