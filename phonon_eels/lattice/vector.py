"""Amplitude and phase of a (cos, sin) vector with their standard deviations."""

from __future__ import annotations

import numpy as np


class HarmonicVector:
    """What follows from the two components of a harmonic, amplitude · cos(φ - phase), and their covariance.

    Attributes
    ----------
    value
        (2,) cos and sin component.
    covariance
        (2, 2).
    """

    value: np.ndarray
    covariance: np.ndarray

    @property
    def amplitude(self) -> float:
        """Length of the vector."""
        return float(np.hypot(*self.value))

    @property
    def phase_rad(self) -> float:
        """Phase at which the harmonic is largest."""
        return float(np.arctan2(self.value[1], self.value[0]))

    @property
    def amplitude_std(self) -> float:
        """Standard deviation along the vector."""
        along = self.value / max(self.amplitude, 1e-300)
        return float(np.sqrt(along @ self.covariance @ along))

    @property
    def phase_std_rad(self) -> float:
        """Standard deviation across the vector over its length; π/√3 (nothing known) at most."""
        across = np.array([-self.value[1], self.value[0]]) / max(self.amplitude, 1e-300)
        # Where the covariance lies along the vector, as a template's does, rounding may leave less than nothing across it.
        variance = across @ self.covariance @ across
        spread = float(np.sqrt(variance if not variance < 0.0 else 0.0)) / max(self.amplitude, 1e-300)
        return float(min(spread, np.pi / np.sqrt(3.0)))
