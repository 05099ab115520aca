"""A simulation on disk: the spectrum image as HyperSpy users have it, and its truth beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonon_eels.errors import OutputError
from phonon_eels.simulate.build import Simulation

if TYPE_CHECKING:
    import xarray as xr

SUFFIXES = (".hspy", ".zspy")


def truth_paths(path: str | Path) -> tuple[Path, Path]:
    """Return where the truth of a simulated file lies: JSON tree and NetCDF maps."""
    path = Path(path)
    return path.with_name(f"{path.stem}.truth.json"), path.with_name(f"{path.stem}.truth.nc")


def write_simulation(simulation: Simulation, path: str | Path) -> tuple[Path, Path, Path]:
    """Write a simulation: `<path>`, `<stem>.truth.json` and `<stem>.truth.nc` beside it.

    Parameters
    ----------
    path
        `.hspy` (compressed, one file), or `.zspy` for scans larger than memory (chunked, written block by block when
        the simulation is lazy).

    Returns
    -------
    tuple of Path
        The three paths. The truth is written first: a spectrum image without its truth is never left behind.

    Raises
    ------
    OutputError
        If the name has another ending or something cannot be written.
    """
    from phonon_eels.io.atomic import staged_file

    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise OutputError(
            f"{path}: a simulation is written as {' or '.join(SUFFIXES)}; give the file one of these endings"
        )
    if path.suffix == ".zspy" and simulation.image.frames is not None:
        raise OutputError(
            f"{path}: several frames go into one .hspy file; give the file that ending, or make one frame"
        )
    tree, maps = truth_paths(path)
    text = json.dumps(simulation.truth, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with staged_file(tree) as temporary:
        temporary.write_text(text, encoding="utf-8")
    with staged_file(maps) as temporary:
        simulation.truth_maps.to_netcdf(temporary, engine="h5netcdf", encoding=_packed(simulation.truth_maps))
    if path.suffix == ".hspy":
        from phonon_eels.io.export import write_hspy

        write_hspy(simulation.image, path, compress=True)
    else:
        _write_zspy(simulation, path)
    return path, tree, maps


def _packed(maps: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Compress; single precision is 1e-7 of a value, far below any uncertainty."""
    packed: dict[str, dict[str, Any]] = {}
    for name, variable in maps.data_vars.items():
        packed[str(name)] = {"zlib": True, "complevel": 6, "shuffle": True}
        if variable.dtype.kind == "f":
            packed[str(name)]["dtype"] = "float32"
    return packed


def _write_zspy(simulation: Simulation, path: Path) -> None:
    """Write a `.zspy` folder block by block, at its place only when it is whole."""
    from phonon_eels.io.atomic import staged
    from phonon_eels.io.cubes import write_image

    # `staged` exchanges whole folders, so the folder that `write_image` makes inside is lifted out at the end.
    with staged(path) as folder:
        write_image(simulation.image, folder)
        inner = folder / "image.zspy"
        for entry in list(inner.iterdir()):
            entry.rename(folder / entry.name)
        inner.rmdir()
