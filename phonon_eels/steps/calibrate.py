"""Dispersion and zero of the energy axis from the zero-loss peak, gain/loss pairs or known lines, with deviations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import optimize

from phonon_eels.config.settings import Calibrate
from phonon_eels.errors import DataError
from phonon_eels.spectrum_image import EnergyAxis, SpectrumImage, StepResult
from phonon_eels.steps.maps import quantity
from phonon_eels.steps.mean_peak import peak_width_channels
from phonon_eels.steps.spec import StepContext, StepSpec
from phonon_eels.units import FWHM_PER_SIGMA, thermal_energy_mev

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

SEARCH_FRACTION = 0.15  # how far a line may lie from where the axis says, of its energy
HALF_WINDOW_FWHM = 1.1  # half width of the fitted window, in FWHM of the line as seen
MIN_AREA_SIGMA = 4.0  # fainter lines are not used


@dataclass(frozen=True)
class LineFit:
    """A line of the mean spectrum: energy on the old axis and area, with standard deviations."""

    energy_mev: float
    energy_std_mev: float
    fwhm_mev: float
    area_e: float
    area_std_e: float
    chi2_per_dof: float

    @property
    def seen(self) -> bool:
        """True if the line stands out and its place is known to better than its width."""
        return self.area_e > MIN_AREA_SIGMA * self.area_std_e and self.energy_std_mev < 0.25 * self.fwhm_mev


@dataclass(frozen=True)
class _Solution:
    """True energy = dispersion factor · (old energy − zero); covariance of (factor, zero).

    `from_zlp_mev` is the true zero as seen from the mean zero-loss centre, on the new axis: fits count energies from that
    centre, so it is what they must take off. The centre's own deviation is not in its deviation.
    """

    factor: float
    zero_mev: float
    covariance: np.ndarray
    from_zlp_mev: float = 0.0
    from_zlp_std_mev: float = 0.0


def calibrate(image: SpectrumImage, settings: Calibrate, context: StepContext) -> StepResult:
    """Correct the energy axis; counts are not touched.

    Parameters
    ----------
    image
        Spectrum image after `align_zlp`.
    settings
        zero: the scan-mean zero-loss centre becomes 0. gain_loss: the middle between a mode's loss and gain peaks
        becomes 0. lines: known energies give the dispersion, with the zero-loss peak or a second line the zero too.

    Returns
    -------
    StepResult
        The image on the new axis, the zero-loss centres on it, and the table `lines`.

    Raises
    ------
    DataError
        If the zero-loss peak was not fitted, or no line stands out of the mean spectrum.
    """
    if settings.method == "off":
        return StepResult(skipped="calibration is off")
    center, center_std = _mean_center(image, context)
    fits: list[tuple[str, float, float, LineFit]] = []
    messages: list[str] = []
    if settings.method == "zero":
        solution = _Solution(1.0, center, np.diag([0.0, center_std**2]))
    else:
        energies, electrons, variance, width = mean_aligned_spectrum(image, context)
        # The spectrum is added up relative to the zero-loss peak; `center` brings it back to the image's axis.
        if settings.method == "gain_loss":
            offset, fits = _pair_zero(energies, electrons, variance, width, context)
            covariance = np.diag([0.0, offset[1] ** 2 + center_std**2])
            solution = _Solution(1.0, center + offset[0], covariance, *offset)
            messages += _pair_messages(image, context)
        else:
            fits = _known_lines(energies, electrons, variance, width, settings)
            solution = _from_lines(fits, center, center_std)
        if width < 3.0 * image.energy.dispersion_mev:
            messages.append("the zero-loss peak is under three channels wide: fitted energies depend on the line shape")
        messages.append("lines are fitted as a Gaussian over an exponential: the tail of the zero-loss peak and the "
                        "thermal occupation can still move a broad line by a few per cent of its width")  # fmt: skip
    axis = image.energy
    moved = EnergyAxis(
        solution.factor * (axis.offset_mev - solution.zero_mev), solution.factor * axis.dispersion_mev, axis.n_channels
    )
    return StepResult(
        image=image.with_(energy=moved),
        maps=_moved_centers(solution, context),
        tables={"lines": _table(fits, center, solution)},
        summary=_summary(settings, solution, axis, moved),
        messages=tuple(messages),
    )


def _mean_center(image: SpectrumImage, context: StepContext) -> tuple[float, float]:
    """Scan mean of the zero-loss centre on the image's axis and its deviation, scatter included."""
    if image.variance is not None:  # resampled: every peak is at 0
        center, std = _center_map(context)
        finite = np.isfinite(center)
        return 0.0, _mean_std(center[finite], std[finite], spread=False)
    center, std = _center_map(context)
    finite = np.isfinite(center) & np.isfinite(std) & (std > 0)
    return float(center[finite].mean()), _mean_std(center[finite], std[finite], spread=True)


def _mean_std(values: np.ndarray, std: np.ndarray, spread: bool) -> float:
    counting = float(np.sqrt(np.nansum(std**2))) / max(values.size, 1)
    if not spread or values.size < 2:
        return counting
    return float(max(counting, values.std(ddof=1) / np.sqrt(values.size)))


def _center_map(context: StepContext) -> tuple[np.ndarray, np.ndarray]:
    maps = context.maps.get("align_zlp")
    if maps is None or "zlp_center_mev" not in maps:
        raise DataError(
            "calibrate needs the map zlp_center_mev of align_zlp; run align_zlp first, or set calibrate.method=off"
        )
    center = np.asarray(maps["zlp_center_mev"].values, dtype=float)
    std = np.asarray(maps["zlp_center_mev_std"].values, dtype=float)
    if not np.isfinite(center).any():
        raise DataError("calibrate: align_zlp found no zero-loss peak at any position; set calibrate.method=off")
    return center, std


def mean_aligned_spectrum(
    image: SpectrumImage, context: StepContext
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Add all spectra with their zero-loss peaks on the same channel (whole channels).

    Returns
    -------
    tuple
        (energy loss from the zero-loss peak in meV, electrons, variance in electrons², zero-loss FWHM in meV); the
        energies carry the mean of the sub-channel remainders, so that the sum is not off by them.
    """
    axis, noise = image.energy, image.noise
    resampled = image.variance is not None
    gain, dark, read = (1.0, 0.0, 0.0) if resampled else (noise.gain, noise.dark_level, noise.read_noise_e)
    center = np.zeros(image.shape[:2]) if resampled else _center_map(context)[0]
    position = (center - axis.offset_mev) / axis.dispersion_mev
    found = np.isfinite(position) & (position >= 0) & (position <= axis.n_channels - 1)
    if not found.any():
        raise DataError("calibrate: no zero-loss peak lies on the energy axis; set calibrate.method=off")
    nearest = np.floor(np.where(found, position, 0.0) + 0.5).astype(np.int64)
    low, high = int(nearest[found].min()), int(nearest[found].max())
    kept = axis.n_channels - (high - low)

    def add(first: int, counts: np.ndarray, variance: np.ndarray | None, place: np.ndarray, use: np.ndarray) -> Any:
        rows = []
        for r in range(counts.shape[0]):
            total, spread, used = np.zeros(kept), np.zeros(kept), 0
            for c in np.flatnonzero(use[r, :, 0]):
                begin = int(place[r, c, 0]) - low
                z = (np.asarray(counts[r, c, begin : begin + kept], dtype=np.float64) - dark) / gain
                if np.all(np.isfinite(z)):
                    total += z
                    used += 1
                    spread += z + read**2 if variance is None else np.asarray(variance[r, c, begin : begin + kept])
            rows.append((total, spread, used))
        return rows

    arrays = [image.counts, image.variance, nearest[..., None], found[..., None]]
    rows = [row for block in context.backend.map_rows(add, arrays, progress=context.progress) for row in block]
    total = np.sum([row[0] for row in rows], axis=0)
    variance = np.maximum(np.sum([row[1] for row in rows], axis=0), 1.0)
    # Poisson weights from the single channels would pull towards low ones: a short running mean takes the edge off.
    variance = np.maximum(np.convolve(np.pad(variance, 2, mode="edge"), np.full(5, 0.2), mode="valid"), 1.0)
    remainder = float(np.mean((position - nearest)[found]))
    energies = (np.arange(kept) - low - remainder) * axis.dispersion_mev
    return energies, total, variance, peak_width_channels(total) * axis.dispersion_mev


def fit_line(
    energies: np.ndarray,
    electrons: np.ndarray,
    variance: np.ndarray,
    start_mev: float,
    fwhm_mev: float,
    search_mev: float,
) -> LineFit | None:
    """Fit a Gaussian over an exponential near `start_mev`, weights from the variance; the best of several starts.

    Returns
    -------
    LineFit or None
        None if the window leaves the axis or no start converges inside `search_mev`.
    """
    fits = []
    for start in start_mev + np.linspace(-search_mev, search_mev, 7):
        inside = np.abs(energies - start) <= HALF_WINDOW_FWHM * fwhm_mev
        if inside.sum() < 7 or energies[0] > start - 0.6 * fwhm_mev or energies[-1] < start + 0.6 * fwhm_mev:
            continue
        fits.append(_fit_window(energies[inside], electrons[inside], variance[inside], float(start), fwhm_mev))
    reach = search_mev + 0.5 * fwhm_mev
    good = [fit for fit in fits if fit is not None and abs(fit.energy_mev - start_mev) <= reach and fit.area_e > 0]
    seen = [fit for fit in good if fit.seen] or good
    # Windows differ, so their χ² do too: the most significant line wins.
    return max(seen, key=lambda fit: fit.area_e / max(fit.area_std_e, 1e-30)) if seen else None


def _fit_window(e: np.ndarray, y: np.ndarray, variance: np.ndarray, start: float, fwhm: float) -> LineFit | None:
    scale = max(float(np.abs(y).max()), 1.0)
    sigma = np.sqrt(variance) / scale

    def model(x: np.ndarray, height: float, place: float, width: float, base: float, slope: float) -> np.ndarray:
        falling = np.exp(np.clip(-slope * (x - start) / fwhm, -30.0, 30.0))
        return np.asarray(height * np.exp(-0.5 * ((x - place) * FWHM_PER_SIGMA / width) ** 2) + base * falling)

    ends = (float(np.mean(y[:2])) / scale, float(np.mean(y[-2:])) / scale)
    base = max(0.5 * (ends[0] + ends[1]), 1e-6)
    slope = float(np.clip(np.log(max(ends[0], 1e-6) / max(ends[1], 1e-6)) / (2.0 * HALF_WINDOW_FWHM), -5.0, 5.0))
    first = [max(float(np.max(y)) / scale - base, 0.05 * base), start, fwhm, base, slope]
    half = HALF_WINDOW_FWHM * fwhm
    bounds = ([-2.0, start - half, 0.5 * fwhm, 0.0, -10.0], [2.0, start + half, 1.8 * fwhm, 3.0, 10.0])
    try:
        best, covariance = optimize.curve_fit(
            model,
            e,
            y / scale,
            p0=np.clip(first, *bounds),
            sigma=sigma,
            absolute_sigma=True,
            bounds=bounds,
            max_nfev=400,
        )
    except (RuntimeError, ValueError):
        return None
    std = np.sqrt(np.diag(covariance))
    if not np.all(np.isfinite(std)):
        return None
    chi2 = float(np.sum(((y / scale - model(e, *best)) / sigma) ** 2)) / max(e.size - 5, 1)
    # A misfit beyond noise goes into the deviation instead of being hidden.
    excess = max(chi2, 1.0) ** 0.5
    step = float(e[1] - e[0])
    area = best[0] * best[2] * np.sqrt(2.0 * np.pi) / FWHM_PER_SIGMA * scale / step
    spread = abs(area) * float(np.sqrt(covariance[0, 0])) / max(abs(best[0]), 1e-12)
    return LineFit(float(best[1]), float(std[1]) * excess, float(best[2]), float(area), spread * excess, chi2)


def _pair_zero(
    energies: np.ndarray, electrons: np.ndarray, variance: np.ndarray, width: float, context: StepContext
) -> tuple[tuple[float, float], list[tuple[str, float, float, LineFit]]]:
    """Weighted mean of the middles between loss and gain peaks, relative to the zero-loss peak."""
    fits, middles = [], []
    for mode in context.material.modes:
        expected = float(np.hypot(width, mode.fwhm_mev))
        search = 0.25 * (mode.bounds_mev[1] - mode.bounds_mev[0])
        loss, gain = (fit_line(energies, electrons, variance, s * mode.energy_mev, expected, search) for s in (1, -1))
        if loss is None or gain is None or not (loss.seen and gain.seen):
            continue
        fits += [(f"{mode.name} loss", np.nan, np.nan, loss), (f"{mode.name} gain", np.nan, np.nan, gain)]
        spread = 0.5 * np.hypot(loss.energy_std_mev, gain.energy_std_mev)
        middles.append((0.5 * (loss.energy_mev + gain.energy_mev), spread))
    if not middles:
        raise DataError(
            "calibrate.method = gain_loss: no mode of the material is seen on both the loss and the gain side of the "
            "mean spectrum; use zero or lines, or off"
        )
    value, std = np.array(middles).T
    weight = std**-2
    mean = float(np.sum(weight * value) / weight.sum())
    scatter = float(np.sum(weight * (value - mean) ** 2)) / max(value.size - 1, 1)
    return (mean, float(weight.sum() ** -0.5 * max(scatter, 1.0) ** 0.5)), fits


def _pair_messages(image: SpectrumImage, context: StepContext) -> list[str]:
    """Detailed balance pulls the middle of a pair towards loss by s²/2kT, s² the variance of the intrinsic line."""
    temperature = image.acquisition.temperature_k
    width = float(np.median([mode.fwhm_mev for mode in context.material.modes])) / FWHM_PER_SIGMA
    shift = width**2 / (2.0 * thermal_energy_mev(temperature or 293.0))
    return [f"thermal occupation moves the middle of a gain/loss pair by about +{shift:.2g} meV; not corrected"]


def _known_lines(
    energies: np.ndarray, electrons: np.ndarray, variance: np.ndarray, width: float, settings: Calibrate
) -> list[tuple[str, float, float, LineFit]]:
    found, missing = [], []
    for line in settings.lines:
        fit = fit_line(energies, electrons, variance, line.energy_mev, 1.1 * width, SEARCH_FRACTION * line.energy_mev)
        if fit is None or not fit.seen:
            missing.append(f"{line.mode} ({line.energy_mev:g} meV)")
        else:
            found.append((line.mode, line.energy_mev, line.energy_std_mev, fit))
    if missing:
        raise DataError(
            f"calibrate.lines: {', '.join(missing)} does not stand out of the mean spectrum, which runs from "
            f"{energies[0]:.4g} to {energies[-1]:.4g} meV around the zero-loss peak; leave it out or give another line"
        )
    return found


def _from_lines(fits: list[tuple[str, float, float, LineFit]], center: float, center_std: float) -> _Solution:
    """Weighted straight line through (energy on the old axis, true energy), the zero-loss peak as one point at 0."""
    old = np.array([center, *(fit.energy_mev + center for *_, fit in fits)])
    true = np.array([0.0, *(energy for _, energy, _, _ in fits)])
    old_std = np.array([center_std, *(fit.energy_std_mev for *_, fit in fits)])
    true_std = np.array([0.0, *(std for _, _, std, _ in fits)])
    factor, covariance, line = 1.0, np.eye(2), np.zeros(2)
    for _ in range(5):  # the deviation of a measured energy counts on the true axis, times the factor
        weight = 1.0 / np.maximum((factor * old_std) ** 2 + true_std**2, 1e-18)
        design = np.stack([old, np.ones_like(old)], axis=1)
        covariance = np.linalg.inv(design.T @ (weight[:, None] * design))
        line = covariance @ (design.T @ (weight * true))
        factor = float(line[0])
    if true.size > 2:
        chi2 = float(np.sum(weight * (true - design @ line) ** 2)) / (true.size - 2)
        covariance = covariance * max(chi2, 1.0)
    zero = float(-line[1] / line[0])
    turn = np.array([[1.0, 0.0], [-zero / line[0], -1.0 / line[0]]])
    turned = turn @ covariance @ turn.T
    # The fitted zero and the centre agree within both; what is left between them carries the fit's own deviation.
    return _Solution(factor, zero, turned, factor * (zero - center), factor * float(np.sqrt(turned[1, 1])))


def _moved_centers(solution: _Solution, context: StepContext) -> xr.Dataset:
    """Zero-loss centres on the new axis, for steps that use them as coordinate."""
    maps = context.maps["align_zlp"]
    moved = maps[["zlp_center_mev", "zlp_center_mev_std", "status"]].copy()
    moved["zlp_center_mev"] = solution.factor * (maps["zlp_center_mev"] - solution.zero_mev)
    moved["zlp_center_mev_std"] = abs(solution.factor) * maps["zlp_center_mev_std"]
    for name in ("zlp_center_mev", "zlp_center_mev_std"):
        moved[name].attrs = dict(maps[name].attrs)
    return moved


def _table(fits: list[tuple[str, float, float, LineFit]], center: float, solution: _Solution) -> pd.DataFrame:
    import pandas as pd

    rows = [
        {
            "line": name,
            "known_energy_mev": energy,
            "known_energy_mev_std": std,
            "fitted_energy_mev": fit.energy_mev + center,
            "fitted_energy_mev_std": fit.energy_std_mev,
            "calibrated_energy_mev": solution.factor * (fit.energy_mev + center - solution.zero_mev),
            "fwhm_mev": fit.fwhm_mev,
            "area_e": fit.area_e,
            "area_e_std": fit.area_std_e,
            "chi2_per_dof": fit.chi2_per_dof,
        }
        for name, energy, std, fit in fits
    ]
    columns = ["line", "known_energy_mev", "known_energy_mev_std", "fitted_energy_mev", "fitted_energy_mev_std",
               "calibrated_energy_mev", "fwhm_mev", "area_e", "area_e_std", "chi2_per_dof"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _summary(settings: Calibrate, solution: _Solution, old: EnergyAxis, new: EnergyAxis) -> dict[str, Any]:
    std = np.sqrt(np.diag(solution.covariance))
    correlation = float(solution.covariance[0, 1] / (std[0] * std[1])) if std.min() > 0 else 0.0
    fixed = settings.method != "lines"
    return {
        "method": settings.method,
        "dispersion_mev": quantity(
            new.dispersion_mev, std[0] * old.dispersion_mev, "meV", "not measured" if fixed else "ok"
        ),
        "zero_mev": quantity(solution.zero_mev, std[1], "meV"),
        "zero_from_zlp_mev": quantity(solution.from_zlp_mev, solution.from_zlp_std_mev, "meV"),
        "correlation": correlation,
        "dispersion_factor": quantity(solution.factor, std[0], "1", "not measured" if fixed else "ok"),
        "old_axis": {"offset_mev": old.offset_mev, "dispersion_mev": old.dispersion_mev},
        "new_axis": {"offset_mev": new.offset_mev, "dispersion_mev": new.dispersion_mev},
    }


CALIBRATE = StepSpec(
    name="calibrate",
    run=calibrate,
    makes={"zlp_center_mev": "meV", "zlp_center_mev_std": "meV"},
    needs=("align_zlp",),
    reference="weighted least squares on known energies; mirror symmetry of gain and loss",
)
