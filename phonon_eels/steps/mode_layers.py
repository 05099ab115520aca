"""Where each mode lives: its area taken apart by layers, and its profile across the unit cell.

The energy of a peak does not assign it: 78 meV belongs to an in-plane mode of CuO2 and to the apical oxygen of SrO, 1.72 Å
away. What is told here is how much of its area comes from each layer, with standard deviations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.lattice.localisation import Localisation
from phonon_eels.lattice.stack import Stack, stack_of
from phonon_eels.lattice.unmix import EVERYWHERE, components_of, shares_at, unmixing_weights

if TYPE_CHECKING:
    import pandas as pd

    from phonon_eels.steps.spec import StepContext

PROFILE_STEP_NM = 0.06
MIN_BIN_POSITIONS = 5


def layer_tables(
    localisation: tuple[Localisation | None, ...],
    names: tuple[str, ...],
    areas_e: np.ndarray,
    reference_fwhm_nm: float,
    context: StepContext,
) -> dict[str, pd.DataFrame]:
    """Return the tables `mode_layers` and `profiles`.

    Parameters
    ----------
    localisation
        Of each mode; the width for one mode is that of the others, so that its own layers are not presumed.
    names
        Modes, in the same order.
    areas_e
        (rows, columns, modes) areas with the energies of all positions held. Where energies are free at each, the area of a mode
        that is hardly there follows noise upwards, and close modes take from each other.
    reference_fwhm_nm
        Width that the source weights of `assign_layers` belong to, probe included.
    """
    stack = stack_of(context.material)
    peaks = context.maps.get("fit_peaks")
    if stack is None or peaks is None or "area_e" not in peaks:
        return {}
    return {
        "mode_layers": mode_layer_table(localisation, names, areas_e, reference_fwhm_nm, context),
        "profiles": profile_table(names, areas_e, stack, context),
    }


def mode_layer_table(
    localisation: tuple[Localisation | None, ...],
    names: tuple[str, ...],
    areas_e: np.ndarray,
    reference_fwhm_nm: float,
    context: StepContext,
) -> pd.DataFrame:
    """Return each mode's electrons on top of a lone plane of each layer, with counting and width errors, and the share of the layer."""
    import pandas as pd

    maps, planes = context.maps["assign_layers"], context.tables["assign_layers"]["planes"]
    components = components_of(planes["layer"].to_numpy(), planes["outward"].to_numpy(), None)
    source, weight = np.asarray(maps["source_plane"].values), np.asarray(maps["source_weight"].values, dtype=float)
    rows: list[dict[str, Any]] = []
    for m, name in enumerate(names):
        fwhm, fwhm_std = others_width(localisation, m, reference_fwhm_nm)
        area, std = (
            areas_e[..., m],
            np.asarray(context.maps["fit_peaks"]["area_e_std"].sel(mode=name).values, dtype=float),
        )
        usable = np.isfinite(area) & (std > 0.0)
        precision = np.where(usable, 1.0 / np.where(usable, std, 1.0) ** 2, 0.0)
        found, noise = [], np.zeros(0)
        for width in (fwhm, fwhm + fwhm_std, fwhm - fwhm_std):
            shares = shares_at(source, weight, components, width / reference_fwhm_nm)
            weights = unmixing_weights(shares, usable, precision)
            found.append((weights[:, usable] * area[usable]).sum(axis=1))
            if width == fwhm:
                noise = _noise(weights, shares, found[0], area, std, usable)
        syst = 0.5 * np.abs(found[1] - found[2])
        total = np.nansum(np.maximum(found[0][:-1], 0.0))
        for k, layer in enumerate((*components.names, EVERYWHERE)):
            share = found[0][k] / total if total > 0.0 and layer != EVERYWHERE else float("nan")
            rows.append({
                "mode": name, "layer": layer, "area_e": found[0][k], "area_e_std": noise[k], "area_e_syst": syst[k],
                "share": share, "share_std": np.hypot(noise[k], syst[k]) / total if np.isfinite(share) else float("nan"),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _noise(
    weights: np.ndarray, shares: np.ndarray, value: np.ndarray, area: np.ndarray, std: np.ndarray, usable: np.ndarray
) -> np.ndarray:
    """Deviation of each component, enlarged where the areas scatter by more than their deviations."""
    design = np.concatenate([shares, np.ones((*usable.shape, 1))], axis=2)
    model = design @ np.nan_to_num(value)
    misfit = float((((area - model)[usable] / std[usable]) ** 2).sum() / max(int(usable.sum()) - len(value), 1))
    spread: np.ndarray = np.sqrt((weights[:, usable] ** 2 * std[usable] ** 2).sum(axis=1) * max(misfit, 1.0))
    return spread


def others_width(
    localisation: tuple[Localisation | None, ...], mode: int, reference_fwhm_nm: float
) -> tuple[float, float]:
    """Return the width of localisation of all modes but one, weighted by their errors, and its deviation from mode to mode."""
    known = [entry for m, entry in enumerate(localisation) if entry is not None and m != mode]
    if not known:
        return reference_fwhm_nm, 0.2 * reference_fwhm_nm
    widths = np.array([entry.fwhm_nm for entry in known])
    weight = np.array([max(entry.fwhm_std_nm, 1e-4) ** -2.0 for entry in known])
    mean = float((weight * widths).sum() / weight.sum())
    between = float(np.sqrt((weight * (widths - mean) ** 2).sum() / weight.sum()))
    return mean, max(between, float(weight.sum() ** -0.5))


def profile_table(names: tuple[str, ...], areas_e: np.ndarray, stack: Stack, context: StepContext) -> pd.DataFrame:
    """Return mean area and energy of every mode against the distance from the middle of the slab, both sides together.

    Deviations of the areas are those of the scatter between positions, of the energies the larger of scatter and counting.
    """
    import pandas as pd

    peaks, c = context.maps["fit_peaks"], np.asarray(context.maps["assign_layers"]["c_position_nm"].values, dtype=float)
    away = np.abs(np.mod(c, stack.repeat_nm) - 0.5 * stack.repeat_nm)
    n_bins = int(np.ceil(0.5 * stack.repeat_nm / PROFILE_STEP_NM))
    bins = np.floor(np.where(np.isfinite(away), away, -1.0) / PROFILE_STEP_NM).astype(int)
    energy_name = "energy_mev" if "energy_mev" in peaks else "apparent_energy_mev"
    rows: list[dict[str, Any]] = []
    for m, name in enumerate(names):
        area = areas_e[..., m]
        chosen = peaks.sel(mode=name)
        energy, std = (np.asarray(chosen[key].values, dtype=float) for key in (energy_name, f"{energy_name}_std"))
        for k in range(n_bins):
            here = (bins == k) & np.isfinite(area)
            if here.sum() < MIN_BIN_POSITIONS:
                continue
            mean_energy, energy_std, n_energies = _weighted(energy[here], std[here])
            rows.append({
                "mode": name, "from_middle_nm": float(away[here].mean()), "area_e": float(area[here].mean()),
                "area_e_std": float(area[here].std(ddof=1) / np.sqrt(here.sum())), energy_name: mean_energy,
                f"{energy_name}_std": energy_std, "n_positions": int(here.sum()), "n_energies": n_energies,
            })  # fmt: skip
    return pd.DataFrame(rows)


def _weighted(value: np.ndarray, std: np.ndarray) -> tuple[float, float, int]:
    good = np.isfinite(value) & np.isfinite(std) & (std > 0.0)
    n = int(good.sum())
    if n < MIN_BIN_POSITIONS:
        return float("nan"), float("nan"), n
    weight = std[good] ** -2.0
    mean = float((weight * value[good]).sum() / weight.sum())
    misfit = float((weight * (value[good] - mean) ** 2).sum() / (n - 1))
    return mean, float(np.sqrt(max(misfit, 1.0) / weight.sum())), n
