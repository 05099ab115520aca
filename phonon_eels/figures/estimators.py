"""Do the estimators agree? And what each defence says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Ellipse

from phonon_eels.figures import style
from phonon_eels.figures.phase_panels import finite, p_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORDS = {
    "joint": "joint fit",
    "modulation_spectrum": "modulation spectrum",
    "regression": "regression of the map",
    "phase_bins": "phase bins",
}


@style.styled
def plot_estimators(table: pd.DataFrame, *, width_mm: float = style.PAGE_MM) -> Figure:
    """Return the primary amplitude by every estimator, and each one's difference from the joint fit with its own error.

    Parameters
    ----------
    table
        Table `estimators` of `measure_modulation`.
    """
    known = table[np.isfinite(table["cos_mev"].to_numpy(dtype=float))].reset_index(drop=True)
    figure = style.new_figure(width_mm, 60)
    if not len(known):
        style.empty_note(figure.subplots(), "no estimator has an amplitude")
        return figure
    left, right = figure.subplots(1, 2)
    _draw_amplitudes(left, known)
    _draw_differences(right, known)
    return figure


def _draw_amplitudes(ax: Axes, table: pd.DataFrame) -> None:
    for k, row in enumerate(table.to_dict("records")):
        colour = style.PALETTE[k % len(style.PALETTE)]
        covariance = np.array(
            [
                [row["cos_mev_std"] ** 2, row["covariance_mev2"]],
                [row["covariance_mev2"], row["sin_mev_std"] ** 2],
            ]
        )
        x, y = float(row["cos_mev"]), float(row["sin_mev"])
        ax.plot(x, y, "o", color=colour, label=WORDS.get(str(row["estimator"]), str(row["estimator"])))
        if np.isfinite(covariance).all():
            values, vectors = np.linalg.eigh(covariance)
            width, height = 2.0 * np.sqrt(np.maximum(values[::-1], 0.0))
            angle = math.degrees(math.atan2(vectors[1, 1], vectors[0, 1]))
            ax.add_patch(Ellipse((x, y), width, height, angle=angle, fill=False, edgecolor=colour))
    ax.margins(0.35)
    ax.set(
        xlabel="cosine part (meV)", ylabel="sine part (meV)", title="amplitude with ±1 std from the scatter of planes"
    )
    ax.ticklabel_format(useOffset=False)
    ax.legend(loc="best")


def _draw_differences(ax: Axes, table: pd.DataFrame) -> None:
    rows: list[dict[str, Any]] = [
        {str(k): v for k, v in row.items()} for row in table.to_dict("records") if row["estimator"] != "joint"
    ]
    for k, row in enumerate(rows):
        for part, marker, lift in (("cos", "o", 0.1), ("sin", "s", -0.1)):
            std = float(row[f"difference_{part}_mev_std"])
            ax.errorbar(
                float(row[f"difference_{part}_mev"]), -k + lift, xerr=std if math.isfinite(std) else None, fmt=marker,
                color=style.PALETTE[k + 1], markerfacecolor="white" if part == "sin" else None,
            )  # fmt: skip
    ax.axvline(0, color=style.MUTED, linewidth=0.5)
    ax.set_yticks([-k for k in range(len(rows))])
    ax.set_yticklabels([f"{WORDS.get(str(r['estimator']), r['estimator'])}\n{_verdict(r)}" for r in rows])
    ax.set_ylim(-len(rows) + 0.4, 0.6)
    ax.set(xlabel="difference from the joint fit (meV)", title="plane by plane: cosine (filled), sine (open)")


def _verdict(row: Mapping[str, Any]) -> str:
    """Return whether an estimator agrees with the joint fit, and the p-value of that."""
    words = str(row["verdict"])
    return f"{words}, {p_text(float(row['difference_p_value']))}" if finite(row, "difference_p_value") else words
