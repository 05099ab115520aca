"""Do the energies repeat? Each half of the frames is fitted for itself; what is common to both falls out of the difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.forward.model import ForwardModel
from phonon_eels.forward.scan import Alignment, ScanFit, fit_scan
from phonon_eels.kernels.forward import LINEAR, N_LOCAL
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED
from phonon_eels.spectrum_image import SpectrumImage

if TYPE_CHECKING:
    import pandas as pd

    from phonon_eels.backends.base import Backend

ZERO_LOSS_HEIGHT, BACKGROUND_LEVEL, BACKGROUND_SLOPE = 0, 5, 6
COLUMNS = (
    "mode", "energy_first_mev", "energy_first_mev_std", "energy_second_mev", "energy_second_mev_std", "difference_mev",
    "difference_mev_std", "p_value",
)  # fmt: skip


def compare_halves(
    image: SpectrumImage,
    n_frames: Sequence[int],
    model: ForwardModel,
    alignment: Alignment,
    held: ScanFit,
    backend: Backend,
) -> tuple[pd.DataFrame, float]:
    """Fit the energies shared by all positions to each half of the frames.

    Areas, zero-loss shape and background are free at every position in each half; intrinsic widths are those of the
    whole. The deviations are those of counting: what varies from place to place is the same in both halves.

    Parameters
    ----------
    image
        With `halves`, (2, rows, columns, channels).
    n_frames
        Frames in the first half, the second half and in the image itself.
    model, alignment, held
        The model with its final energies, where the zero-loss peaks lie, and the last fit with held energies.

    Returns
    -------
    table, p_value
        One row per mode with the energies of both halves (meV), their difference and its p-value; and the p-value of
        all differences together (χ² with their covariance). The last row, mode "all", holds it too.
    """
    import pandas as pd
    from scipy.stats import chi2, norm

    assert image.halves is not None
    energies, covariances = [], []
    for number in range(2):
        share = n_frames[number] / n_frames[2]
        half = image.with_(counts=image.halves[number], halves=None, noise=image.noise.of_share(share))
        found = _shared_energies(half, share, model, alignment, held, backend)
        energies.append(found[0])
        covariances.append(found[1])
    difference = energies[0] - energies[1]
    covariance = covariances[0] + covariances[1]
    std = np.sqrt(np.diag(covariance))
    misfit = float(difference @ np.linalg.solve(covariance, difference))
    together = float(chi2.sf(misfit, difference.size))
    first, second = (np.sqrt(np.diag(c)) for c in covariances)
    rows = [
        (*values, float(2.0 * norm.sf(abs(values[5]) / values[6])))
        for values in zip(model.mode_names, energies[0], first, energies[1], second, difference, std, strict=True)
    ]
    rows.append(("all", *[float("nan")] * 6, together))
    return pd.DataFrame(rows, columns=list(COLUMNS)), together


def counted_parameters(model: ForwardModel) -> list[int]:
    """Return which parameters count electrons, and so follow the dose: heights, areas and the background's level.

    The slope of a straight background does too; that of an exponential or a power law is a shape.
    """
    background = [BACKGROUND_LEVEL, BACKGROUND_SLOPE] if model.background.code == LINEAR else [BACKGROUND_LEVEL]
    return [ZERO_LOSS_HEIGHT, *background, *range(N_LOCAL, N_LOCAL + model.n_modes)]


def _shared_energies(
    half: SpectrumImage, share: float, model: ForwardModel, alignment: Alignment, held: ScanFit, backend: Backend
) -> tuple[np.ndarray, np.ndarray]:
    """Maximum-likelihood energies of a half and their covariance, one Newton step from those of the whole."""
    modes = model.n_modes
    starts = np.array(held.params)
    starts[..., counted_parameters(model)] *= share
    starts[~np.isfinite(starts).all(axis=2)] = 0.0
    at = starts[..., N_LOCAL + modes : N_LOCAL + 2 * modes]
    fit = fit_scan(half, model, alignment, starts, backend, free_energies=False, profile=True, max_iterations=15)
    usable = np.isin(fit.status, (CONVERGED, AT_BOUND)) & np.isin(held.status, (CONVERGED, AT_BOUND))
    assert fit.score is not None
    assert fit.information is not None
    information = np.where(usable[..., None, None], np.nan_to_num(fit.information[..., :modes, :modes]), 0.0)
    score = np.where(usable[..., None], np.nan_to_num(fit.score[..., :modes]), 0.0)
    absolute = score + np.einsum("rcij,rcj->rci", information, at)
    total = information.sum(axis=(0, 1))
    covariance = np.linalg.pinv(total)
    return covariance @ absolute.sum(axis=(0, 1)), covariance
