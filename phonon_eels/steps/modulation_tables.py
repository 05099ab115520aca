"""Tables of `measure_modulation`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.config.settings import MeasureModulation
from phonon_eels.forward.scan import Alignment
from phonon_eels.forward.sums import aligned_sums
from phonon_eels.lattice.inference import MeanAmplitude, holm, rotation_p_value
from phonon_eels.lattice.modulation import binned_energies, period_scan
from phonon_eels.spectrum_image import SpectrumImage
from phonon_eels.steps.joint_fit import Geometry, JointFit, mean_amplitude, outward_signs, unit_amplitudes, whole_units
from phonon_eels.steps.spec import StepContext

if TYPE_CHECKING:
    import pandas as pd


OWN_SHARE = 0.5
"""A position belongs to a mode's plane if at least this share of the mode's signal there comes from it, sign included."""


def main_layer(context: StepContext, mode: str) -> str | None:
    """Return the layer that carries most of a mode, or None."""
    weights = next(m.layers for m in context.material.modes if m.name == mode)
    return max(weights, key=lambda name: weights[name]) if weights else None


def layers_of_modes(joint: JointFit, context: StepContext, primary: tuple[str, str]) -> dict[str, str]:
    """Return the layer that each mode is measured in."""
    found = {mode: main_layer(context, mode) for mode in joint.model.mode_names} | {primary[0]: primary[1]}
    return {mode: layer for mode, layer in found.items() if layer is not None}


def amplitude_table(
    joint: JointFit,
    geometry: Geometry,
    settings: MeasureModulation,
    context: StepContext,
    primary_mode: str,
    primary_layer: str,
) -> tuple[pd.DataFrame, MeanAmplitude, MeanAmplitude]:
    """Return amplitudes of all modes (joint fit, and regression of the maps), and the primary's two means.

    Intervals and p-values of the joint fit rest on the scatter between planes. The regression's deviations are Fisher's
    over single positions, shown for comparison; it carries no p-value.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    kept: tuple[MeanAmplitude, MeanAmplitude] | None = None
    for m, mode in enumerate(joint.model.mode_names):
        layer = primary_layer if mode == primary_mode else main_layer(context, mode)
        if layer is None or joint.localisation[m] is None:
            continue
        antiphase, inphase, n_units = mean_amplitude(joint, geometry, m, layer, settings.min_units)
        role = "primary" if mode == primary_mode else "secondary"
        if role == "primary":
            kept = (antiphase, inphase)
        rows.append(_row(joint, m, mode, layer, antiphase, n_units, role, settings))
        _, values, _ = unit_amplitudes(joint, geometry, m, layer)
        rows[-1]["p_value_rotation"] = rotation_p_value(values, context.seed) if len(values) > 1 else float("nan")
        regression = _regression_row(joint, m, mode, layer, geometry, context)
        if regression is not None:
            rows.append(regression)
    table = pd.DataFrame(rows)
    secondary = (table["role"] == "secondary").to_numpy()
    corrected = np.full(len(table), np.nan)
    corrected[secondary] = holm(table.loc[secondary, "p_value"].to_numpy(dtype=float))
    table["p_value_holm"] = corrected
    assert kept is not None
    return table, *kept


def _row(
    joint: JointFit,
    m: int,
    mode: str,
    layer: str,
    mean: MeanAmplitude,
    n_units: int,
    role: str,
    settings: MeasureModulation,
) -> dict[str, Any]:
    low, high = mean.interval(settings.confidence)
    low_68, high_68 = mean.interval(0.68)
    spread = np.sqrt(np.diag(mean.covariance)) if np.isfinite(mean.covariance).all() else np.full(2, np.nan)
    energies = np.array(
        [joint.reference_mev[m] + fit.value[m, 0] for fit in joint.units.values() if fit.information[m] > 0]
    )
    weights = np.array([fit.information[m] for fit in joint.units.values() if fit.information[m] > 0])
    center = float((weights * energies).sum() / weights.sum())
    n_effective = float(weights.sum() ** 2 / (weights**2).sum())
    between = float(np.sqrt((weights * (energies - center) ** 2).sum() / weights.sum() / max(n_effective - 1.0, 1.0)))
    return {
        "mode": mode,
        "layer": layer,
        "method": "joint",
        "role": role,
        "amplitude_mev": mean.amplitude,
        "amplitude_mev_std": mean.amplitude_std,
        "amplitude_mev_syst": mean.amplitude * _attenuation_error(joint, m),
        "syst_leakage_mev": mean.amplitude * _attenuation_error(joint, m),
        "syst_window_mev": np.nan,
        "syst_model_mev": np.nan,
        "syst_zero_loss_mev": np.nan,
        "amplitude_low_mev": low,
        "amplitude_high_mev": high,
        "amplitude_low_68_mev": low_68,
        "amplitude_high_68_mev": high_68,
        "phase_rad": mean.phase_rad,
        "phase_rad_std": mean.phase_std_rad,
        "cos_mev": mean.value[0],
        "cos_mev_std": spread[0],
        "sin_mev": mean.value[1],
        "sin_mev_std": spread[1],
        "p_value": mean.p_value,
        "n_units": n_units,
        "mean_energy_mev": joint.reference_mev[m] + joint.common.value[m, 0],
        "mean_energy_mev_std": max(between, float(np.sqrt(joint.common.covariance[m, 0, 0]))),
        "status": "ok" if np.isfinite(mean.p_value) else "not testable",
    }


def _attenuation_error(joint: JointFit, m: int) -> float:
    """Relative systematic error of an amplitude from leakage: constant part, width of localisation, second order.

    Leakage between antiphase planes grows with the square of the width; its share is what the signed profile lacks.
    """
    localisation = joint.localisation[m]
    assert localisation is not None
    constant = localisation.constant_share_std / max(1.0 - localisation.constant_share, 0.1)
    strong = np.abs(localisation.signed_share)
    weight = joint.scores.information[..., m, m] * joint.scores.usable
    leak = 1.0 - localisation.constant_share - float((weight * strong).sum() / max(weight.sum(), 1e-300))
    width = 2.0 * max(leak, 0.0) * localisation.fwhm_std_nm / localisation.fwhm_nm
    if localisation.leakage_std is not None:
        width = localisation.leakage_std
    # Lines of opposite modulation are followed to second order; half of what that changes is not trusted.
    followed, first = np.nan_to_num(joint.signed_share[m]), np.nan_to_num(joint.first_order_share[m])
    second = 0.5 * float(
        (weight * (np.abs(followed) - np.abs(first))).sum() / max((weight * np.abs(first)).sum(), 1e-300)
    )
    return float(np.sqrt(constant**2 + width**2 + second**2))


def _regression_row(
    joint: JointFit, m: int, mode: str, layer: str, geometry: Geometry, context: StepContext
) -> dict[str, Any] | None:
    """Regress the map of energies on the wave, weighted by its standard deviations."""
    maps = context.maps["fit_peaks"]
    name = "energy_mev" if "energy_mev" in maps else "apparent_energy_mev"
    energy, std = (np.asarray(maps[key].sel(mode=mode).values, dtype=float) for key in (name, f"{name}_std"))
    seen = np.asarray(maps["mode_status"].sel(mode=mode).values) <= 1
    regressors = joint.regressors[:, :, m, :3]
    chosen = seen & np.isfinite(energy) & (std > 0.0) & np.isfinite(regressors).all(axis=2)
    if chosen.sum() < 10:
        return None
    design = regressors[chosen] / std[chosen][:, None]
    covariance = np.linalg.pinv(design.T @ design)
    value = covariance @ design.T @ (energy[chosen] / std[chosen])
    misfit = float(((energy[chosen] / std[chosen] - design @ value) ** 2).sum() / max(chosen.sum() - 3, 1))
    mean = MeanAmplitude(value[1:], covariance[1:, 1:] * max(misfit, 1.0), int(chosen.sum()) - 3, float("nan"))
    spread = np.sqrt(np.diag(mean.covariance))
    return {
        "mode": mode, "layer": layer, "method": "regression", "role": "exploratory", "amplitude_mev": mean.amplitude,
        "amplitude_mev_std": mean.amplitude_std, "amplitude_mev_syst": mean.amplitude * _attenuation_error(joint, m),
        "amplitude_low_mev": np.nan, "amplitude_high_mev": np.nan, "phase_rad": mean.phase_rad,
        "phase_rad_std": mean.phase_std_rad, "cos_mev": value[1], "cos_mev_std": spread[0], "sin_mev": value[2],
        "sin_mev_std": spread[1], "p_value": np.nan, "n_units": 0, "mean_energy_mev": value[0],
        "mean_energy_mev_std": float(np.sqrt(covariance[0, 0] * max(misfit, 1.0))), "p_value_rotation": np.nan,
        "status": "positions as units: no test",
    }  # fmt: skip


def unit_table(joint: JointFit, geometry: Geometry, context: StepContext) -> pd.DataFrame:
    """Return one row per half-slab plane and mode: its complex amplitude with counting deviations."""
    import pandas as pd

    rows = []
    for m, mode in enumerate(joint.model.mode_names):
        if joint.localisation[m] is None:
            continue
        whole = whole_units(joint, m)
        layer = main_layer(context, mode)
        signs = {} if layer is None else outward_signs(geometry, layer)
        for unit, fit in joint.units.items():
            spread = np.sqrt(np.diag(fit.covariance[m]))
            rows.append(
                {
                    "half_slab": unit,
                    "mode": mode,
                    "layer": layer,
                    "energy_mev": joint.reference_mev[m] + fit.value[m, 0],
                    "energy_mev_std": spread[0],
                    "cos_mev": fit.value[m, 1],
                    "cos_mev_std": spread[1],
                    "sin_mev": fit.value[m, 2],
                    "sin_mev_std": spread[2],
                    "n_positions": fit.n_positions,
                    "sign": signs.get(unit, float("nan")),
                    "used": unit in whole and unit in signs,
                }
            )
    return pd.DataFrame(rows)


def phase_bin_table(joint: JointFit, geometry: Geometry, n_bins: int, context: StepContext) -> pd.DataFrame:
    """Return energies by phase for every mode in its layer, corrected for what leaks in from other planes."""
    import pandas as pd

    rows = []
    for m, mode in enumerate(joint.model.mode_names):
        localisation = joint.localisation[m]
        layer = main_layer(context, mode)
        if localisation is None or layer is None:
            continue
        share = joint.signed_share[m]
        inside = np.isfinite(geometry.lateral_phase_rad) & (np.abs(share) > OWN_SHARE)
        # The phase outward is the lateral one, turned by half a wave where the signed share is negative.
        outward = np.mod(geometry.lateral_phase_rad + np.where(share < 0.0, np.pi, 0.0), 2 * np.pi)
        if not inside.any():
            continue
        mean = float(joint.reference_mev[m] + joint.common.value[m, 0])
        phase, energy, std, n = binned_energies(
            joint.scores, m, mean, outward, np.abs(share), inside, n_bins, joint.model.fwhm_mev
        )
        rows += [
            {"mode": mode, "layer": layer, "phase_rad": phase[b], "energy_mev": energy[b], "energy_mev_std": std[b] * joint.noise_factor[m], "n_positions": int(n[b])}
            for b in range(n_bins)
            if np.isfinite(energy[b])
        ]  # fmt: skip
    return pd.DataFrame(rows)


def joint_mode_tables(joint: JointFit, geometry: Geometry, context: StepContext) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return modes and close pairs with the modulation taken out.

    Energies whose modulation is not averaged over whole periods shift a scan's mean; here every plane's mean is that of the
    fitted wave. Means and standard deviations are those of the planes.
    """
    import pandas as pd

    names = joint.model.mode_names
    common = set.intersection(*(set(whole_units(joint, m)) for m in range(len(names))))
    units = sorted(common) if len(common) > 2 else sorted(joint.units)
    values = np.array([joint.reference_mev + joint.units[unit].value[: len(names), 0] for unit in units])
    usable = joint.scores.usable
    areas = np.array([joint.areas[usable & (geometry.half_slab == unit)].mean(axis=0) for unit in units])
    n = len(units)

    def told(samples: np.ndarray) -> tuple[float, float]:
        return float(samples.mean()), float(samples.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")

    modes = pd.DataFrame(
        [
            {"mode": name, "energy_mev": told(values[:, m])[0], "energy_mev_std": told(values[:, m])[1], "n_units": n}
            for m, name in enumerate(names)
        ]
    )
    rows = []
    for low_name, high_name in context.material.pairs:
        if low_name not in names or high_name not in names:
            continue
        low, high = names.index(low_name), names.index(high_name)
        weighted = areas[:, low] * values[:, low] + areas[:, high] * values[:, high]
        row: dict[str, Any] = {"pair": f"{low_name}+{high_name}"}
        for key, samples in (
            ("centroid_mev", weighted / (areas[:, low] + areas[:, high])),
            ("splitting_mev", values[:, high] - values[:, low]),
            ("area_ratio", areas[:, low] / areas[:, high]),
        ):
            row[key], row[f"{key}_std"] = told(samples)
        rows.append(row)
    return modes, pd.DataFrame(rows)


def modulation_spectrum(
    image: SpectrumImage,
    joint: JointFit,
    geometry: Geometry,
    alignment: Alignment,
    context: StepContext,
    primary_mode: str,
    primary_layer: str,
) -> pd.DataFrame:
    """Return the lock-in of every energy channel at the superstructure's phase, for the planes of the primary layer.

    No line shape enters. `cos_` and `sin_shift_template_e` are what the fitted energy modulation of the primary mode alone would give.
    """
    import pandas as pd

    m = joint.model.mode_names.index(primary_mode)
    localisation = joint.localisation[m]
    assert localisation is not None
    share = np.nan_to_num(localisation.signed_share)
    phase = np.nan_to_num(geometry.lateral_phase_rad)
    own = np.isfinite(geometry.lateral_phase_rad) & (np.abs(share) > OWN_SHARE) & alignment.found
    wave = np.stack([np.ones_like(phase), np.sign(share) * np.cos(phase), np.sign(share) * np.sin(phase)])
    weights = wave * own
    sums, squares = aligned_sums(
        image, alignment, joint.model.first_channel, joint.model.energies_mev.size, weights, context.backend
    )
    normal = np.einsum("irc,jrc->ij", weights, wave)
    inverse = np.linalg.inv(normal)
    spectrum = inverse @ sums
    std = np.sqrt(np.maximum((inverse**2) @ squares, 0.0))
    seen = np.abs(share) * own
    area = float((np.nan_to_num(joint.areas[..., m]) * seen).sum() / max(seen.sum(), 1e-300))
    line = joint.model.tables.values[m, 0, :, 0, 6:-6]
    node = int(
        np.clip(
            round((joint.reference_mev[m] - joint.model.tables.first_node_mev[m]) / joint.model.tables.node_step_mev),
            1,
            len(line) - 2,
        )
    )
    slope = (line[node + 1] - line[node - 1]) / (2.0 * joint.model.tables.node_step_mev)
    mean_share = float(np.abs(share[own]).mean()) if own.any() else 0.0
    return pd.DataFrame(
        {
            "layer": primary_layer,
            "energy_loss_mev": joint.model.energies_mev,
            "mean_e": spectrum[0],
            "cos_e": spectrum[1],
            "sin_e": spectrum[2],
            "std_e": std[1],
            "cos_shift_template_e": area * slope * mean_share * joint.common.value[m, 1],
            "sin_shift_template_e": area * slope * mean_share * joint.common.value[m, 2],
        }
    )


def period_table(joint: JointFit, geometry: Geometry, context: StepContext, primary_mode: str) -> pd.DataFrame:
    """Return the likelihood gain of waves of other periods; descriptive."""
    import pandas as pd

    m = joint.model.mode_names.index(primary_mode)
    localisation = joint.localisation[m]
    assert localisation is not None
    periods = geometry.period_nm * np.exp(np.linspace(np.log(0.4), np.log(2.5), 121))
    base = np.full(joint.scores.usable.shape, joint.reference_mev[m])
    gain = period_scan(joint.scores, m, base, geometry.b_nm, localisation.signed_share, geometry.half_slab, periods)
    return pd.DataFrame({"period_nm": periods, "statistic": gain})


def localisation_table(joint: JointFit) -> pd.DataFrame:
    """Return width of localisation and constant share of every mode."""
    import pandas as pd

    rows = [
        {
            "mode": mode,
            "fwhm_nm": entry.fwhm_nm,
            "fwhm_nm_std": entry.fwhm_std_nm,
            "constant_share": entry.constant_share,
            "constant_share_std": entry.constant_share_std,
        }
        for mode, entry in zip(joint.model.mode_names, joint.localisation, strict=True)
        if entry is not None
    ]
    return pd.DataFrame(rows)
