"""What napari calls to open files, folders and samples. No Qt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from phonon_eels.viewer.layers import Layer, first_layers

PathOrPaths = str | Sequence[str]
SAMPLES = ("bi2212_modulated", "bi2212_null")


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[Layer]] | None:
    """Return the reader of a spectrum file or a results folder, None for what is not ours."""
    from phonon_eels.io.vendor import SUFFIXES
    from phonon_eels.viewer.opening import result_folders

    paths = _paths(path)
    ours = [
        bool(result_folders(one)) if one.is_dir() and one.suffix != ".zspy" else one.suffix.lower() in SUFFIXES
        for one in paths
    ]
    return read_layers if paths and all(ours) else None


def read_layers(path: PathOrPaths) -> list[Layer]:
    """Open files and results folders as layers.

    Raises
    ------
    PhononEELSError
        If one cannot be read; napari shows the sentence.
    """
    from phonon_eels.viewer.opening import open_path

    return [layer for one in _paths(path) for session in open_path(one) for layer in first_layers(session)]


def _paths(path: PathOrPaths) -> list[Path]:
    return [Path(path)] if isinstance(path, str | Path) else [Path(one) for one in path]


def sample_path(name: str) -> Path:
    """Return the file of a shipped sample: ``sample_data`` in the repository, package data in a wheel.

    Raises
    ------
    InputFileError
        If it is in neither place.
    """
    from importlib import resources

    from phonon_eels.errors import InputFileError

    package = Path(str(resources.files("phonon_eels")))
    for folder in (package.parent / "sample_data", package / "sample_data"):
        if (folder / f"{name}.hspy").is_file():
            return folder / f"{name}.hspy"
    raise InputFileError(f"the sample {name}.hspy is not installed; make it with `phonon-eels simulate --sample DIR`")


def open_modulated() -> list[Layer]:
    """Open the simulated Bi2212 scan with a modulation."""
    return read_layers(str(sample_path(SAMPLES[0])))


def open_null() -> list[Layer]:
    """Open its twin without a modulation."""
    return read_layers(str(sample_path(SAMPLES[1])))
