"""Temperature of the scan and of its parts from the gain and loss sides, held against that of the stage."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.forward.mean import MeanFit, MeanModel
from phonon_eels.forward.scan import Alignment
from phonon_eels.forward.sums import aligned_sums
from phonon_eels.forward.temperature import estimate_temperature, has_gain_side
from phonon_eels.spectrum_image import SpectrumImage
from phonon_eels.steps.maps import quantity
from phonon_eels.steps.spec import StepContext

if TYPE_CHECKING:
    import pandas as pd

DISAGREES_SIGMA = 3.0


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
