"""The same amplitude by four estimators, plane by plane, so that their differences have errors of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.forward.scan import Alignment
from phonon_eels.forward.sums import aligned_sums
from phonon_eels.lattice.inference import MeanAmplitude, antiphase_and_inphase
from phonon_eels.lattice.modulation import binned_energies
from phonon_eels.spectrum_image import SpectrumImage
from phonon_eels.steps.artefact_defences import unit_lock_in
from phonon_eels.steps.joint_fit import Geometry, JointFit, outward_signs, unit_amplitudes, whole_units
from phonon_eels.steps.spec import StepContext

if TYPE_CHECKING:
    import pandas as pd

OWN_SHARE = 0.5
AGREE_P = 0.01
WINDOW_WIDTHS = 1.5


def estimator_table(
    image: SpectrumImage,
    joint: JointFit,
    geometry: Geometry,
    alignment: Alignment,
    context: StepContext,
    primary: tuple[str, str],
    n_bins: int,
    confidence: float,
) -> pd.DataFrame:
    """Return the primary amplitude by every estimator, and whether it agrees with the joint fit.

    All work on the same counts, so their difference is far better known than either: it is formed plane by plane
    and tested against its own scatter. The modulation spectrum and the regression do not let the width follow the wave.
    """
    import pandas as pd

    mode = joint.model.mode_names.index(primary[0])
    units, values, sign = unit_amplitudes(joint, geometry, mode, primary[1])
    by_name = {
        "joint": values,
        "modulation_spectrum": _from_spectra(image, joint, geometry, alignment, context, mode, units),
        "regression": _from_maps(joint, geometry, context, mode, units),
        "phase_bins": _from_bins(joint, geometry, mode, units, n_bins),
    }
    rows = []
    for name, found in by_name.items():
        known = np.isfinite(found).all(axis=1)
        mean = antiphase_and_inphase(found[known], sign[known])[0]
        difference = antiphase_and_inphase((found - values)[known], sign[known])[0]
        rows.append(_row(name, mean, difference, int(known.sum()), confidence))
    return pd.DataFrame(rows)


def intervals(mean: MeanAmplitude, confidence: float, unit: str = "") -> dict[str, float]:
    """Return the amplitude's interval at a confidence and at 68 %, and its phase; `unit` ends the names."""
    low, high = mean.interval(confidence)
    low_68, high_68 = mean.interval(0.68)
    return {
        f"amplitude_low{unit}": low, f"amplitude_high{unit}": high, f"amplitude_low_68{unit}": low_68,
        f"amplitude_high_68{unit}": high_68, "phase_rad": mean.phase_rad, "phase_rad_std": mean.phase_std_rad,
    }  # fmt: skip


def _row(name: str, mean: MeanAmplitude, difference: MeanAmplitude, n_units: int, confidence: float) -> dict[str, Any]:
    spread = np.sqrt(np.diag(mean.covariance))
    of_difference = np.sqrt(np.diag(difference.covariance))
    verdict = "no power"
    if name == "joint":
        verdict = "reference"
    elif np.isfinite(difference.p_value):
        agrees = difference.p_value > AGREE_P or difference.amplitude < mean.amplitude_std
        verdict = "agrees" if agrees else "differs"
    return {
        "estimator": name, "cos_mev": mean.value[0], "cos_mev_std": spread[0], "sin_mev": mean.value[1],
        "sin_mev_std": spread[1], "covariance_mev2": mean.covariance[0, 1], "amplitude_mev": mean.amplitude,
        "amplitude_mev_std": mean.amplitude_std, **intervals(mean, confidence, "_mev"), "p_value": mean.p_value,
        "n_units": n_units,
        "difference_cos_mev": difference.value[0], "difference_cos_mev_std": of_difference[0],
        "difference_sin_mev": difference.value[1], "difference_sin_mev_std": of_difference[1],
        "difference_p_value": np.nan if name == "joint" else difference.p_value, "verdict": verdict,
    }  # fmt: skip


def _own(joint: JointFit, geometry: Geometry, mode: int, unit: int) -> np.ndarray:
    share = joint.signed_share[mode]
    inside = (geometry.half_slab == unit) & joint.scores.usable & np.isfinite(geometry.lateral_phase_rad)
    return np.asarray(inside & (np.abs(share) > OWN_SHARE))


def _from_maps(joint: JointFit, geometry: Geometry, context: StepContext, mode: int, units: list[int]) -> np.ndarray:
    """Regress the map of fitted energies on the wave, plane by plane, weighted by its standard deviations."""
    maps = context.maps["fit_peaks"]
    name = "energy_mev" if "energy_mev" in maps else "apparent_energy_mev"
    found = maps.sel(mode=joint.model.mode_names[mode])
    energy, std = (np.asarray(found[key].values, dtype=float) for key in (name, f"{name}_std"))
    seen = np.asarray(found["mode_status"].values) <= 1
    result = np.full((len(units), 2), np.nan)
    for k, unit in enumerate(units):
        chosen = _own(joint, geometry, mode, unit) & seen & np.isfinite(energy) & (std > 0.0)
        if chosen.sum() < 10:
            continue
        design = joint.regressors[chosen][:, mode, :3] / std[chosen][:, None]
        result[k] = np.linalg.lstsq(design, energy[chosen] / std[chosen], rcond=None)[0][1:]
    return result


def _from_bins(joint: JointFit, geometry: Geometry, mode: int, units: list[int], n_bins: int) -> np.ndarray:
    """Fit a harmonic to the energies of each plane's bins of outward phase."""
    share = joint.signed_share[mode]
    mean = float(joint.reference_mev[mode] + joint.common.value[mode, 0])
    # The sign of the share is that of the plane: the table's phases are outward, the units' amplitudes too.
    outward = np.mod(geometry.lateral_phase_rad + np.where(share < 0.0, np.pi, 0.0), 2 * np.pi)
    result = np.full((len(units), 2), np.nan)
    for k, unit in enumerate(units):
        inside = _own(joint, geometry, mode, unit)
        phase, energy, std, n = binned_energies(
            joint.scores, mode, mean, outward, np.abs(share), inside, n_bins, joint.model.fwhm_mev
        )
        good = np.isfinite(energy) & (std > 0.0) & (n > 0)
        if good.sum() < 5:
            continue
        design = np.column_stack([np.ones(good.sum()), np.cos(phase[good]), np.sin(phase[good])]) / std[good][:, None]
        # A bin averages the wave over its width.
        averaged = np.sin(np.pi / n_bins) / (np.pi / n_bins)
        result[k] = np.linalg.lstsq(design, energy[good] / std[good], rcond=None)[0][1:] / averaged
    return result


def _from_spectra(
    image: SpectrumImage,
    joint: JointFit,
    geometry: Geometry,
    alignment: Alignment,
    context: StepContext,
    mode: int,
    units: list[int],
) -> np.ndarray:
    """Lock every channel in at the wave, plane by plane, and project the spectra on shift, weight, width and background."""
    lines, model = joint.lines, joint.model
    energies, energy = model.energies_mev, float(joint.reference_mev[mode] + joint.common.value[mode, 0])
    reach = WINDOW_WIDTHS * (model.fwhm_mev[mode] + (0.0 if model.zero_loss is None else model.zero_loss.fwhm_mev))
    window = np.abs(energies - energy) < reach
    result = np.full((len(units), 2), np.nan)
    if not units or window.sum() < 8:
        return result
    regressors = np.nan_to_num(joint.regressors[:, :, mode, :3])
    masks = np.stack([_own(joint, geometry, mode, unit) & alignment.found for unit in units])
    weights = (masks[:, None] * np.moveaxis(regressors, 2, 0)[None]).reshape(-1, *masks.shape[1:])
    sums, squares = aligned_sums(image, alignment, model.first_channel, energies.size, weights, context.backend)
    neighbours = [m for m in range(model.n_modes) if m != mode and abs(joint.reference_mev[m] - energy) < 2.0 * reach]
    templates = [
        lines.slope(mode, energy),
        lines.line(mode, energy),
        lines.line(mode, energy, table=4),
        np.ones(energies.size),
    ]
    templates += [lines.line(m, float(joint.reference_mev[m])) for m in neighbours]
    design = np.stack(templates)[:, window]
    for k in range(len(units)):
        basis = regressors[masks[k]]
        if len(basis) < 10:
            continue
        spectra = np.linalg.solve(basis.T @ basis, sums[3 * k : 3 * k + 3])
        noise = np.sqrt(np.maximum(squares[3 * k], 1e-12))[window]
        # Signal and share are both largest on the plane: the area that counts is weighted as the wave is.
        seen = joint.signed_share[mode][masks[k]] ** 2
        area = float((joint.areas[..., mode][masks[k]] * seen).sum() / seen.sum())
        scale = np.abs(design).max(axis=1)
        fitted = np.linalg.lstsq((design / scale[:, None] / noise).T, (spectra[1:, window] / noise).T, rcond=None)[0]
        result[k] = fitted[0] / scale[0] / area
    return result


def other_quantities(
    joint: JointFit, geometry: Geometry, layers: dict[str, str], min_units: int, confidence: float
) -> pd.DataFrame:
    """Return what else follows the wave: areas (relative), intrinsic widths, second harmonic of energies; exploratory."""
    import pandas as pd

    rows = []
    names = joint.model.mode_names
    for m, mode in enumerate(names):
        if mode not in layers or joint.localisation[m] is None:
            continue
        units, _, sign = unit_amplitudes(joint, geometry, m, layers[mode])
        signs = outward_signs(geometry, layers[mode])
        area = unit_lock_in(joint, geometry, joint.relative_area(m), m)
        kept = [unit in signs for unit in whole_units(joint, m)]
        found = {
            "relative area": ("1", area[np.array(kept, dtype=bool)], sign),
            "intrinsic width": ("meV", _coefficients(joint, units, len(names) + m, slice(1, 3)), sign),
        }
        if joint.common.value.shape[1] > 3:
            found["second harmonic of the energy"] = (
                "meV", _coefficients(joint, units, m, slice(3, 5)), np.ones(len(units))
            )  # fmt: skip
        for quantity, (unit, values, orientation) in found.items():
            mean = antiphase_and_inphase(values, orientation)[0]
            testable = len(values) >= min_units
            rows.append(
                {
                    "quantity": quantity, "mode": mode, "layer": layers[mode], "unit": unit, "role": "exploratory",
                    "cos": mean.value[0], "cos_std": float(np.sqrt(mean.covariance[0, 0])), "sin": mean.value[1],
                    "sin_std": float(np.sqrt(mean.covariance[1, 1])), "covariance": mean.covariance[0, 1],
                    "amplitude": mean.amplitude, "amplitude_std": mean.amplitude_std, **intervals(mean, confidence),
                    "p_value": mean.p_value if testable else np.nan, "n_units": len(values),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _coefficients(joint: JointFit, units: list[int], row: int, columns: slice) -> np.ndarray:
    return np.array([joint.units[unit].value[row, columns] for unit in units]).reshape(-1, 2)
