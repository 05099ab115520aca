"""What the user marked in the scan: vacuum, holes, contamination, edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from phonon_eels.figures import style
from phonon_eels.figures.maps import Extent, aspect, draw_map, draw_scale_bar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#ffffff00", *(style.PALETTE[k] for k in (0, 4, 1, 5, 3)))
"""Of the codes in `spectrum_image.REGIONS`; the sample is left clear."""


@style.styled
def plot_regions(
    background: Any,
    regions: Any,
    names: Sequence[str],
    *,
    extent: Extent | None = None,
    title: str = "HAADF",
    width_mm: float = style.COLUMN_MM * 1.3,
) -> Figure:
    """Return the marked regions in colour over an image of the scan.

    Parameters
    ----------
    background
        Image to draw on, (rows, columns): HAADF, or counts per position.
    regions
        Codes, (rows, columns); 0 is the sample.
    names
        Name of each code.
    extent
        Edges of the scan in nm.
    title
        What the image is.
    """
    regions = np.asarray(regions)
    rows, columns = regions.shape
    known = extent is not None
    extent = extent or (-0.5, columns - 0.5, rows - 0.5, -0.5)
    line = 1 in regions.shape
    tall = 22.0 if line else float(np.clip((width_mm - 34) * aspect(extent), 25, 150))
    figure = style.new_figure(width_mm, tall + 12, layout="compressed")
    ax = figure.add_subplot()
    image = draw_map(ax, background, extent, cmap="gray", gamma=0.5)
    over = np.ma.masked_equal(regions, 0)
    ax.imshow(
        over, extent=extent, origin="upper", cmap=ListedColormap(COLOURS[: len(names)]), vmin=-0.5,
        vmax=len(names) - 0.5, alpha=0.55, aspect="auto" if line else "equal",
    )  # fmt: skip
    if line:
        ax.set_aspect("auto")
        image.axes.set_aspect("auto")
    elif known:
        draw_scale_bar(ax, extent)
    present = [code for code in range(1, len(names)) if (regions == code).any()]
    handles = [
        Patch(facecolor=COLOURS[code], alpha=0.7, label=f"{names[code]} ({int((regions == code).sum())})")
        for code in present
    ]
    if handles:
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1.0))
    ax.set_title(f"marked regions on {title}")
    return figure
