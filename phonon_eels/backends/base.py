"""How steps ask for work on blocks of spectra, whatever the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np

Progress = Callable[[int, int], None]
Take = Callable[[int, Any], None]
WholeArray = Callable[..., Any]
"""``function(on, *arrays)`` with ``on.xp`` the array module and ``on.fft`` its Fourier transforms; see `Backend.whole_array`."""


class Backend(Protocol):
    """A place where kernels run.

    Blocks are always whole rows of the scan with all their channels, so results cannot depend on how the
    energy axis is stored; per-position results do not depend on the block size, and sums over positions must
    be formed per row and added in row order (`map_rows` returns results in row order) so that they do not either.
    """

    name: Literal["cpu", "cuda"]
    threads: int
    shares_memory: bool
    """Whether functions given to `map_rows` may write to arrays of the caller."""

    def run(self, block: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a kernel over a block of spectra: ``block(*args, **kwargs)`` on the processor, its twin on the GPU.

        Parameters
        ----------
        block
            One of the functions of this package's modules whose name ends in `_block`.

        Raises
        ------
        DeviceError
            If the GPU has no twin of it, or no room.
        """
        ...

    @property
    def xp(self) -> Any:
        """The array module: numpy, or cupy for the GPU. Only functions given to `whole_array` use it."""
        ...

    @property
    def fft(self) -> Any:
        """The Fourier transforms for its arrays: scipy.fft or cupyx.scipy.fft."""
        ...

    def whole_array(
        self, function: WholeArray, *arrays: np.ndarray, shared: Sequence[Any] = (), row_bytes: float | None = None
    ) -> Any:
        """Return ``function(on, *arrays, *shared)``: work on whole cubes and stacks, as Fourier transforms and decompositions.

        The arrays are brought to the device, and what the function returns (an array, or a tuple of them) is brought back: the
        caller sees numpy only, the function only arrays of ``on.xp``. On the processor that is a call and nothing else.

        Parameters
        ----------
        function
            Computes with ``on.xp`` and ``on.fft`` alone. One spectrum, or a vector that all share, is not worth the way.
        arrays
            Cut along their first axis together where `row_bytes` is given.
        shared
            What all rows need: arrays are brought to the device too, anything else is handed on.
        row_bytes
            Working memory of a row in bytes, where rows do not know of each other: a GPU is then given as many at a time as
            its memory holds. None: the function needs the arrays whole.

        Raises
        ------
        DeviceError
            If the GPU has no room.
        """
        ...

    def map_rows(
        self,
        function: Callable[..., Any],
        arrays: Sequence[Any],
        *,
        progress: Progress | None = None,
        take: Take | None = None,
    ) -> list[Any]:
        """Call ``function(first_row, *blocks)`` on consecutive blocks of rows and return the results in order.

        Parameters
        ----------
        function
            Gets the index of the first row and one numpy block per array; must release the GIL where it works long.
        arrays
            Arrays (numpy or dask) with rows as first axis, or None (handed on as None).
        progress
            Called with (rows done, rows in all).
        take
            Given the first row and the result of each block as they come, in any order; then none is kept, and the list is empty.
        """
        ...

    def map_cube(
        self,
        function: Callable[..., np.ndarray],
        arrays: Sequence[Any],
        *,
        dtype: Any,
        n_channels: int | None = None,
    ) -> Any:
        """Return a lazy cube made by ``function(*blocks) -> block`` on blocks of rows.

        Parameters
        ----------
        function
            Gets one numpy block per array (None stays None), returns (rows, columns, channels).
        dtype
            Type of the result.
        n_channels
            Channels of the result if they differ from the first array's.
        """
        ...
