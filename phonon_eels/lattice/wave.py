"""One displacement wave fitted to many planes at once: period, amplitude, phase, with standard deviations and a test.

Model of the displacement along c of a plane p at (t, s):
    u = sign_p [a cos(2πt/λ + g s) + b sin(2πt/λ + g s)] + offset_p + drift(t),
sign_p alternates from slab to slab where slabs are in antiphase; the drift is common to all planes, so the alternation
separates it from the wave. Least squares, linear in all but λ and g (the tilt of the wavevector off b), which are
searched on a grid and refined with the offsets and the drift projected out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

TILT_PRIOR_RAD_PER_NM = 0.25  # the wavevector lies along b within about 6 degrees
MIN_PERIODS = 0.8


@dataclass(frozen=True)
class Samples:
    """Displacements of planes; arrays of one length.

    Attributes
    ----------
    plane
        Number of the plane.
    slab
        Its slab.
    s_nm, t_nm
        Place along c and b.
    u_nm, std_nm
        Displacement along increasing c and its standard deviation.
    """

    plane: np.ndarray
    slab: np.ndarray
    s_nm: np.ndarray
    t_nm: np.ndarray
    u_nm: np.ndarray
    std_nm: np.ndarray

    def select(self, chosen: np.ndarray) -> Samples:
        """Return some of the samples."""
        return Samples(*(getattr(self, name)[chosen] for name in ("plane", "slab", "s_nm", "t_nm", "u_nm", "std_nm")))


@dataclass(frozen=True)
class Wave:
    """A fitted wave u = sign · amplitude · cos(2π t/period + tilt · s + phase), lengths in nm.

    Attributes
    ----------
    covariance
        Of (frequency in 1/nm, tilt in rad/nm, cos part, sin part), widened by residual scatter and correlation.
    p_value
        Of an amplitude this large without a wave, the search over periods paid for.
    at_bound
        The period stopped at an end of the allowed range: there is no maximum inside.
    scatter
        Factor by which residual scatter and correlation widened the standard deviations.
    periods_in_view
        Length of the field of view along b over the period.
    residual_nm
        What the fit leaves of each sample.
    """

    period_nm: float
    tilt_rad_per_nm: float
    amplitude_nm: float
    phase_rad: float
    covariance: np.ndarray
    p_value: float
    at_bound: bool
    scatter: float
    periods_in_view: float
    residual_nm: np.ndarray

    @property
    def period_std_nm(self) -> float:
        """Standard deviation of the period."""
        return float(np.sqrt(self.covariance[0, 0])) * self.period_nm**2

    @property
    def tilt_std_rad_per_nm(self) -> float:
        """Standard deviation of the tilt."""
        return float(np.sqrt(self.covariance[1, 1]))

    @property
    def amplitude_std_nm(self) -> float:
        """Standard deviation of the amplitude."""
        along = np.array([np.cos(self.phase_rad), -np.sin(self.phase_rad)])
        return float(np.sqrt(along @ self.covariance[2:, 2:] @ along))

    def phase_at(self, s_nm: np.ndarray, t_nm: np.ndarray) -> np.ndarray:
        """Return the lateral phase 2π t/λ + g s + φ0 in rad."""
        phase: np.ndarray = 2.0 * np.pi / self.period_nm * t_nm + self.tilt_rad_per_nm * s_nm + self.phase_rad
        return phase


def slab_sign(slab: np.ndarray, antiphase: bool) -> np.ndarray:
    """Return +1 and -1 in turn from slab to slab, or +1 for all where slabs are in phase."""
    sign: np.ndarray = np.where(np.asarray(slab) % 2 == 0, 1.0, -1.0) if antiphase else np.ones(np.shape(slab))
    return sign


def fit_wave(
    samples: Samples, sign: np.ndarray, period_bounds_nm: tuple[float, float], fixed_period_nm: float | None = None
) -> Wave | None:
    """Fit the wave to all samples.

    Parameters
    ----------
    sign
        +1 or -1 per sample.
    period_bounds_nm
        Allowed periods.
    fixed_period_nm
        Keep the period here.

    Returns
    -------
    The wave, significant or not, or None where fewer than 0.8 periods are in view or too few samples are there.
    """
    length = float(np.ptp(samples.t_nm)) if len(samples.t_nm) else 0.0
    low, high = period_bounds_nm if fixed_period_nm is None else (fixed_period_nm, fixed_period_nm)
    if length < MIN_PERIODS * low or len(samples.t_nm) < 12:
        return None
    weight = 1.0 / samples.std_nm
    basis = _nuisance_basis(samples, weight, length, 0.5 * (low + high))
    target = _project(weight * samples.u_nm, basis)
    free_tilt = float(np.ptp(samples.s_nm)) > 1.0
    n_grid = 1 if fixed_period_nm is not None else max(5, int(np.ceil((1.0 / low - 1.0 / high) * length / 0.02)))
    grid = np.linspace(1.0 / high, 1.0 / low, n_grid)
    gains = np.array([_linear(samples, sign, weight, basis, target, f, 0.0)[1] for f in grid])
    start = float(grid[int(np.argmax(gains))])
    (a, b), _ = _linear(samples, sign, weight, basis, target, start, 0.0)

    def residual(p: np.ndarray) -> np.ndarray:
        f = start if fixed_period_nm is not None else p[0]
        angle = 2.0 * np.pi * f * samples.t_nm + p[1] * samples.s_nm
        model = _project(weight * sign * (p[2] * np.cos(angle) + p[3] * np.sin(angle)), basis)
        prior = p[1] / (TILT_PRIOR_RAD_PER_NM if free_tilt else 1e-6)
        return np.append(target - model, prior)

    scale = max(float(np.hypot(a, b)), 1e-4)
    result = optimize.least_squares(
        residual,
        np.array([start, 0.0, a, b]),
        x_scale=np.array([0.1 / length, 0.05, scale, scale]),
        bounds=(np.array([1.0 / high - 1e-9, -1.0, -1.0, -1.0]), np.array([1.0 / low + 1e-9, 1.0, 1.0, 1.0])),
    )
    f, tilt, a, b = (float(value) for value in result.x)
    f = start if fixed_period_nm is not None else f
    return _judge(
        samples,
        weight,
        basis,
        target,
        result,
        (f, tilt, a, b),
        (low, high),
        length,
        free_tilt,
        fixed_period_nm is not None,
    )


def _judge(
    samples: Samples,
    weight: np.ndarray,
    basis: np.ndarray,
    target: np.ndarray,
    result: optimize.OptimizeResult,
    parameters: tuple[float, float, float, float],
    bounds: tuple[float, float],
    length: float,
    free_tilt: bool,
    fixed: bool,
) -> Wave:
    f, tilt, a, b = parameters
    left = result.fun[:-1]
    n = len(target)
    dof = max(n - basis.shape[1] - 2 - (not fixed) - free_tilt, 1)
    rss = float(left @ left)
    correlated = residual_correlation(samples, left)
    scatter2 = max(rss / dof, 1.0) * correlated
    jacobian = result.jac.copy()
    if fixed:
        jacobian[:, 0] = 0.0
    normal = jacobian.T @ jacobian
    normal[0, 0] += 1e-12 * max(normal[0, 0], 1.0)
    covariance = np.linalg.pinv(normal, rcond=1e-14, hermitian=True) * scatter2
    gain = float(target @ target) - rss
    independent = 1.0 if fixed else 1.0 + length * (1.0 / bounds[0] - 1.0 / bounds[1])
    n_parameters = 2 + (not fixed) + free_tilt
    ratio = max(gain, 0.0) / n_parameters / (rss / dof * correlated)
    p_single = float(
        special.fdtrc(n_parameters, max(dof / correlated, 1.0), ratio)
    )  # survival of F; scipy.stats loads slowly
    edge = 1e-3 * (1.0 / bounds[0] - 1.0 / bounds[1])
    at_bound = not fixed and (f - 1.0 / bounds[1] < edge or 1.0 / bounds[0] - f < edge)
    return Wave(
        1.0 / f,
        tilt,
        float(np.hypot(a, b)),
        float(np.arctan2(-b, a)),
        covariance,
        float(min(1.0, p_single * independent)),
        bool(at_bound),
        float(np.sqrt(scatter2)),
        length * f,
        left / weight,
    )


def residual_correlation(samples: Samples, standardised: np.ndarray) -> float:
    """Return how many neighbouring samples along b count as one: lag-1 correlation of the residuals in each plane."""
    order = np.lexsort((samples.t_nm, samples.plane))
    r, plane = standardised[order], samples.plane[order]
    same = plane[1:] == plane[:-1]
    total = float(np.sum(r**2))
    if not same.any() or total <= 0.0:
        return 1.0
    rho = float(np.sum(r[1:][same] * r[:-1][same])) / total
    rho = float(np.clip(rho, 0.0, 0.95))
    return (1.0 + rho) / (1.0 - rho)


def amplitude_of(samples: Samples, patterns: np.ndarray, wave: Wave) -> tuple[np.ndarray, np.ndarray]:
    """Return cos and sin amplitudes of several sign patterns fitted together at the period of `wave`, with covariance.

    Parameters
    ----------
    patterns
        (patterns, samples): +1, -1 or 0.

    Returns
    -------
    Amplitudes (patterns, 2) in nm and covariance (2 patterns, 2 patterns), widened like the wave's.
    """
    weight = 1.0 / samples.std_nm
    length = float(np.ptp(samples.t_nm))
    basis = _nuisance_basis(samples, weight, length, wave.period_nm)
    angle = wave.phase_at(samples.s_nm, samples.t_nm)
    columns = [_project(weight * sign * part(angle), basis) for sign in patterns for part in (np.cos, np.sin)]
    design = np.stack(columns, axis=1)
    target = _project(weight * samples.u_nm, basis)
    inverse = np.linalg.pinv(design.T @ design, rcond=1e-10, hermitian=True)
    amplitudes = inverse @ (design.T @ target)
    left = target - design @ amplitudes
    dof = max(len(target) - basis.shape[1] - design.shape[1], 1)
    widen = max(float(left @ left) / dof, 1.0) * residual_correlation(samples, left)
    return amplitudes.reshape(-1, 2), inverse * widen


def _nuisance_basis(samples: Samples, weight: np.ndarray, length: float, period_nm: float) -> np.ndarray:
    """Return an orthonormal basis of weighted offsets per plane and of a drift along b common to all planes."""
    planes = np.unique(samples.plane)
    x = (samples.t_nm - samples.t_nm.mean()) / max(length, 1e-9)
    columns = [(samples.plane == plane).astype(float) for plane in planes]
    order = 1 + int(np.clip(length / period_nm, 0, 3))
    if len(np.unique(samples.slab)) < 2:  # nothing alternates: a bent drift would take the wave itself
        order = 1 if length < 2.0 * period_nm else 2
    columns += [x**power for power in range(1, order + 1)]
    if length > 1.5 * period_nm:  # shear of single planes; over fewer periods it would take part of the wave
        columns += [(samples.plane == plane) * x for plane in planes[1:]]
    q, r = np.linalg.qr(np.stack(columns, axis=1) * weight[:, None])
    size = np.abs(np.diag(r))
    return np.asarray(q[:, size > 1e-9 * size.max()])


def _project(vector: np.ndarray, basis: np.ndarray) -> np.ndarray:
    return np.asarray(vector - basis @ (basis.T @ vector))


def _linear(
    samples: Samples, sign: np.ndarray, weight: np.ndarray, basis: np.ndarray, target: np.ndarray, f: float, tilt: float
) -> tuple[tuple[float, float], float]:
    angle = 2.0 * np.pi * f * samples.t_nm + tilt * samples.s_nm
    cos, sin = (_project(weight * sign * part(angle), basis) for part in (np.cos, np.sin))
    design = np.stack([cos, sin], axis=1)
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    return (float(solution[0]), float(solution[1])), float(target @ (design @ solution))
