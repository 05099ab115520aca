"""Temperature of the scan, of its parts and of its positions from the gain and loss sides, held against that of the stage."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.config.settings import FitPeaks
from phonon_eels.forward.mean import MeanFit, MeanModel
from phonon_eels.forward.model import ForwardModel, rebuilt
from phonon_eels.forward.position_temperature import (
    DISAGREES_SIGMA,
    TEMPERATURE_STATUS,
    TemperatureMap,
    map_temperatures,
)
from phonon_eels.forward.scan import Alignment, ScanFit
from phonon_eels.forward.sums import aligned_sums
from phonon_eels.forward.temperature import estimate_temperature, has_gain_side
from phonon_eels.spectrum_image import SpectrumImage
from phonon_eels.steps.maps import count_status, quantity
from phonon_eels.steps.position_fits import SEEN_SIGMA, prior_stds
from phonon_eels.steps.spec import StepContext
from phonon_eels.units import thermal_energy_mev

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


def measure_temperature(
    image: SpectrumImage,
    model: MeanModel,
    mean: MeanFit,
    alignment: Alignment,
    tiles: tuple[int, int],
    context: StepContext,
) -> tuple[pd.DataFrame, dict[str, Any], tuple[str, ...]]:
    """Estimate the temperature of the whole scan and of `tiles` (rows × columns) parts of it.

    Returns
    -------
    table, summary, messages
        One row per region; the scan's as a quantity; a sentence where it disagrees with the stage's.
    """
    import pandas as pd

    empty = pd.DataFrame(columns=["region", "temperature_k", "temperature_k_std", "status", "pull_to_stage"])
    if not has_gain_side(model):
        return empty, quantity(float("nan"), float("nan"), "K", "no gain side"), ()
    names, weights = _regions(alignment, tiles)
    first, n = round(float(model.energies_mev[0] / model.dispersion_mev)), model.energies_mev.size
    sums, squares = aligned_sums(image, alignment, first, n, weights, context.backend)
    stage = image.acquisition.temperature_k
    rows = []
    for name, weight, total, square in zip(names, weights, sums, squares, strict=True):
        count = max(float(weight.sum()), 1.0)
        found = estimate_temperature(model, mean, total / count, np.maximum(square, 1e-12) / count**2)
        known = stage is not None and found.status == "ok"
        pull = (found.value_k - stage) / found.std_k if known and stage is not None else float("nan")
        rows.append([name, found.value_k, found.std_k, found.status, pull])
    table = pd.DataFrame(rows, columns=list(empty.columns))
    scan = table.iloc[0]
    messages = []
    for row in table[table["pull_to_stage"].abs() > DISAGREES_SIGMA].itertuples():
        messages.append(
            f"gain and loss sides of {row.region} speak of {row.temperature_k:.0f} ± {row.temperature_k_std:.0f} K, the stage of "
            f"{stage:g} K: look at acquisition.temperature_k, at the zero-loss tails and at heating by the beam"
        )
    summary = quantity(scan["temperature_k"], scan["temperature_k_std"], "K", str(scan["status"]))
    return table, summary, tuple(messages)


def _regions(alignment: Alignment, tiles: tuple[int, int]) -> tuple[list[str], np.ndarray]:
    """Return names and weights (regions, rows, columns): the whole scan first, then its tiles if there are several."""
    found = alignment.found.astype(float)
    names, weights = ["the scan"], [found]
    if tiles != (1, 1):
        rows, columns = (
            np.linspace(0, size, parts + 1).astype(int) for size, parts in zip(found.shape, tiles, strict=True)
        )
        for top, bottom in pairwise(rows):
            for left, right in pairwise(columns):
                part = np.zeros_like(found)
                part[top:bottom, left:right] = found[top:bottom, left:right]
                if part.any():
                    names.append(f"rows {top} to {bottom - 1}, columns {left} to {right - 1}")
                    weights.append(part)
    return names, np.stack(weights)


def position_temperatures(
    image: SpectrumImage,
    model: ForwardModel,
    alignment: Alignment,
    fit: ScanFit,
    held: ScanFit,
    scan: dict[str, Any],
    settings: FitPeaks,
    context: StepContext,
) -> TemperatureMap:
    """Estimate the temperature of every position that `fit` holds.

    Parameters
    ----------
    model
        With shared energies and widths that belong to the temperature of the scan: others would pull the positions to theirs.
    fit, held
        The fit with the energies free, and the one with energies held that says which modes are seen.
    scan
        Temperature of the whole scan as `measure_temperature` found it; where it has none, no position has one.
    """
    if scan["status"] != "ok":
        nothing = np.full(fit.status.shape, np.nan)
        status = np.full(fit.status.shape, TEMPERATURE_STATUS.index("not_determined"), np.int16)
        return TemperatureMap(nothing, nothing, nothing, nothing, nothing, status)

    def model_at(kelvin: float) -> ForwardModel:
        thermal = thermal_energy_mev(kelvin)
        return rebuilt(model, settings, context.material, thermal, model.mode_energies_mev, model.fwhm_mev)

    return map_temperatures(
        image, model_at, alignment, fit, context.backend, seen=held.areas() > SEEN_SIGMA * held.areas(held.std),
        energy_prior_std_mev=prior_stds(model, context.material), scan_k=scan["value"], scan_std_k=scan["std"],
        stage_k=image.acquisition.temperature_k, max_iterations=settings.max_iterations,
    )  # fmt: skip


def temperature_values(found: TemperatureMap) -> dict[str, tuple[np.ndarray, str]]:
    """Return the maps of numbers with their units."""
    return {
        "temperature_k": (found.value_k, "K"),
        "temperature_k_std": (found.std_k, "K"),
        "temperature_k_low68": (found.low_k, "K"),
        "temperature_k_high68": (found.high_k, "K"),
        "temperature_pull_to_stage": (found.pull_to_stage, "1"),
    }


def add_temperatures(maps: xr.Dataset, found: TemperatureMap) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Write the maps into those of `fit_peaks`; return what the summary keeps, and what a reader must know."""
    for name, (array, unit) in temperature_values(found).items():
        maps[name] = (("row", "column"), array, {"units": unit})
    flags = {
        "units": "1", "flag_values": np.arange(len(TEMPERATURE_STATUS), dtype=np.int16),
        "flag_meanings": " ".join(TEMPERATURE_STATUS),
    }  # fmt: skip
    maps["temperature_status"] = (("row", "column"), found.status, flags)
    counts = count_status(found.status, TEMPERATURE_STATUS)
    told = {"temperature_status_counts": counts}
    odd, known = counts["disagrees_with_stage"], counts["ok"] + counts["disagrees_with_stage"]
    if not known:
        return told, ("no single position determines its temperature; fit_peaks.thermometry_tiles takes many together",)
    if not odd:
        return told, ()
    return told, (
        f"at {odd} of {known} positions gain and loss sides disagree with the stage's temperature by more than "
        f"{DISAGREES_SIGMA:g} deviations, where chance gives {0.0027 * known:.2g} (temperature_status)",
    )
