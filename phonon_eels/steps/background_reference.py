"""A measured zero-loss peak as background: from vacuum in the scan, or from a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.errors import DataError
from phonon_eels.kernels.background_shapes import HEADER
from phonon_eels.steps.instrument import block_variance
from phonon_eels.steps.vacuum import known_reference

if TYPE_CHECKING:
    from phonon_eels.config.settings import SubtractZlp
    from phonon_eels.spectrum_image import SpectrumImage
    from phonon_eels.steps.spec import StepContext


@dataclass(frozen=True)
class Reference:
    """A measured peak as the kernels read it, its variance (values,), and what the user is told of it."""

    table: np.ndarray
    variance: np.ndarray
    message: str

    def variance_at(self, energies_mev: np.ndarray) -> np.ndarray:
        """Return the variance of the peak of unit height at some energies; its shift and width are left out."""
        own = self.table[0] + self.table[1] * np.arange(self.variance.size)
        return np.asarray(np.interp(energies_mev, own, self.variance))


def measured_reference(image: SpectrumImage, settings: SubtractZlp, half_width: int, context: StepContext) -> Reference:
    """Return the reference that the settings name, else the vacuum that an earlier step has kept.

    Raises
    ------
    DataError
        If the region lies outside the scan, the file cannot be read, or there is no peak.
    """
    if settings.reference_region is not None:
        return _from_region(image, settings.reference_region, half_width)
    if settings.reference_file is None:
        return _from_masks(context)
    name = str(settings.reference_file)
    try:
        columns = np.loadtxt(name, delimiter="," if Path(name).suffix == ".csv" else None, ndmin=2)
    except (OSError, ValueError) as problem:
        raise DataError(
            f"subtract_zlp.reference_file = {name} cannot be read ({problem}); it must hold two columns of numbers: energy in "
            f"meV and counts (separated by commas in a .csv, else by blanks; lines of words start with #)"
        ) from problem
    if columns.shape[1] < 2:
        raise DataError(f"subtract_zlp.reference_file = {name} has one column; it needs energy in meV and counts")
    table = reference_table(columns[:, 0], columns[:, 1])[0]
    message = (
        f"the zero-loss peak of {name} was scaled, shifted and stretched to the windows; its own noise is not known and not in "
        f"the variance, and its phonons, if it is no vacuum, are subtracted too"
    )
    return Reference(table, np.zeros(columns.shape[0]), message)


def _from_masks(context: StepContext) -> Reference:
    known = known_reference(context)
    if known is None:
        raise DataError(
            "subtract_zlp.method = reference has no vacuum: mark some with masks.files, give masks.vacuum_file, or give "
            "subtract_zlp.reference_region or reference_file"
        )
    table, height = reference_table(known.energies_mev, known.electrons)
    message = f"{known.sentence}; it was scaled, shifted and stretched to the windows; its noise is in the variance"
    return Reference(table, known.variance / height**2, message)


def _from_region(image: SpectrumImage, region: tuple[int, int, int, int], half_width: int) -> Reference:
    first_row, last_row, first_column, last_column = region
    rows, columns = image.shape[:2]
    if not (0 <= first_row <= last_row < rows and 0 <= first_column <= last_column < columns):
        raise DataError(
            f"subtract_zlp.reference_region = {list(region)} does not lie in the scan of {rows} rows and {columns} columns; give "
            f"first row, last row, first column, last column, counted from 0"
        )
    part = slice(first_row, last_row + 1), slice(first_column, last_column + 1)
    counts = np.asarray(image.counts[part], dtype=np.float64)
    given = None if image.variance is None else np.asarray(image.variance[part])
    variance = block_variance(counts, given, image.noise, half_width)
    finite = np.isfinite(counts).all(axis=2)
    if not finite.any():
        raise DataError(
            f"subtract_zlp.reference_region = {list(region)} holds no finite spectrum; choose another region"
        )
    n = int(finite.sum())
    table, height = reference_table(image.energy.energies_mev, counts[finite].mean(axis=0) - image.noise.dark_level)
    own = np.nan_to_num(variance[finite].mean(axis=0)) / n / height**2
    message = (
        f"the mean zero-loss peak of {n} positions (rows {first_row} to {last_row}, columns {first_column} to {last_column}) was "
        f"scaled, shifted and stretched to the windows; its noise is in the variance, though common to all positions. Closer "
        f"than about 2 µm to the specimen, aloof phonons are in it and are subtracted too"
    )
    return Reference(table, own, message)


def reference_table(energies_mev: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, float]:
    """Return a measured zero-loss peak as the kernels read it (height 1, maximum at 0 meV), and the height it had.

    Raises
    ------
    DataError
        If the energies are not equally spaced, or there is no peak to use.
    """
    steps = np.diff(energies_mev)
    if energies_mev.size < 8 or not np.isfinite(counts).all() or not np.allclose(steps, steps[0], rtol=1e-3):
        raise DataError(
            "the reference of subtract_zlp needs at least 8 finite counts at equally spaced, rising energies in meV; "
            "check subtract_zlp.reference_file or reference_region"
        )
    top = int(np.argmax(counts))
    above = np.flatnonzero(counts >= 0.5 * counts[top])
    if not (counts[top] > 0.0 and 0 < top < counts.size - 1) or steps[0] <= 0.0:
        raise DataError("the reference of subtract_zlp has no zero-loss peak; choose a vacuum spectrum that holds it")
    left, middle, right = counts[top - 1 : top + 2]
    bend = left - 2.0 * middle + right
    place = energies_mev[top] + (0.5 * (left - right) / bend if bend < 0.0 else 0.0) * steps[0]
    fwhm = max(above[-1] - above[0] + 1, 1) * steps[0]
    table = np.concatenate([[energies_mev[0] - place, steps[0], fwhm], counts / counts[top]])
    assert table.size == HEADER + counts.size
    return table, float(counts[top])
