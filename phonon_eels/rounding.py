"""Numbers as they are printed: as many digits as the standard deviation allows."""

from __future__ import annotations

import math
from typing import Any


def number(value: Any) -> float:
    """Return a number, NaN for everything that is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def plus_minus(value: Any, std: Any = None, unit: str = "") -> str:
    """Return ``value ± std unit`` with two digits of the std; a dash for no value, and said so for no std."""
    v, s = number(value), number(std)
    tail = f" {unit}" if unit else ""
    if not math.isfinite(v):
        return "–"
    if not (math.isfinite(s) and s > 0):
        return f"{v:.4g}{tail}" + (" (no std)" if std is not None else "")
    if abs(v) >= 1e5 or s < 1e-5:
        return f"({v:.5g} ± {s:.2g}){tail}"
    digits = min(max(1 - int(f"{s:.1e}".partition("e")[2]), 0), 6)
    return f"{v:.{digits}f} ± {s:.{digits}f}{tail}"
