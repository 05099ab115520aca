"""Cubes as `.zspy` folders: HyperSpy opens them, and they are written and read block by block.

One spectrum image is up to four folders beside each other, each a HyperSpy signal of its own: `image.zspy` (counts,
HAADF and everything else that belongs to the image), `variance.zspy`, `bad.zspy`, `frames.zspy` and `halves.zspy`.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from phonon_eels.errors import InputFileError
from phonon_eels.io.export import signal_dictionary, spectrum_chunks
from phonon_eels.io.metadata import acquisition_to_json, noise_to_json
from phonon_eels.spectrum_image import Acquisition, EnergyAxis, NoiseModel, ScanAxis, SpectrumImage

Progress = Callable[[int, int], None]
Store = Callable[[Sequence[Any], Sequence[Any], Callable[[int], None]], None]

CHUNK_BYTES = 8_000_000
_STRIPE_BYTES = 256_000_000  # a block of whole rows is not made larger than this, to bound the memory
_PARTS = ("variance", "bad", "frames", "halves")
_STACKS = ("frames", "halves")  # cubes of several exposures
_IMAGES = ("haadf", "haadf_frames", "regions")
_STATE_VERSION = 1


def _silent(done: int, total: int) -> None:
    """Report no progress."""


def write_image(
    image: SpectrumImage,
    folder: Path,
    *,
    chunk_bytes: float = CHUNK_BYTES,
    threads: int | None = None,
    progress: Progress | None = None,
    provenance: Mapping[str, Any] | None = None,
    store: Store | None = None,
) -> list[Path]:
    """Write a spectrum image into a folder, computing lazy arrays a few blocks of rows at a time.

    `read_image` gives back an equal one. To be called inside `atomic.staged`, which makes the folder appear whole.

    Parameters
    ----------
    image
        Numpy or dask arrays.
    folder
        Existing folder; gets ``image.zspy`` and, where the image has them, ``variance.zspy``, ``bad.zspy``,
        ``frames.zspy`` and ``halves.zspy``.
    chunk_bytes
        Size of a chunk of whole spectra on disk, before compression.
    threads
        Blocks computed at the same time; default: the processors of this process.
    progress
        Called with (rows written, rows in all).
    provenance
        Goes into the metadata as JSON.
    store
        ``(sources, targets, progress)`` that computes and writes in place of this process: workers of a cluster.

    Returns
    -------
    list of Path
        The folders written.
    """
    folder = Path(folder).absolute()  # workers on other machines have other working folders
    threads = threads or len(os.sched_getaffinity(0))
    arrays = {"image": image.counts, **{name: getattr(image, name) for name in _PARTS}}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    paths = {name: folder / f"{name}.zspy" for name in arrays}
    targets = {
        name: _create(image, name, array, paths[name], chunk_bytes, provenance) for name, array in arrays.items()
    }
    cubes = [name for name in arrays if name not in _STACKS]
    stacked = [(name, number) for name in _STACKS if name in arrays for number in range(int(arrays[name].shape[0]))]
    total = image.scan[0].n * (1 + len(stacked))
    report = progress or _silent
    store = store or partial(_store, threads=threads)
    store([arrays[name] for name in cubes], [targets[name] for name in cubes], lambda done: report(done, total))
    for place, (name, number) in enumerate(stacked, start=1):
        store(
            [arrays[name][number]],
            [_Frame(targets[name], number)],
            lambda done, before=place * image.scan[0].n: report(before + done, total),  # type: ignore[misc]
        )
    return list(paths.values())


def read_image(folder: Path, *, lazy: bool = True, in_memory_bytes: float = 0.0) -> SpectrumImage:
    """Read a spectrum image that `write_image` wrote; its arrays are lazy, the HAADF is in memory.

    Parameters
    ----------
    folder
        The folder that holds ``image.zspy``.
    lazy
        False: arrays are those on disk (zarr), for who looks at few of their values or none and need not load Dask.
    in_memory_bytes
        Lazy arrays up to this size are read at once instead: loading Dask's arrays takes longer than reading a small scan.

    Raises
    ------
    InputFileError
        If there is none, or it was not written by `write_image`.
    """
    folder = Path(folder).absolute()
    group = _experiment(folder / "image.zspy")
    state = _state(folder / "image.zspy", group)
    ours = group["metadata/PhononEELS"]
    open_ = partial(_lazy, in_memory_bytes=in_memory_bytes) if lazy else _on_disk
    parts = {name: open_(folder / f"{name}.zspy") for name in _PARTS if (folder / f"{name}.zspy").is_dir()}
    return SpectrumImage(
        counts=open_(folder / "image.zspy"),
        energy=EnergyAxis(**state["energy"]),
        scan=(ScanAxis(**state["scan"][0]), ScanAxis(**state["scan"][1])),
        noise=NoiseModel(**state["noise"]),
        acquisition=Acquisition(**state["acquisition"]),
        title=state["title"],
        **{name: ours[name][...] for name in _IMAGES if name in ours},
        **parts,
    )


def read_provenance(folder: Path) -> dict[str, Any]:
    """Return the provenance that stands in ``image.zspy``, empty where there is none."""
    text = _experiment(Path(folder) / "image.zspy")["metadata/PhononEELS"].attrs.get("provenance")
    return dict(json.loads(text)) if text else {}


class _Frame:
    """One frame of a 4-D zarr array, to be written like a 3-D one."""

    def __init__(self, target: Any, number: int) -> None:
        self._target, self._number = target, number
        self.shape, self.chunks = target.shape[1:], target.chunks[1:]

    def __setitem__(self, index: Any, value: Any) -> None:
        index = index if isinstance(index, tuple) else (index,)
        self._target[(self._number, *index)] = value


def _create(
    image: SpectrumImage,
    name: str,
    array: Any,
    path: Path,
    chunk_bytes: float,
    provenance: Mapping[str, Any] | None,
) -> Any:
    """Write everything of a signal but its array, and return the empty array on disk."""
    import numcodecs
    import zarr
    from rsciio.zspy import file_writer

    extra: dict[str, Any] = {"part": name}
    if provenance:
        extra["provenance"] = json.dumps(provenance, sort_keys=True)
    if name == "image":
        extra["state"] = json.dumps(_image_state(image), sort_keys=True)
        for part in _IMAGES:
            if getattr(image, part) is not None:
                extra[part] = np.ascontiguousarray(getattr(image, part))
    shape = tuple(int(size) for size in array.shape)
    header = signal_dictionary(image, np.empty((0,) * len(shape)), extra)
    header["axes"] = (
        header["axes"] if len(shape) == 3 else [{**header["axes"][0], "size": shape[0]}, *header["axes"][1:]]
    )
    if name != "image":
        header["metadata"]["General"]["title"] = f"{image.title or 'image'}: {name}"
        header["metadata"]["Signal"] = {"signal_type": "EELS" if name in _STACKS else ""}
    with warnings.catch_warnings():
        # zarr 2 announces that zarr 3 drops this store; the dependency is pinned below 3.
        warnings.simplefilter("ignore", FutureWarning)
        store = zarr.storage.NestedDirectoryStore(str(path))
        file_writer(store, header, write_dataset=False, consolidate=False, show_progressbar=False)
        group = zarr.open_group(store, mode="r+")
        experiment = next(iter(group["Experiments"].groups()))[1]
        target = experiment.create_dataset(
            "data",
            shape=shape,
            dtype=array.dtype,
            chunks=spectrum_chunks(shape, array.dtype, chunk_bytes),
            compressor=numcodecs.Blosc(cname="zstd", clevel=1, shuffle=numcodecs.Blosc.SHUFFLE),
            # Blocks that are computed need not end where chunks end: two threads may share a chunk.
            synchronizer=zarr.ThreadSynchronizer(),
        )
        zarr.consolidate_metadata(store)
    return target


def _store(sources: Sequence[Any], targets: Sequence[Any], progress: Callable[[int], None], *, threads: int) -> None:
    """Compute and write a few blocks of rows at a time; arrays made from one graph are computed together."""
    edges = _row_edges(sources, targets[0].chunks)
    for start in range(0, len(edges) - 1, threads):
        low, high = edges[start], edges[min(start + threads, len(edges) - 1)]
        lazy = [(a[low:high], t) for a, t in zip(sources, targets, strict=True) if hasattr(a, "dask")]
        for array, target in zip(sources, targets, strict=True):
            if not hasattr(array, "dask"):
                target[low:high] = array[low:high]
        if lazy:
            import dask
            import dask.array as da

            whole = (slice(low, high), slice(None), slice(None))
            rows = tuple(int(size) for size in np.diff([edge for edge in edges if low <= edge <= high]))
            blocks = [_as_stripes(array, rows) for array, _ in lazy]
            stored = da.store(blocks, [t for _, t in lazy], regions=[whole] * len(lazy), lock=False, compute=False)
            dask.compute(stored, scheduler="threads", num_workers=threads)
        progress(high)


def _row_edges(sources: Sequence[Any], chunks: tuple[int, ...]) -> list[int]:
    """Rows where blocks end: those of the first lazy array, so that no block is computed twice.

    Where its blocks are smaller than chunks, those of the chunks: a chunk that is written piece by piece is
    decompressed and compressed again each time.
    """
    n_rows = int(sources[0].shape[0])
    for array in sources:
        if hasattr(array, "dask") and max(array.chunks[0]) > chunks[0]:
            return [0, *np.cumsum(array.chunks[0]).tolist()]
    return [*range(0, n_rows, chunks[0]), n_rows]


def _as_stripes(array: Any, rows: tuple[int, ...]) -> Any:
    """Bring an array to blocks of whole rows, unless these would be too large for the memory."""
    stripe = max(rows) * int(np.prod(array.shape[1:], dtype=np.int64)) * array.dtype.itemsize
    return array.rechunk((rows, -1, -1)) if stripe <= _STRIPE_BYTES else array.rechunk((rows, "auto", -1))


def _image_state(image: SpectrumImage) -> dict[str, Any]:
    """Return what is not an array, exactly: JSON keeps every bit of a float, a conversion to eV does not."""
    return {
        "version": _STATE_VERSION,
        "title": image.title,
        "energy": {name: getattr(image.energy, name) for name in EnergyAxis.__dataclass_fields__},
        "scan": [{name: getattr(axis, name) for name in ScanAxis.__dataclass_fields__} for axis in image.scan],
        "noise": noise_to_json(image.noise),
        "acquisition": acquisition_to_json(image.acquisition),
    }


def _state(path: Path, group: Any) -> dict[str, Any]:
    text = group["metadata/PhononEELS"].attrs.get("state") if "PhononEELS" in group["metadata"] else None
    if text is None:
        raise InputFileError(f"{path} was not written as a result; read it with phonon_eels.read instead")
    state: dict[str, Any] = json.loads(text)
    if state.pop("version") > _STATE_VERSION:
        raise InputFileError(f"{path} comes from a newer phonon_eels; update the program, or run the step again")
    return state


def _experiment(path: Path) -> Any:
    """Open the one signal of a `.zspy` folder."""
    import zarr

    if not path.is_dir():
        raise InputFileError(f"{path} is missing: run the step that makes it again")
    try:
        experiments = zarr.open_group(str(path), mode="r")["Experiments"]
        return next(iter(experiments.groups()))[1]
    except (KeyError, ValueError, StopIteration, zarr.errors.GroupNotFoundError) as problem:
        raise InputFileError(f"{path} is damaged ({problem}): delete it and run the step again") from problem


def _on_disk(path: Path) -> Any:
    return _experiment(path)["data"]


def _lazy(path: Path, in_memory_bytes: float) -> Any:
    array = _on_disk(path)
    if array.nbytes <= in_memory_bytes:
        return array[...]
    import dask.array as da

    return da.from_array(array, chunks=array.chunks, meta=np.empty((0,) * array.ndim, dtype=array.dtype))
