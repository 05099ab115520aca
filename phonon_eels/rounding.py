"""Numbers as they are printed: as many digits as the standard deviation allows."""

from __future__ import annotations

import math
from typing import Any

MOST_DIGITS = 12
"""Behind the point: what is left of a number in double precision where a deviation is told far below it."""
SMALLEST_STD = 1e-300
"""Below that there is none, and no power of ten to write it with."""
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: Any) -> float:
    """Return a number, NaN for everything that is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def plus_minus(value: Any, std: Any = None, unit: str = "") -> str:
    """Return ``value ± std unit`` with two digits of the std; a dash for no value, and said so for no std.

    Large and small numbers are written with one power of ten for both.
    """
    v, s = number(value), number(std)
    tail = f" {unit}" if unit else ""
    if not math.isfinite(v):
        return "–"
    if not (math.isfinite(s) and s > SMALLEST_STD):
        return f"{v:.4g}{tail}" + (" (no std)" if std is not None else "")
    last = _power(s, 1) - 1
    if abs(v) >= 1e5 or max(abs(v), s) < 1e-5:
        power = max(_power(v, 5), _power(s, 1))
        digits, ten = min(max(power - last, 0), MOST_DIGITS), str(power).translate(RAISED)
        return f"({v / 10.0**power:.{digits}f} ± {s / 10.0**power:.{digits}f})·10{ten}{tail}"
    digits = min(max(-last, 0), MOST_DIGITS)
    return f"{v:.{digits}f} ± {s:.{digits}f}{tail}"


def _power(value: float, digits: int) -> int:
    """Return the power of ten of a number that is printed with so many digits behind the first."""
    return int(f"{value:.{digits}e}".partition("e")[2]) if value else -MOST_DIGITS
