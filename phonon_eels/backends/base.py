"""How steps ask for work on blocks of spectra, whatever the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np

Progress = Callable[[int, int], None]
Take = Callable[[int, Any], None]


class Backend(Protocol):
    """A place where kernels run.

    Blocks are always whole rows of the scan with all their channels, so results cannot depend on how the
    energy axis is stored; per-position results do not depend on the block size, and sums over positions must
    be formed per row and added in row order (`map_rows` returns results in row order) so that they do not either.
    """

    name: Literal["cpu", "cuda"]
    threads: int

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
