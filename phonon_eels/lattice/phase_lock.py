"""Local amplitude and phase of a displacement wave: lock-in at the fitted wavevector in a Gaussian window.

The idea of demodulating at a known wavevector and low-passing is that of Slezak and others for STM topographs
(doi:10.1073/pnas.0706795105); here each window is a small least-squares fit, which keeps edges and gaps unbiased.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phonon_eels.lattice.wave import Samples, Wave, residual_correlation
from phonon_eels.units import FWHM_PER_SIGMA


@dataclass(frozen=True)
class LocalWave:
    """Lock-in on a grid; arrays (slabs, n) unless said.

    Attributes
    ----------
    s_nm
        Middle of each slab along c, (slabs,).
    t_nm
        Grid along b, (n,).
    amplitude_nm, amplitude_std_nm
        Local amplitude.
    phase_rad, phase_std_rad
        Local phase less that of the global wave.
    kept
        Share of the local phase that is believed: its true variance over variance plus noise, estimated from both.
    slip
        True where the phase turns by more than a quarter period within half a period.
    """

    s_nm: np.ndarray
    t_nm: np.ndarray
    amplitude_nm: np.ndarray
    amplitude_std_nm: np.ndarray
    phase_rad: np.ndarray
    phase_std_rad: np.ndarray
    kept: float
    slip: np.ndarray

    def sample(self, values: np.ndarray, s: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Return values of the grid at positions, linear along both directions, held at the edges."""
        low_s, high_s, share_s = _between(self.s_nm, s)
        low_t, high_t, share_t = _between(self.t_nm, t)
        lower = values[low_s, low_t] * (1.0 - share_t) + values[low_s, high_t] * share_t
        upper = values[high_s, low_t] * (1.0 - share_t) + values[high_s, high_t] * share_t
        return np.asarray(lower * (1.0 - share_s) + upper * share_s)

    def nearest(self, values: np.ndarray, s: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Return values of the nearest grid points."""
        low_s, high_s, share_s = _between(self.s_nm, s)
        low_t, high_t, share_t = _between(self.t_nm, t)
        return np.asarray(values[np.where(share_s > 0.5, high_s, low_s), np.where(share_t > 0.5, high_t, low_t)])


def _between(grid: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if len(grid) < 2:
        zero = np.zeros(np.shape(x), dtype=np.intp)
        return zero, zero, np.zeros(np.shape(x))
    low = np.clip(np.searchsorted(grid, x) - 1, 0, len(grid) - 2)
    share = np.clip((x - grid[low]) / (grid[low + 1] - grid[low]), 0.0, 1.0)
    return low, low + 1, share


def lock_in(samples: Samples, sign: np.ndarray, wave: Wave, window_fwhm_nm: float) -> LocalWave:
    """Lock in on the wave in windows around every slab and place along b.

    Parameters
    ----------
    sign
        Sign of the wave at each sample, as in `fit_wave`.
    window_fwhm_nm
        Full width at half maximum of the window, along b and c.
    """
    sigma = window_fwhm_nm / FWHM_PER_SIGMA
    slabs = np.unique(samples.slab)
    s_grid = np.array([samples.s_nm[samples.slab == slab].mean() for slab in slabs])
    low, high = float(samples.t_nm.min()), float(samples.t_nm.max())
    t_grid = np.linspace(low, high, max(2, int(np.ceil((high - low) / wave.period_nm * 8.0)) + 1))
    angle = wave.phase_at(samples.s_nm, samples.t_nm)
    # Offsets and drift are gone from the residual; the wave itself is put back.
    signal = wave.amplitude_nm * np.cos(angle) + sign * wave.residual_nm
    constant = np.stack([np.cos(angle), -np.sin(angle), sign * wave.amplitude_nm], axis=1)
    shape = (len(slabs), len(t_grid))
    parts, spread = np.zeros((*shape, 2)), np.zeros((*shape, 2, 2))
    for i, s in enumerate(s_grid):
        for j, t in enumerate(t_grid):
            # Slopes along b keep the window's ends from pulling the phase towards what lies inside.
            design = np.concatenate([constant, constant[:, :2] * ((samples.t_nm - t) / sigma)[:, None]], axis=1)
            window = np.exp(-0.5 * (((samples.s_nm - s) / sigma) ** 2 + ((samples.t_nm - t) / sigma) ** 2))
            weight = window / samples.std_nm**2
            inverse = np.linalg.pinv((design * weight[:, None]).T @ design, rcond=1e-8, hermitian=True)
            middle = (design * (weight * window)[:, None]).T @ design
            parts[i, j] = (inverse @ (design.T @ (weight * signal)))[:2]
            spread[i, j] = (inverse @ middle @ inverse)[:2, :2]
    spread *= _scatter(samples, signal, constant, s_grid, t_grid, parts)
    return _polar(s_grid, t_grid, parts, spread, wave)


def _scatter(
    samples: Samples, signal: np.ndarray, design: np.ndarray, s_grid: np.ndarray, t_grid: np.ndarray, parts: np.ndarray
) -> float:
    """Variance of what the local waves leave, over that of the samples; at least 1, times its correlation along b.

    The global fit's own scatter would count a phase that wanders or slips as noise.
    """
    row = np.abs(samples.s_nm[:, None] - s_grid[None, :]).argmin(axis=1)
    column = np.abs(samples.t_nm[:, None] - t_grid[None, :]).argmin(axis=1)
    left = (signal - np.einsum("na,na->n", design[:, :2], parts[row, column])) / samples.std_nm
    # The median is blind to the few windows that straddle a slip.
    variance = float(np.median(left**2)) / 0.455
    return max(variance, 1.0) * residual_correlation(samples, np.clip(left, -5.0, 5.0))


def _polar(s_grid: np.ndarray, t_grid: np.ndarray, parts: np.ndarray, spread: np.ndarray, wave: Wave) -> LocalWave:
    amplitude = np.hypot(parts[..., 0], parts[..., 1])
    phase = np.arctan2(parts[..., 1], parts[..., 0])
    unit = parts / np.maximum(amplitude, 1e-12)[..., None]
    across = np.stack([-unit[..., 1], unit[..., 0]], axis=-1)
    amplitude_std = np.sqrt(np.maximum(np.einsum("ija,ijab,ijb->ij", unit, spread, unit), 0.0))
    phase_std = np.sqrt(np.maximum(np.einsum("ija,ijab,ijb->ij", across, spread, across), 0.0))
    phase_std /= np.maximum(amplitude, 1e-12)
    noise = float(np.median(phase_std**2))
    real = max(0.0, float(np.median(phase**2)) / 0.455 - noise)  # median of chi-squared with one degree of freedom
    real = max(real, float(np.mean(phase**2)) - 2.0 * noise)
    kept = real / (real + noise) if real > 0.0 else 0.0
    turned = np.unwrap(phase, axis=1)
    ahead = max(1, round(0.5 * wave.period_nm / float(t_grid[1] - t_grid[0])))
    slip = np.zeros(phase.shape, dtype=bool)
    if turned.shape[1] > ahead:
        change = np.abs(turned[:, ahead:] - turned[:, :-ahead])
        sure = change > 0.5 * np.pi
        sure &= change > 4.0 * np.hypot(phase_std[:, ahead:], phase_std[:, :-ahead])
        for shift in range(ahead + 1):
            slip[:, shift : shift + sure.shape[1]] |= sure
    return LocalWave(s_grid, t_grid, amplitude, amplitude_std, phase, phase_std, float(kept), slip)
