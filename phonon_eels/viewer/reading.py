"""What napari calls to open files, folders and samples. No Qt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonon_eels.viewer.layers import Layer, first_layers, names_to_come

if TYPE_CHECKING:
    from phonon_eels.viewer.sessions import Session

PathOrPaths = str | Sequence[str]
NO_LAYERS = [(None,)]
"""napari's word for "read, and there is nothing to show"."""
SAMPLES = ("bi2212_modulated", "bi2212_null")


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[Layer]] | None:
    """Return the reader of a spectrum file or a folder, None for what is not ours."""
    from phonon_eels.io.vendor import SUFFIXES

    paths = _paths(path)
    ours = [
        # A folder comes here only where the user chose us for it: what it lacks is said when it is opened.
        one.is_dir() or one.suffix.lower() in SUFFIXES
        for one in paths
    ]
    return read_or_tell if paths and all(ours) else None


def read_layers(path: PathOrPaths) -> list[Layer]:
    """Open files and results folders as layers: the first ones of each; where there is a window, the others follow by themselves.

    Raises
    ------
    PhononEELSError
        If one cannot be read; napari shows the sentence.
    """
    from phonon_eels.viewer.opening import open_path

    sessions = [session for one in _paths(path) for session in open_path(one)]
    layers = [first_layers(session) for session in sessions]
    for session, first in zip(sessions, layers, strict=True):
        session.to_come[:] = names_to_come(session, {keywords["name"] for _, keywords, _ in first})
    _fill_later(sessions)
    return list(chain.from_iterable(layers))


def read_or_tell(path: PathOrPaths) -> list[Any]:
    """Open files and results folders for napari: what cannot be read is said in our words, the others open.

    napari would say of an exception only that the plugin failed, and ask for another plugin.
    """
    from phonon_eels.viewer.notices import tell_problem

    layers: list[Any] = []
    for one in _paths(path):
        try:
            layers += read_layers(str(one))
        except Exception as problem:  # at the border to napari, as in the slots of the panels
            tell_problem(problem)
    return layers or NO_LAYERS


def _fill_later(sessions: list[Session]) -> None:
    """Let the other maps follow once napari has shown the first ones, where there is a window for them."""
    from qtpy.QtWidgets import QApplication

    if QApplication.instance() is not None:
        from phonon_eels.viewer.filling import fill

        for session in sessions:
            fill(session)


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


def open_modulated() -> list[Any]:
    """Open the simulated Bi2212 scan with a modulation."""
    return read_or_tell(str(sample_path(SAMPLES[0])))


def open_null() -> list[Any]:
    """Open its twin without a modulation."""
    return read_or_tell(str(sample_path(SAMPLES[1])))
