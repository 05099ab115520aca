"""Smooth backgrounds ready to be fitted: shapes, windows, measured references, and how well each predicts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.backends.backgrounds import fit_backgrounds_block
from phonon_eels.kernels import background_shapes as shapes
from phonon_eels.kernels.background_shapes import MAX_PARAMETERS, N_PARAMETERS, NO_REFERENCE, background_curve_one
from phonon_eels.kernels.backgrounds import AT_BOUND, CONVERGED, SMALL_ROWS, fit_background_one

if TYPE_CHECKING:
    import pandas as pd

    from phonon_eels.backends.base import Backend

SHAPES = {
    "pearson7": shapes.PEARSON7,
    "log_quadratic": shapes.LOG_QUADRATIC,
    "power_law": shapes.POWER_LAW,
    "exponential": shapes.EXPONENTIAL,
    "double_exponential": shapes.DOUBLE_EXPONENTIAL,
    "exp_polynomial2": shapes.EXP_POLYNOMIAL2,
    "exp_polynomial3": shapes.EXP_POLYNOMIAL3,
    "exp_polynomial4": shapes.EXP_POLYNOMIAL4,
    "reference": shapes.REFERENCE,
}
NEED_LOSS_SIDE = ("log_quadratic", "power_law")
RIVALS = ("log_quadratic", "power_law", "exponential", "exp_polynomial2")
"""Shapes an ensemble varies over: few parameters, fitted by the variance. More freedom is noise, not another opinion."""
FOLDS = 5


@dataclass(frozen=True)
class Background:
    """A shape, the channels it is fitted in, and what it needs besides.

    Attributes
    ----------
    method
        Name of the shape.
    energies_mev
        Of all channels of the image, (channels,).
    channels
        Fitted channels, in order.
    reference_mev
        Energy the amplitudes count from.
    table
        Measured peak, or `NO_REFERENCE`.
    """

    method: str
    energies_mev: np.ndarray
    channels: np.ndarray
    reference_mev: float
    table: np.ndarray

    @property
    def shape(self) -> int:
        """Number of the shape."""
        return SHAPES[self.method]

    @property
    def n_parameters(self) -> int:
        """Number of its parameters."""
        return N_PARAMETERS[self.shape]

    def fit(
        self, counts: np.ndarray, variance: np.ndarray, bad: np.ndarray | None
    ) -> tuple[int, np.ndarray, np.ndarray]:
        """Fit one spectrum, (channels,) each; return status, parameters (5,) and covariance (25,)."""
        finite = counts[np.isfinite(counts)]
        peak = float(finite.max()) if finite.size else np.nan
        n = self.channels.size
        usable = np.ones(n, dtype=bool) if bad is None else ~np.asarray(bad[self.channels], dtype=bool)
        parameters, covariance = np.empty(MAX_PARAMETERS), np.empty((MAX_PARAMETERS, MAX_PARAMETERS))
        status = fit_background_one(
            self.shape, np.ascontiguousarray(self.energies_mev[self.channels]), np.ascontiguousarray(counts[self.channels]),
            np.ascontiguousarray(variance[self.channels]), usable, peak, self.reference_mev, self.table, parameters, covariance,
            np.empty((3, n)), np.empty((SMALL_ROWS, MAX_PARAMETERS)),
        )  # fmt: skip
        return int(status), parameters, covariance.ravel()

    def fit_block(
        self,
        backend: Backend,
        shown_mev: np.ndarray,
        counts: np.ndarray,
        variance: np.ndarray,
        bad: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Fit spectra (n, channels), dark level taken off, as `fit` does.

        Returns
        -------
        tuple
            Status (n,), parameters (n, 5), covariance (n, 25), and the sum over `shown_mev` with its variance (n, 2).
        """
        n = counts.shape[0]
        parameters, covariance = np.empty((n, MAX_PARAMETERS)), np.empty((n, MAX_PARAMETERS**2))
        area, status = np.empty((n, 2)), np.empty(n, dtype=np.int64)
        backend.run(
            fit_backgrounds_block, self.shape, np.ascontiguousarray(self.energies_mev[self.channels]),
            self.channels.astype(np.int64), self.reference_mev, self.table, np.ascontiguousarray(shown_mev, dtype=np.float64),
            np.ascontiguousarray(counts, dtype=np.float64), np.ascontiguousarray(variance, dtype=np.float64),
            np.empty((0, 0), bool) if bad is None else np.ascontiguousarray(bad, dtype=bool), parameters, covariance, area, status,
        )  # fmt: skip
        return status, parameters, covariance, area

    def curve(
        self, parameters: np.ndarray, covariance: np.ndarray, energies_mev: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Return value and variance at some energies, and the variance of the sum over them."""
        value, variance = np.empty(energies_mev.size), np.empty(energies_mev.size)
        total = background_curve_one(
            self.shape, parameters, covariance, energies_mev, self.reference_mev, self.table,
            np.empty((2, MAX_PARAMETERS)), value, variance,
        )  # fmt: skip
        return value, variance, float(total)


def make_background(
    method: str, energies_mev: np.ndarray, windows: list[slice], table: np.ndarray | None = None
) -> Background:
    """Prepare a shape for windows of channels."""
    channels = np.unique(np.concatenate([np.arange(window.start, window.stop) for window in windows]))
    low, high = energies_mev[channels[0]], energies_mev[channels[-1]]
    reference = float(np.sqrt(low * high)) if low > 0.0 else 0.5 * float(low + high)
    if method.startswith("exp_polynomial"):
        reference = max(reference, 0.25 * float(high - low))  # the polynomial counts in units of it
    return Background(method, energies_mev, channels, reference, NO_REFERENCE if table is None else table)


def misfit(background: Background, counts: np.ndarray, fitted: np.ndarray, variance: np.ndarray) -> float:
    """Return chi-squared over the fitted channels, the variance as given: the same for every shape."""
    own = background.channels
    good = np.isfinite(counts[own]) & (variance[own] > 0.0)
    return float((((counts[own] - fitted)[good]) ** 2 / variance[own][good]).sum())


def compare(
    backgrounds: dict[str, Background], spectra: np.ndarray, variances: np.ndarray, block_channels: int
) -> pd.DataFrame:
    """Compare shapes on the same windows of some spectra.

    AIC = χ² + 2k and BIC = χ² + k ln N, χ² with the known variances (minus twice the log likelihood of Gaussian noise, up to a
    constant common to all shapes). Held out: blocks of channels about one FWHM wide are predicted from the others,
    in five folds; what a shape that only bends to the noise cannot do.

    Parameters
    ----------
    spectra, variances
        (spectra, channels).
    block_channels
        Width of the blocks.

    Returns
    -------
    pandas.DataFrame
        One row per shape: parameters, chi-squared per degree of freedom, mean AIC and BIC per spectrum above the best shape's,
        held-out chi-squared per channel, share of fits that failed, Akaike weight of a typical spectrum. Best AIC first.

    References
    ----------
    Akaike 1974, doi:10.1109/TAC.1974.1100705; Schwarz 1978, doi:10.1214/aos/1176344136; Burnham and Anderson 2004,
    doi:10.1177/0049124104268644.
    """
    import pandas as pd

    rows = []
    for method, background in backgrounds.items():
        totals, failed, held, held_channels = [], 0, 0.0, 0
        own = background.channels
        fold_of = (np.arange(own.size) // max(block_channels, 1)) % FOLDS
        for counts, variance in zip(spectra, variances, strict=True):
            status, parameters, covariance = background.fit(counts, variance, None)
            if status not in (CONVERGED, AT_BOUND):
                failed += 1
                continue
            value = background.curve(parameters, covariance, background.energies_mev[own])[0]
            totals.append(misfit(background, counts, value, variance))
            for fold in range(FOLDS):
                rest, out = replace(background, channels=own[fold_of != fold]), own[fold_of == fold]
                status, parameters, covariance = rest.fit(counts, variance, None)
                if status in (CONVERGED, AT_BOUND) and out.size:
                    predicted = rest.curve(parameters, covariance, background.energies_mev[out])[0]
                    good = np.isfinite(counts[out]) & (variance[out] > 0.0)
                    held += float(((counts[out] - predicted)[good] ** 2 / variance[out][good]).sum())
                    held_channels += int(good.sum())
        k, n = background.n_parameters, own.size
        typical = float(np.mean(totals)) if totals else np.nan
        rows.append(
            {
                "method": method,
                "parameters": k,
                "chi2_per_dof": typical / max(n - k, 1),
                "aic": typical + 2.0 * k,
                "bic": typical + k * np.log(n),
                "held_out_chi2_per_channel": held / held_channels if held_channels else np.nan,
                "failed": failed / max(len(spectra), 1),
            }
        )
    table = pd.DataFrame(rows).sort_values("aic", ignore_index=True)
    table["delta_aic"] = table.pop("aic") - np.nanmin([row["aic"] for row in rows])
    table["delta_bic"] = table.pop("bic") - np.nanmin([row["bic"] for row in rows])
    weight = np.exp(-0.5 * table["delta_aic"].fillna(np.inf))
    table["akaike_weight"] = weight / weight.sum()
    return table
