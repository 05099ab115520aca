"""What all figures share: size in column widths, type, colours, limits, saving.

No pyplot, no state left behind.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal, ParamSpec

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLUMN_MM = 85.0
"""Width of a figure in one column of a journal, in mm."""
PAGE_MM = 178.0
"""Width of a figure over both columns, in mm."""
MM_PER_INCH = 25.4

# The palette of Okabe and Ito, told apart with every kind of colour vision; yellow last, it is weak on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F5FA8", "#8C6D31")
INK = "#1a1a1a"
MUTED = "#6b6b6b"
FAILED = "#cfcfcf"

_RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same picture on every machine
    "mathtext.fontset": "dejavusans",
    "font.size": 7.0,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.0,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "figure.titlesize": 8.0,
    "axes.linewidth": 0.6,
    "axes.titlepad": 3.0,
    "axes.labelpad": 2.0,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.0,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.borderaxespad": 0.3,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "image.interpolation": "nearest",
    "image.composite_image": False,
    "hatch.linewidth": 0.4,
    "svg.fonttype": "path",  # letters as outlines: nothing to install, nothing to substitute
    "svg.hashsalt": "phonon_eels",
    "pdf.fonttype": 42,  # TrueType inside the file, as journals ask
}

P = ParamSpec("P")


def styled(plot: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a plotting function under the style of the package and leave the caller's settings alone."""

    @functools.wraps(plot)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(_RC):
            return plot(*args, **kwargs)

    return wrapper


class NotebookFigure(Figure):
    """A figure that a notebook shows by itself, without pyplot and whatever backend is chosen there."""

    def _repr_png_(self) -> bytes:
        stream = BytesIO()
        with matplotlib.rc_context(_RC):
            self.savefig(stream, format="png", dpi=self.dpi)
        return stream.getvalue()


def new_figure(
    width_mm: float, height_mm: float, layout: Literal["constrained", "compressed"] = "constrained"
) -> Figure:
    """Return an empty figure of a size in mm, drawn by Agg without any window."""
    figure = NotebookFigure(figsize=(width_mm / MM_PER_INCH, height_mm / MM_PER_INCH), layout=layout, dpi=150)
    FigureCanvasAgg(figure)
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
    return figure


def save_figure(figure: Figure, target: Path | BinaryIO, dpi: int = 300, form: str | None = None) -> None:
    """Write a figure so that the same results give the same bytes: no dates, fixed ids, fonts embedded.

    Parameters
    ----------
    target
        File (its suffix says the format: .png, .svg or .pdf), or an open binary stream.
    dpi
        Resolution of png, and of images inside the vector formats.
    form
        Format, for a stream.
    """
    metadata: dict[str, dict[str, Any]] = {
        "svg": {"Date": None, "Creator": "phonon_eels"},
        "pdf": {"CreationDate": None, "Creator": "phonon_eels"},
        "png": {"Software": "phonon_eels"},
    }
    form = form or Path(str(target)).suffix.lower().lstrip(".")
    with matplotlib.rc_context(_RC):
        engine = figure.get_layout_engine()
        if engine is not None:
            # Laying out costs more than drawing: once is enough for all formats.
            engine.execute(figure)
            figure.set_layout_engine("none")
        if form == "png":
            # `savefig` draws twice, once for a layout that has been made already.
            usual = figure.get_dpi()
            figure.set_dpi(dpi)
            FigureCanvasAgg(figure).print_png(target, metadata=metadata["png"])
            figure.set_dpi(usual)
        else:
            figure.savefig(target, dpi=dpi, format=form, metadata=metadata.get(form, {}))


def literal(text: object) -> str:
    """Return text that matplotlib prints as it is, also with dollar signs in it (a file name is no formula)."""
    return str(text).replace("$", r"\$")


def subscripts(name: object) -> str:
    """Return a layer's name with chemical subscripts: CuO2 becomes CuO₂."""
    subscript = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    return re.sub(r"(?<=[A-Za-z])\d\b", lambda match: match.group().translate(subscript), str(name))


def layer_text(name: object) -> str:
    """Return a layer's name with chemical subscripts, as matplotlib prints it."""
    return literal(subscripts(name))


def unit_text(unit: object) -> str:
    """Return a unit as it is printed: an e becomes e⁻, no unit an empty string."""
    text = "" if unit is None else str(unit)
    return {"1": "", "e": "e⁻", "electron": "e⁻", "electrons": "e⁻", "degree": "°"}.get(text, literal(text))


def robust_limits(values: Any, low: float = 2.0, high: float = 98.0) -> tuple[float, float]:
    """Return the percentiles of the finite values, widened where they coincide; (0, 1) if none is finite."""
    finite = np.asarray(values, dtype=float).ravel()
    finite = finite[np.isfinite(finite)]
    if finite.size == 0:
        return 0.0, 1.0
    bottom, top = (float(v) for v in np.percentile(finite, [low, high]))
    if top - bottom <= 1e-9 * max(abs(top), abs(bottom), 1e-300):
        pad = 0.01 * abs(top) if top else 1.0
        return bottom - pad, top + pad
    return bottom, top


def std_limits(values: Any) -> tuple[float, float]:
    """Return robust limits for a map of standard deviations, never narrower than ±15 % of their median."""
    low, high = robust_limits(values)
    finite = np.asarray(values, dtype=float)[np.isfinite(values)]
    middle = float(np.median(finite)) if finite.size else 0.0
    return max(min(low, 0.85 * middle), 0.0), max(high, 1.15 * middle, 1e-300)


def symmetric_limits(values: Any, centre: float = 0.0) -> tuple[float, float]:
    """Return robust limits of equal distance from `centre`, for diverging colours."""
    low, high = robust_limits(values)
    reach = max(abs(low - centre), abs(high - centre), 1e-12)
    return centre - reach, centre + reach


def colours(names: Iterable[str]) -> dict[str, str]:
    """Return one colour per name, in order; eight are distinct."""
    return {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(names)}


def layer_colours(names: Iterable[str]) -> dict[str, str]:
    """Return one colour per layer; the gap between slabs is grey."""
    named = [name for name in names if not _is_gap(name)]
    return {**colours(named), **{name: "#9a9a9a" for name in names if _is_gap(name)}}


def _is_gap(name: str) -> bool:
    return name.lower() in {"gap", "vdw", "vdw_gap", "van_der_waals_gap"}


def panel_letters(figure: Figure, axes: Iterable[Any]) -> None:
    """Write bold a, b, c … at the upper left, outside of the axes."""
    for letter, ax in zip("abcdefghijklmnopqrstuvwxyz", axes, strict=False):
        ax.set_title(letter, loc="left", fontweight="bold", fontsize=8.0)


def empty_note(ax: Any, sentence: str) -> None:
    """Say in an empty panel why it is empty."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, sentence, transform=ax.transAxes, ha="center", va="center", color=MUTED, wrap=True)
