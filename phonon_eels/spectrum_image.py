"""The data every step takes and returns: frozen, with units, no algorithms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from phonon_eels.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    Array = Any  # numpy, dask or cupy array

Source = Literal["given", "measured", "assumed"]

REGIONS = ("sample", "vacuum", "hole", "contamination", "edge", "excluded")
"""What a position can be marked as, by code; only those of the sample (0) are analysed."""


@dataclass(frozen=True)
class EnergyAxis:
    """Energy loss of the channels; loss is positive, gain negative.

    Attributes
    ----------
    offset_mev
        Energy loss at the *centre* of channel 0.
    dispersion_mev
        Width of a channel, positive.
    n_channels
        Number of channels.

    Examples
    --------
    >>> axis = EnergyAxis(offset_mev=-60.0, dispersion_mev=0.5, n_channels=352)
    >>> axis.last_mev
    115.5
    >>> axis.channel(78.0)
    276.0
    >>> axis.window(70.0, 85.0, "fit_peaks.window_mev")
    slice(260, 291, None)
    """

    offset_mev: float
    dispersion_mev: float
    n_channels: int

    @property
    def energies_mev(self) -> np.ndarray:
        """Energy loss at the centre of each channel, shape (n_channels,)."""
        return self.offset_mev + self.dispersion_mev * np.arange(self.n_channels)

    @property
    def last_mev(self) -> float:
        """Energy loss at the centre of the last channel."""
        return self.offset_mev + self.dispersion_mev * (self.n_channels - 1)

    def channel(self, energy_loss_mev: float) -> float:
        """Return the fractional channel number at an energy loss."""
        return (energy_loss_mev - self.offset_mev) / self.dispersion_mev

    def window(self, low_mev: float, high_mev: float, name: str) -> slice:
        """Return the channels whose centres lie in [low_mev, high_mev].

        Parameters
        ----------
        name
            The setting the window comes from, for the message.

        Raises
        ------
        DataError
            If the window leaves the axis by more than half a channel or holds no channel.
        """
        first = int(np.ceil(self.channel(low_mev) - 1e-9))
        last = int(np.floor(self.channel(high_mev) + 1e-9))
        if first < 0 or last >= self.n_channels or last < first:
            raise DataError(
                f"{name} = {low_mev:g} … {high_mev:g} meV does not fit the energy axis, which runs from "
                f"{self.offset_mev:g} to {self.last_mev:g} meV in steps of {self.dispersion_mev:g} meV; "
                f"choose a window inside it"
            )
        return slice(first, last + 1)


@dataclass(frozen=True)
class ScanAxis:
    """One direction of the scan: `name` is "row" or "column"."""

    name: str
    step_nm: float
    n: int
    offset_nm: float = 0.0

    @property
    def positions_nm(self) -> np.ndarray:
        """Coordinate of each position in nm, shape (n,)."""
        return self.offset_nm + self.step_nm * np.arange(self.n)


@dataclass(frozen=True)
class NoiseModel:
    """How detector numbers y relate to electrons: z = (y - dark_level) / gain has variance mean + read_noise_e².

    Attributes
    ----------
    gain
        Detector counts per electron.
    dark_level
        Detector counts per channel without electrons (0 after dark correction).
    read_noise_e
        Standard deviation per channel and position, in electrons, all frames of the sum included.
    noise_correlation
        True gain (plateau of variance/mean over channel bins) over the single-channel variance/mean; 1 if channels are independent.
    source
        Where each of the four comes from: "given", "measured" or "assumed".
    denoised
        True after a denoiser: the noise is correlated and likelihoods of raw counts are refused.
    """

    gain: float = 1.0
    dark_level: float = 0.0
    read_noise_e: float = 0.0
    noise_correlation: float = 1.0
    source: Mapping[str, Source] = field(default_factory=dict)
    denoised: bool = False

    def of_share(self, share: float) -> NoiseModel:
        """Return the noise of a sum of more or fewer frames: dark levels add, read noise adds in squares."""
        return replace(self, dark_level=self.dark_level * share, read_noise_e=self.read_noise_e * share**0.5)


@dataclass(frozen=True)
class Acquisition:
    """How the scan was taken. None means unknown; nothing is guessed silently."""

    beam_energy_kev: float | None = None
    convergence_semi_angle_mrad: float | None = None
    collection_semi_angle_mrad: float | None = None
    geometry: Literal["on-axis", "off-axis"] | None = None
    temperature_k: float | None = None
    dwell_time_s: float | None = None
    n_frames: int = 1
    instrument: str | None = None


@dataclass(frozen=True)
class SpectrumImage:
    """A spectrum image: (rows, columns, channels), never another order inside the package.

    Attributes
    ----------
    counts
        Detector counts, (rows, columns, channels); numpy, or dask with whole spectra in every chunk.
    variance
        Variance of `counts` where a step has resampled or subtracted (same shape), else None and `noise` holds.
    bad
        True where a channel must not be used (repaired spike, saturation), same shape as `counts`, or None.
    haadf
        Simultaneous dark-field image, (rows, columns), or None.
    frames
        Raw frames before registration, (frames, rows, columns, channels), or None for a single frame.
    haadf_frames
        Dark-field image of each frame, (frames, rows, columns), or None.
    halves
        Registered sums of half of the frames each, (2 or 4, rows, columns, channels), to compare in pairs; or None.
    regions
        What the user marked every position as, codes of `REGIONS`, (rows, columns) of uint8; None: all is sample.
    title
        Name of the dataset.
    """

    counts: Array
    energy: EnergyAxis
    scan: tuple[ScanAxis, ScanAxis]
    noise: NoiseModel = field(default_factory=NoiseModel)
    acquisition: Acquisition = field(default_factory=Acquisition)
    variance: Array | None = None
    bad: Array | None = None
    haadf: np.ndarray | None = None
    frames: Array | None = None
    haadf_frames: np.ndarray | None = None
    halves: Array | None = None
    regions: np.ndarray | None = None
    title: str = ""

    def __post_init__(self) -> None:
        want = (self.scan[0].n, self.scan[1].n, self.energy.n_channels)
        if tuple(self.counts.shape) != want:
            raise DataError(
                f"counts have shape {tuple(self.counts.shape)}, the axes say (rows, columns, channels) = {want}"
            )
        for name in ("variance", "bad"):
            other = getattr(self, name)
            if other is not None and tuple(other.shape) != want:
                raise DataError(f"{name} has shape {tuple(other.shape)}, the counts have {want}; both must agree")
        if self.halves is not None and tuple(self.halves.shape) not in ((2, *want), (4, *want)):
            raise DataError(
                f"the halves have shape {tuple(self.halves.shape)}, they must have {(2, *want)} or {(4, *want)}"
            )
        if self.regions is not None and tuple(self.regions.shape) != want[:2]:
            raise DataError(f"the regions have shape {tuple(self.regions.shape)}, the scan {want[:2]}; both must agree")
        if self.haadf is not None and tuple(self.haadf.shape) != want[:2]:
            raise DataError(
                f"the HAADF has shape {tuple(self.haadf.shape)}, the scan {want[:2]} (rows, columns); both must agree"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(rows, columns, channels)."""
        return (self.scan[0].n, self.scan[1].n, self.energy.n_channels)

    @property
    def masked(self) -> np.ndarray | None:
        """True where a position is not of the sample and takes no part, (rows, columns); None if all take part."""
        return None if self.regions is None else np.asarray(self.regions) != 0

    def region(self, name: str) -> np.ndarray:
        """Return True where a position is marked as `name` (of `REGIONS`), (rows, columns)."""
        if self.regions is None:
            return np.full(self.shape[:2], name == REGIONS[0])
        return np.asarray(self.regions) == REGIONS.index(name)

    def with_(self, **changes: Any) -> SpectrumImage:
        """Return a copy with some fields replaced."""
        return replace(self, **changes)


@dataclass(frozen=True)
class StepResult:
    """What a step leaves behind.

    Attributes
    ----------
    image
        The new spectrum image if the step changed it, else None (the next step reads the one before).
    maps
        Named maps over (row, column) and perhaps (mode, …), with ``units`` in every variable's attributes,
        ``<name>_std`` beside each estimate and an integer ``status`` map with ``flag_values``/``flag_meanings``; or None.
    tables
        Name → pandas table; column names end in their unit, as in ``energy_mev``.
    summary
        JSON-ready numbers and words of the step: quantities as {"value", "std", "unit", "status"}.
    messages
        Plain sentences for the log and the report (what was skipped and why, what to look at).
    skipped
        Reason in one sentence if the step had nothing to do or could not, else None.
    """

    image: SpectrumImage | None = None
    maps: xr.Dataset | None = None
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[str, ...] = ()
    skipped: str | None = None
