"""Is the scan step off, or did the specimen drift? The crystal's two spacings tell, because only the slow direction drifts."""

from __future__ import annotations

from typing import Any

import numpy as np

from phonon_eels.lattice.columns import scale_along_b
from phonon_eels.lattice.layers import LayerModel
from phonon_eels.steps.maps import quantity

SURE = 3.0
NOTABLE = 0.01
COARSE_STEP_NM = 0.18


def scan_scale(haadf: np.ndarray, model: LayerModel, column_nm: float) -> dict[str, Any]:
    """Return what the spacings along c and b say of scan step and drift, for the summary.

    Linear drift along the slow direction stretches the image along it, exactly as a wrong scan step would; along the fast
    direction it only shears. So the spacing along the fast direction is a measure of the scan step, and what the other one
    differs by is drift (or a scan step that differs between the directions).
    """
    value, std = scale_along_b(haadf, model.view, model.warp, column_nm)
    along_c, c_std = model.match.scale, model.scale_std
    c_known = not model.match.scale_fixed and np.isfinite(c_std)
    c_is_slow = abs(np.cos(model.match.angle_rad)) >= abs(np.sin(model.match.angle_rad))
    fast, fast_std = (value, std) if c_is_slow else (along_c if c_known else float("nan"), c_std)
    slow, slow_std = (along_c if c_known else float("nan"), c_std) if c_is_slow else (value, std)
    extent = float(np.ptp(model.view.s if c_is_slow else model.view.t))
    drift = (1.0 - slow / fast) * extent if fast > 0.0 else float("nan")
    drift_std = float(np.hypot(slow_std, fast_std)) * extent
    known = np.isfinite(drift) and np.isfinite(drift_std)
    return {
        "scan_nm_per_crystal_nm_b": quantity(value, std, "1", "ok" if np.isfinite(value) else "not measured"),
        "scan_step_factor": quantity(fast, fast_std, "1", "ok" if np.isfinite(fast) else "not measured"),
        "drift_along_slow_nm": quantity(drift, drift_std, "nm", "ok" if known else "not measured"),
        "slow_direction": "c" if c_is_slow else "b",
    }


def scale_messages(model: LayerModel, told: dict[str, Any], c_nm: float, step_along_c_nm: float) -> list[str]:
    """Return sentences on scan step and drift, and on a scan too coarse for the displacements' size."""
    messages = []
    factor, drift = told["scan_step_factor"], told["drift_along_slow_nm"]
    off = abs(factor["value"] - 1.0) > max(SURE * factor["std"], NOTABLE) if factor["status"] == "ok" else False
    if off:
        messages.append(
            f"the crystal measures {factor['value']:.3f} ± {factor['std']:.3f} times its size along the fast scan direction: "
            "the scan step is off (acquisition.scan_step_nm)"
        )
    if drift["status"] == "ok":
        extent = float(np.ptp(model.view.s if told["slow_direction"] == "c" else model.view.t))
        if abs(drift["value"]) > max(SURE * drift["std"], NOTABLE * extent):
            messages.append(
                f"{told['slow_direction']} is stretched against the other direction as by a drift of {drift['value']:.2f} ± "
                f"{drift['std']:.2f} nm along the slow scan direction during the scan"
            )
    elif (
        not model.match.scale_fixed
        and np.isfinite(model.scale_std)
        and abs(model.match.scale - 1.0) > max(SURE * model.scale_std, NOTABLE)
    ):
        messages.append(
            f"c measures {model.match.scale * c_nm:.3f} ± {model.scale_std * c_nm:.3f} nm in the scan, "
            f"the material has {c_nm:.3f} nm: the scan step is off, or the specimen drifted along c"
        )
    if step_along_c_nm > COARSE_STEP_NM:
        messages.append(
            f"positions are {10 * step_along_c_nm:.2g} Å apart along c: at 2 Å displacements come out about 7 % too small "
            "(docs/validation.md); phases and labels are not concerned"
        )
    return messages
