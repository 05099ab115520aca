"""Tables of `assign_layers` that take the layers apart: what leaks from layer to layer, and each layer's own spectrum."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.errors import InputFileError
from phonon_eels.forward.scan import Alignment
from phonon_eels.forward.sums import aligned_sums
from phonon_eels.io.leakage_file import read_leakage
from phonon_eels.lattice.layer_spectra import LayerSpectra
from phonon_eels.lattice.stack import Stack
from phonon_eels.lattice.unmix import (
    EVERYWHERE,
    Components,
    components_of,
    leakage_matrix,
    shares_at,
    unmix_by_matrix,
    unmixing_weights,
    with_width_error,
)

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from phonon_eels.spectrum_image import SpectrumImage
    from phonon_eels.steps.spec import StepContext


def components_in(planes: pd.DataFrame, stack: Stack) -> Components:
    """Return the layers of a table of planes; the pair of planes next to the middle of the slab is split."""
    off_middle = [name for name, height in zip(stack.names, stack.heights_nm, strict=True) if height > 0.0]
    return components_of(
        planes["layer"].to_numpy(), planes["outward"].to_numpy(), off_middle[0] if off_middle else None
    )


def leakage_table(maps: xr.Dataset, components: Components, usable: np.ndarray, relative_std: float) -> pd.DataFrame:
    """Return the share of each component in what is seen on each, from the distances to the planes.

    A position belongs to the plane next to it, unless the middle of the van der Waals gap is nearer.
    """
    import pandas as pd

    source, weight = np.asarray(maps["source_plane"].values), np.asarray(maps["source_weight"].values, dtype=float)
    atoms = np.asarray(maps["layer"].values) < len(maps["layer_name"]) - 1
    probe = np.where(usable & atoms & (source[0] >= 0), components.of_plane[np.maximum(source[0], 0)], -1)
    names = components.names
    value, std = with_width_error(
        lambda ratio: leakage_matrix(shares_at(source, weight, components, ratio), probe, len(names)), relative_std
    )
    rows = [
        {"probe": seen_on, "source": name, "share": value[i, j], "share_std": std[i, j], "origin": "haadf"}
        for i, seen_on in enumerate(names)
        for j, name in enumerate(names)
    ]
    return pd.DataFrame(rows)


def unmixed_table(
    image: SpectrumImage, maps: xr.Dataset, components: Components, usable: np.ndarray, relative_std: float,
    context: StepContext,
) -> pd.DataFrame:  # fmt: skip
    """Return every component's own spectrum: electrons per position on top of a lone plane, and the part seen everywhere.

    `_std_e` is counting noise, `_syst_e` what one standard deviation of the width of localisation changes.
    """
    import pandas as pd

    alignment = _alignment(image, context)
    source, weight = np.asarray(maps["source_plane"].values), np.asarray(maps["source_weight"].values, dtype=float)
    chosen = usable & alignment.found
    ratios = (1.0, 1.0 + min(relative_std, 0.5), 1.0 - min(relative_std, 0.5))
    weights = np.concatenate(
        [unmixing_weights(shares_at(source, weight, components, ratio), chosen) for ratio in ratios]
    )
    n = len(components.names) + 1
    known = np.isfinite(weights).all(axis=(1, 2))
    zero = int(np.median(alignment.channel[alignment.found])) if alignment.found.any() else 0
    sums, squares = np.full((2, 3 * n, image.energy.n_channels), np.nan)
    if known.any():
        found = aligned_sums(image, alignment, -zero, image.energy.n_channels, weights[known], context.backend)
        sums[known], squares[known] = found
    energies = (np.arange(image.energy.n_channels) - zero) * image.energy.dispersion_mev
    columns: dict[str, Any] = {"energy_loss_mev": energies}
    for k, name in enumerate((*components.names, EVERYWHERE)):
        columns[f"{name}_e"] = sums[k]
        columns[f"{name}_std_e"] = np.sqrt(squares[k])
        columns[f"{name}_syst_e"] = 0.5 * np.abs(sums[n + k] - sums[2 * n + k])
    return pd.DataFrame(columns)


def _alignment(image: SpectrumImage, context: StepContext) -> Alignment:
    if image.variance is None and "align_zlp" in context.maps:  # resampled images have it at 0 already
        return Alignment.from_center(np.asarray(context.maps["align_zlp"]["zlp_center_mev"].values), image)
    return Alignment.at_zero(image)


def tables_from_file(path: Path, spectra: LayerSpectra, layers: tuple[str, ...]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables `leakage` and `unmixed_spectra` with the leakage matrix of a file.

    Raises
    ------
    InputFileError
        If the file cannot be used.
    """
    import pandas as pd

    matrix, std = read_leakage(path, layers)
    n = len(layers)
    try:
        pure, noise, syst = unmix_by_matrix(matrix, std, spectra.mean_e[:n], spectra.std_e[:n])
    except ValueError as problem:
        raise InputFileError(f"{path}: {problem}") from problem
    rows = [
        {"probe": a, "source": b, "share": matrix[i, j], "share_std": std[i, j], "origin": path.name}
        for i, a in enumerate(layers)
        for j, b in enumerate(layers)
    ]
    columns: dict[str, Any] = {"energy_loss_mev": spectra.energy_loss_mev}
    for k, name in enumerate(layers):
        columns[f"{name}_e"], columns[f"{name}_std_e"], columns[f"{name}_syst_e"] = pure[k], noise[k], syst[k]
    return pd.DataFrame(rows), pd.DataFrame(columns)
