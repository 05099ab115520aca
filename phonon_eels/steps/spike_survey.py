"""What a scan as a whole says of its noise and of hot channels, before single spectra are judged."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.backends.outliers import residual_sigmas
from phonon_eels.config.settings import RemoveSpikes
from phonon_eels.forward.scan import electrons
from phonon_eels.spectrum_image import SpectrumImage
from phonon_eels.steps.mean_peak import peak_width_channels
from phonon_eels.steps.spec import StepContext

if TYPE_CHECKING:
    import pandas as pd

SPARED_FWHM = 1.5  # half width of the spared zero-loss peak, in its FWHM
MIN_GROUPS = 16  # means whose median tells the mean spectrum without its spikes
HOT_EXCESS = 0.05  # a channel off by less than 5 % in the mean is the gain reference's business


@dataclass(frozen=True)
class Survey:
    """What the scan as a whole says before single spectra are judged."""

    half: int
    zero_loss_half: float
    noise_scale: float
    hot: np.ndarray  # channels
    table: pd.DataFrame


def survey_scan(
    counts: Any,
    image: SpectrumImage,
    masked: np.ndarray,
    protected: np.ndarray,
    settings: RemoveSpikes,
    context: StepContext,
) -> Survey:
    """Look at mean spectra: width of the zero-loss peak, true size of the noise, hot channels."""
    gain, dark = electrons(image)
    n_rows, n_columns, _ = counts.shape
    groups = min(max(-(-MIN_GROUPS // n_rows), 1), n_columns)
    edges = np.linspace(0, n_columns, groups + 1).astype(int)

    shown = np.ones_like(masked) if masked.all() else ~masked

    def sums(first: int, block: np.ndarray) -> list[list[np.ndarray]]:
        z = (np.asarray(block, dtype=np.float64) - dark) / gain
        own = shown[first : first + len(z)]
        parts = [[(row[a:b], seen[a:b]) for a, b in pairwise(edges)] for row, seen in zip(z, own, strict=True)]
        return [[part[seen].mean(axis=0) for part, seen in row if seen.any()] for row in parts]

    of_rows = [row for rows in context.backend.map_rows(sums, [counts]) for row in rows]
    with_some = np.flatnonzero(shown.any(axis=1))
    rows = with_some[np.unique(np.linspace(0, with_some.size - 1, min(with_some.size, 8)).astype(int))]
    width = float(np.median([peak_width_channels(np.mean(of_rows[row], axis=0)) for row in rows]))
    means = np.array([mean for row in of_rows for mean in row])
    half = int(np.clip(round(width / 2.0), 4, 8))
    spared = SPARED_FWHM * width
    mean = np.median(means, axis=0)
    away = ~protected & (np.abs(np.arange(mean.size) - np.argmax(mean)) > spared + 1.0)
    scale = _noise_scale(counts, rows, shown, image, away)
    n_positions = int(shown.sum())
    hot, table = np.empty(0, dtype=np.int64), _hot_table(image, [], [])
    if means.shape[0] >= MIN_GROUPS // 2:
        hot, table = _hot_channels(mean, n_positions, image, half, away, scale, settings.threshold_sigma)
    return Survey(half, spared, scale, hot, table)


def _noise_scale(counts: Any, rows: np.ndarray, shown: np.ndarray, image: SpectrumImage, away: np.ndarray) -> float:
    """True noise over the model's, from third differences of channels, which see no peak, in a few rows."""
    gain, dark = electrons(image)
    read, model = image.noise.read_noise_e, float(image.noise.noise_correlation**-0.5)
    inside: list[np.ndarray] = []
    for row in rows:
        z = (np.asarray(counts[row], dtype=np.float64)[shown[row]] - dark) / gain
        third = z[:, :-3] - 3.0 * z[:, 1:-2] + 3.0 * z[:, 2:-1] - z[:, 3:]
        variance = 0.25 * (z[:, :-3] + z[:, 1:-2] + z[:, 2:-1] + z[:, 3:]) + read**2
        # Fewer electrons make quantiles of whole numbers, which say nothing of the noise. Chosen by the channel's
        # median over the row: chosen one by one, those with a spike would be the ones with electrons enough.
        typical = np.broadcast_to(np.median(np.nan_to_num(variance), axis=0), variance.shape)
        variance = np.maximum(variance, 0.5 * typical)
        used = (typical > 10.0) & away[1:-2] & np.isfinite(third)
        inside.append(third[used] / np.sqrt(20.0 * variance[used]))
    values = np.concatenate(inside)
    if values.size < 200:
        return model
    low, high = np.quantile(values, (0.15866, 0.84134))
    seen = float(np.clip(0.5 * (high - low), 0.02, 50.0))
    if image.noise.source.get("gain", "assumed") == "assumed":
        return seen
    return seen if seen > 1.3 * model else model


def _hot_channels(
    mean: np.ndarray,
    n_positions: int,
    image: SpectrumImage,
    half: int,
    away: np.ndarray,
    scale: float,
    threshold: float,
) -> tuple[np.ndarray, pd.DataFrame]:
    """Channels whose mean over the scan leaves that of their neighbours, the most outstanding first."""
    total = mean[None] * n_positions
    read = image.noise.read_noise_e**2 * n_positions
    hot: list[int] = []
    expectations: list[float] = []
    for _ in range(mean.size // 20 + 1):
        sigmas, scatter, expected = np.empty_like(total), np.empty_like(total), np.empty_like(total)
        residual_sigmas(np.ascontiguousarray(total), half, read, sigmas, scatter, expected)
        # A median is 1.25 times as noisy as a mean.
        z = np.where(away, sigmas[0] / np.sqrt(scatter[0]) / 1.25 / max(scale, 1.0), 0.0)
        spread = 1.4826 * float(np.median(np.abs(z[away]))) if away.any() else 1.0
        # Rare electrons: an expectation near zero makes any ratio large.
        large = np.abs(total[0] - expected[0]) > HOT_EXCESS * np.maximum(expected[0], 10.0 * np.sqrt(n_positions))
        z[~large] = 0.0
        worst = int(np.argmax(np.abs(z)))
        if not abs(z[worst]) > threshold * max(spread, 1.0):
            break
        hot.append(worst)
        expectations.append(float(expected[0, worst]) / n_positions)
        total[0, worst] = expected[0, worst]
    order = np.argsort(hot, kind="stable")
    found = [(hot[i], float(mean[hot[i]]), expectations[i]) for i in order]
    return np.array([item[0] for item in found], dtype=np.int64), _hot_table(image, [f[1] for f in found], found)


def _hot_table(image: SpectrumImage, means: list[float], found: list[tuple[int, float, float]]) -> pd.DataFrame:
    import pandas as pd

    channels = np.array([item[0] for item in found], dtype=np.int64)
    return pd.DataFrame(
        {
            "channel": channels,
            "energy_loss_mev": image.energy.offset_mev + image.energy.dispersion_mev * channels,
            "mean_e": np.array(means, dtype=float),
            "expected_e": np.array([item[2] for item in found], dtype=float),
        }
    )
