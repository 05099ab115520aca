"""The spectrum of the beam without the sample: from a marked vacuum region, or from a scan of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.errors import DataError
from phonon_eels.forward.scan import Alignment
from phonon_eels.forward.sums import aligned_sums
from phonon_eels.forward.zero_loss import estimate_shape, fit_zero_loss, search_peaks
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED
from phonon_eels.spectrum_image import REGIONS, SpectrumImage

if TYPE_CHECKING:
    import pandas as pd

    from phonon_eels.backends.base import Backend
    from phonon_eels.steps.spec import StepContext

ALOOF_NM = 2000.0
"""Closer to the sample the beam still excites its optical phonons without touching it (aloof beam): their field reaches
out by about v/ω, 2.3 µm at 38 meV and 60 keV."""


@dataclass(frozen=True)
class VacuumReference:
    """Vacuum spectra added with their zero-loss peaks on one channel.

    Attributes
    ----------
    electrons
        Summed electrons, dark level taken off, (channels,).
    variance
        Variance of the sum, electrons squared, read noise included, (channels,).
    energies_mev
        Energy loss of the channels from the mean zero-loss centre, (channels,).
    n_spectra
        Spectra in the sum.
    distance_nm
        Mean distance of the spectra from the nearest position of the sample; NaN where it is not known (a scan of its own).
    n_too_close
        Spectra nearer to the sample than `ALOOF_NM`.
    """

    electrons: np.ndarray
    variance: np.ndarray
    energies_mev: np.ndarray
    n_spectra: int
    distance_nm: float
    n_too_close: int

    def table(self) -> pd.DataFrame:
        """Return the spectrum as a table."""
        import pandas as pd

        columns = {"energy_loss_mev": self.energies_mev, "counts_e": self.electrons, "counts_e_std": self.variance**0.5}
        return pd.DataFrame(columns)

    @property
    def sentence(self) -> str:
        """What a reader must know about the reference."""
        if not np.isfinite(self.distance_nm):
            return f"vacuum reference: {self.n_spectra} spectra of a file of their own; its distance from the sample is not known"
        if self.n_too_close:
            return (
                f"vacuum reference: {self.n_too_close} of {self.n_spectra} spectra lie closer to the sample than "
                f"{ALOOF_NM / 1000:g} µm (mean distance {self.distance_nm:.3g} nm): the aloof beam excites phonons there, "
                f"so the reference is not free of them"
            )
        return f"vacuum reference: {self.n_spectra} spectra, mean distance {self.distance_nm:.3g} nm from the sample"


def vacuum_reference(
    image: SpectrumImage, center_mev: np.ndarray, backend: Backend, *, whole_scan: bool = False
) -> VacuumReference:
    """Add the vacuum spectra of an image, each moved by whole channels.

    Parameters
    ----------
    image
        Raw counts with `regions`, or a scan of vacuum alone.
    center_mev
        Zero-loss centre of every position, (rows, columns), NaN where there is none; of vacuum positions too, as
        `estimate_centers` gives it.
    whole_scan
        Every position is vacuum.

    Raises
    ------
    DataError
        If no position is vacuum, or none has a zero-loss peak.
    """
    marked = np.ones(image.shape[:2], bool) if whole_scan else image.region("vacuum")
    if not marked.any():
        raise DataError("no position is marked as vacuum; mark some with masks.files, or give masks.vacuum_file")
    alignment = Alignment.from_center(np.where(marked, center_mev, np.nan), image)
    found = alignment.found
    if not found.any():
        raise DataError("no zero-loss peak was found in the vacuum region; look at the file with `phonon-eels inspect`")
    first = -int(alignment.channel[found].max())
    n = image.energy.n_channels + int(np.ptp(alignment.channel[found]))
    total, squares = aligned_sums(image, alignment, first, n, found.astype(float)[None], backend)
    # Only channels that every spectrum has: a sum with fewer spectra at its ends is no spectrum.
    inside = slice(-first - int(alignment.channel[found].min()), image.energy.n_channels)
    channels = first + np.arange(n)[inside]
    remainder = float(alignment.shift_mev[found].mean())
    distance = np.full(marked.shape, np.nan) if whole_scan else distance_from_sample_nm(image)
    near = distance[found] < ALOOF_NM
    return VacuumReference(
        electrons=total[0][inside],
        variance=squares[0][inside],
        energies_mev=channels * image.energy.dispersion_mev - remainder,
        n_spectra=int(found.sum()),
        distance_nm=float(distance[found].mean()),
        n_too_close=int(near.sum()),
    )


def reference_of_scan(vacuum: SpectrumImage, image: SpectrumImage, backend: Backend) -> VacuumReference:
    """Return the reference from a scan of vacuum alone, taken at the dispersion of `image`.

    Raises
    ------
    DataError
        If the dispersions differ by more than 0.1 %, or the scan has no zero-loss peak.
    """
    own, wanted = vacuum.energy.dispersion_mev, image.energy.dispersion_mev
    if abs(own - wanted) > 1e-3 * wanted:
        raise DataError(
            f"the vacuum scan has {own:g} meV per channel, the scan {wanted:g}: a reference must be taken at the same "
            f"dispersion; leave masks.vacuum_file out, or mark vacuum in the scan itself"
        )
    search = search_peaks(vacuum, slice(0, vacuum.energy.n_channels), backend)
    shape = estimate_shape(vacuum, search, backend)
    _, alignment, fit = fit_zero_loss(vacuum, search, shape, 1.5, False, backend)
    center = vacuum.energy.offset_mev + own * alignment.channel + fit.params[..., 1]
    fitted = np.isin(fit.status, (CONVERGED, AT_BOUND))
    return vacuum_reference(vacuum, np.where(fitted, center, np.nan), backend, whole_scan=True)


def known_reference(context: StepContext, step: str = "align_zlp") -> VacuumReference | None:
    """Return the vacuum reference that an earlier step found, None where there is none.

    Parameters
    ----------
    context
        With tables and summaries of `step`: `align_zlp` holds it whatever it comes from.
    """
    table = context.tables.get(step, {}).get("vacuum_reference")
    told = context.summaries.get(step, {}).get("vacuum_reference")
    if table is None or not told:
        return None
    return VacuumReference(
        electrons=table["counts_e"].to_numpy(dtype=float),
        variance=table["counts_e_std"].to_numpy(dtype=float) ** 2,
        energies_mev=table["energy_loss_mev"].to_numpy(dtype=float),
        n_spectra=int(told["n_spectra"]),
        distance_nm=float("nan") if told["distance_nm"] is None else float(told["distance_nm"]),
        n_too_close=int(told["n_too_close"]),
    )


def reference_summary(reference: VacuumReference) -> dict[str, Any]:
    """Return what a summary says about the reference."""
    return {
        "n_spectra": reference.n_spectra,
        "distance_nm": reference.distance_nm,
        "n_too_close": reference.n_too_close,
        "smallest_distance_wanted_nm": ALOOF_NM,
        "electrons": float(reference.electrons.sum()),
    }


def distance_from_sample_nm(image: SpectrumImage) -> np.ndarray:
    """Return the distance of every position from the nearest one of the sample (not vacuum, not a hole), (rows, columns)."""
    from scipy.ndimage import distance_transform_edt

    empty = image.region("vacuum") | image.region("hole")
    steps = [axis.step_nm if axis.n > 1 else 1.0 for axis in image.scan]
    return np.asarray(distance_transform_edt(empty, sampling=steps))


def region_counts(image: SpectrumImage) -> dict[str, int]:
    """Return how many positions each region holds."""
    if image.regions is None:
        return {"sample": image.scan[0].n * image.scan[1].n}
    return {name: int((image.regions == code).sum()) for code, name in enumerate(REGIONS)}
