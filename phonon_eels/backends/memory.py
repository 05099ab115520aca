"""How many spectra a device works on at a time: what a kernel needs for each, against the memory that is free."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from phonon_eels.errors import DeviceError

SHARE_OF_FREE = 0.8
"""The rest is for the driver, the kernels' stacks, and what the allocator rounds up."""
LARGEST_BATCH = 65_536
"""Spectra in one launch: about 500 threads for each of the 132 multiprocessors of the largest devices; more gains nothing."""
STREAMS = 2
"""While one batch is worked on, the next is copied in and the last one out."""


@dataclass(frozen=True)
class Footprint:
    """Device memory of a kernel's arguments.

    Attributes
    ----------
    shared_bytes
        Of arrays that all spectra share, once on the device.
    bytes_per_spectrum
        Of every spectrum's data, results and scratch, once per stream.
    """

    shared_bytes: int
    bytes_per_spectrum: int

    @classmethod
    def of(
        cls, shared: Iterable[tuple[tuple[int, ...], int]], per_spectrum: Iterable[tuple[tuple[int, ...], int]]
    ) -> Footprint:
        """Add up arrays given as (shape, bytes of an element)."""
        return cls(*(sum(prod(shape) * size for shape, size in arrays) for arrays in (shared, per_spectrum)))

    def total_bytes(self, batch: int, streams: int) -> int:
        """Return what batches of `batch` spectra in `streams` streams take."""
        return self.shared_bytes + streams * batch * self.bytes_per_spectrum


def batch_size(
    footprint: Footprint, free_bytes: float, n_spectra: int, *, streams: int = STREAMS, largest: int = LARGEST_BATCH
) -> int:
    """Return how many spectra to launch at a time.

    Parameters
    ----------
    free_bytes
        Free memory of the device; infinite under the simulator.
    n_spectra
        Spectra in all; at least one.

    Raises
    ------
    DeviceError
        If not even one spectrum per stream fits.
    """
    room = SHARE_OF_FREE * free_bytes - footprint.shared_bytes
    # The batch is at most the work: a small scan on a large device asks for little.
    fits = min(room / (streams * max(footprint.bytes_per_spectrum, 1)), largest, n_spectra)
    if fits < 1.0:
        raise DeviceError(
            f"device = cuda: one spectrum needs {streams * footprint.bytes_per_spectrum / 1e6:.2f} MB and all share "
            f"{footprint.shared_bytes / 1e6:.2f} MB, but {free_bytes / 1e6:.0f} MB are free on the device; end what else "
            f"uses it, or use --device cpu"
        )
    return int(fits)
