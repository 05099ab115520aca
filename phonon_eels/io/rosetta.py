"""The Nion reader behind RosettaSciIO's interface, for programs that hand a reader to HyperSpy.

RosettaSciIO finds its readers by the folders of its own package: it has no entry point for others. What it allows is a
reader handed over in the call, ``hs.load("scan.ndata1", file_format=phonon_eels.io.rosetta)``, and a list of readers
in memory, which `phonon_eels.signals.register_nion_reader` extends for the running program.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phonon_eels.io.vendor import load_signals

SPECIFICATION = {
    "name": "Nion Swift",
    "name_aliases": ["NionSwift", "ndata"],
    "description": "Nion Swift library and export files, read by phonon_eels.",
    "full_support": False,
    # `.h5` belongs to several readers of RosettaSciIO: with file_format="Nion Swift" it is read too.
    "file_extensions": ["ndata", "ndata1", "nhdf", "nsproj"],
    "default_extension": 1,
    "writes": False,
    "non_uniform_axis": False,
    "api": "phonon_eels.io.rosetta",
}
"""What RosettaSciIO's own readers say about themselves in their `specifications.yaml`."""


def file_reader(filename: str | Path, lazy: bool = False, **_: Any) -> list[dict[str, Any]]:
    """Read every data item of a Nion Swift file or project.

    Parameters
    ----------
    filename
        ``.ndata .ndata1 .h5 .nhdf .nsproj``.
    lazy
        Leave the values on the disk (dask).

    Returns
    -------
    list of dict
        ``data axes metadata original_metadata``, as every reader of RosettaSciIO.

    Raises
    ------
    InputFileError
        If the file is missing, damaged or of another format.
    """
    return [
        {
            "data": item.data,
            "axes": [dict(axis) for axis in item.axes],
            "metadata": dict(item.metadata),
            "original_metadata": dict(item.original),
        }
        for item in load_signals(Path(filename), lazy=lazy)
    ]
