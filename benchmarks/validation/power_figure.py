"""Smallest amplitude found in 80 % of scans, against dose and number of planes, all estimators in one figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from phonon_eels.figures import style


@style.styled
def _figure(rows: list[dict[str, Any]]) -> Any:
    figure = style.new_figure(style.PAGE_MM, 70)
    left, right = figure.subplots(1, 2, sharey=True)
    names = [key for key in rows[0] if key not in ("units", "dose", "periods")]
    for k, name in enumerate(names):
        for ax, key, other, at in ((left, "dose", "units", 8), (right, "units", "dose", 1.0)):
            part = sorted((row for row in rows if row[other] == at), key=lambda row: row[key])
            x, y = [row[key] for row in part], np.array([row[name] for row in part])
            dashed = name in ("regression of positions", "phase bins")
            ax.loglog(x, y, "--" if dashed else "-", marker="os^Dv"[k], color=style.PALETTE[k], label=name)
    left.set(
        xlabel="dose relative to the default scan", ylabel="amplitude found in 80 % of scans (meV)", title="8 planes"
    )
    right.set(xlabel="half-slab planes", title="default dose", xticks=[4, 6, 8, 12, 16, 24])
    right.set_xticklabels(["4", "6", "8", "12", "16", "24"])
    right.minorticks_off()
    right.legend(title="dashed: does not hold its level", loc="upper right")
    return figure


def plot_power(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the figure."""
    style.save_figure(_figure(rows), path, dpi=200)
