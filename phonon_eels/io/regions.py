"""Regions that the user marked: vacuum, holes, contamination, edges, from images, label images and polygons.

Read are

- label images and pictures (``.tif .png .npy``) of the scan's shape, also a napari Labels layer saved to a file: a
  value is a region, 0 is none;
- a napari Shapes layer saved as ``.csv`` (columns ``index, shape-type, vertex-index, axis-0, axis-1``), in positions;
- polygons in ``.yaml`` or ``.json``: ``{unit: position | nm, polygons: [{kind: vacuum, vertices: [[row, column], …]}]}``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.errors import ConfigError, DataError, InputFileError
from phonon_eels.io.vendor import load_array_image
from phonon_eels.spectrum_image import REGIONS, SpectrumImage

if TYPE_CHECKING:
    from phonon_eels.config.settings import MarkedFile

MAX_FILE_BYTES = 20_000_000
MAX_VERTICES = 100_000
PICTURES = (".tif", ".tiff", ".png", ".npy", ".bmp", ".jpg", ".jpeg", ".gif")
POLYGONS = (".yaml", ".yml", ".json")


def mark_regions(image: SpectrumImage, files: Sequence[MarkedFile]) -> SpectrumImage:
    """Return the image with the regions of the files; where two overlap the later file wins.

    Parameters
    ----------
    image
        Spectrum image as it was read; the files are for its scan, before any frame was moved.
    files
        See `MarkedFile`.

    Raises
    ------
    InputFileError
        If a file cannot be read.
    DataError
        If an image has another shape than the scan, a polygon lies outside it, or nothing of the sample is left.
    """
    if not files:
        return image
    regions = np.zeros(image.shape[:2], dtype=np.uint8)
    for file in files:
        found = read_regions(file, image)
        regions = np.where(found > 0, found, regions)
    if (regions > 0).all():
        raise DataError("masks.files mark every position: nothing of the sample is left; look at the files' values")
    return image.with_(regions=regions)


def read_regions(file: MarkedFile, image: SpectrumImage) -> np.ndarray:
    """Return the codes of `REGIONS` at every position, (rows, columns) of uint8, 0 where the file marks nothing."""
    path = Path(file.path)
    suffix = path.suffix.lower()
    if not path.is_file():
        raise InputFileError(f"{path}: the mask file does not exist; check masks.files")
    if path.stat().st_size > MAX_FILE_BYTES + 16 * image.scan[0].n * image.scan[1].n:
        raise InputFileError(f"{path}: {path.stat().st_size} bytes are too many for a mask of this scan")
    if suffix in PICTURES:
        return _from_labels(load_array_image(path), file, image, path)
    if suffix == ".csv":
        shapes = [(file.kind, vertices) for vertices in _napari_shapes(path)]
        return _drawn(shapes, image, path, 1.0, 1.0)
    if suffix in POLYGONS:
        return _from_polygons(_tree(path), file, image, path)
    raise InputFileError(
        f"{path}: a mask ends in {' '.join((*PICTURES, '.csv', *POLYGONS))}; save the Labels layer as .tif, "
        f"or the shapes as .csv"
    )


def _from_labels(found: np.ndarray, file: MarkedFile, image: SpectrumImage, path: Path) -> np.ndarray:
    if found.ndim == 3 and found.shape[-1] in (3, 4):  # a coloured picture: black is nothing
        found = found[..., :3].max(axis=-1)
    if found.shape != image.shape[:2]:
        raise DataError(
            f"{path}: the mask has shape {found.shape}, the scan {image.shape[:2]} (rows, columns); "
            f"draw it on an image of the scan's own size"
        )
    if found.dtype.kind not in "biuf" or not np.all(np.isfinite(found)):
        raise InputFileError(f"{path}: the mask holds values that are no finite numbers; save it as whole numbers")
    if not file.labels:
        return np.where(found != 0, REGIONS.index(file.kind), 0).astype(np.uint8)
    values = {float(value) for value in np.unique(found)} - {0.0}
    unknown = sorted(values - {float(label) for label in file.labels})
    if unknown:
        raise ConfigError(
            f"masks.files: {path} holds the values {', '.join(f'{value:g}' for value in unknown)}, which "
            f"labels does not name; add them, as labels: {{{unknown[0]:g}: vacuum}}"
        )
    regions = np.zeros(found.shape, dtype=np.uint8)
    for label, kind in file.labels.items():
        regions[found == label] = REGIONS.index(kind)
    return regions


def _from_polygons(tree: Any, file: MarkedFile, image: SpectrumImage, path: Path) -> np.ndarray:
    listed = tree.get("polygons") if isinstance(tree, Mapping) else None
    if not isinstance(listed, list) or not listed:
        raise InputFileError(f"{path}: needs `polygons`, a list of {{kind: vacuum, vertices: [[row, column], …]}}")
    unit = tree.get("unit", "position")
    if unit not in ("position", "nm"):
        raise InputFileError(f"{path}: unit = {unit!r}; allowed are position and nm")
    shapes = []
    for number, polygon in enumerate(listed):
        kind = polygon.get("kind", file.kind) if isinstance(polygon, Mapping) else None
        if kind not in REGIONS[1:]:
            raise InputFileError(
                f"{path}: polygon {number} has the kind {kind!r}; allowed are {', '.join(REGIONS[1:])}"
            )
        shapes.append((str(kind), _vertices(polygon.get("vertices"), f"{path}: polygon {number}")))
    rows, columns = image.scan
    if unit == "nm":
        shapes = [(kind, vertices - np.array([rows.offset_nm, columns.offset_nm])) for kind, vertices in shapes]
        return _drawn(shapes, image, path, rows.step_nm, columns.step_nm)
    return _drawn(shapes, image, path, 1.0, 1.0)


def _drawn(
    shapes: Sequence[tuple[str, np.ndarray]], image: SpectrumImage, path: Path, row_step: float, column_step: float
) -> np.ndarray:
    """Fill polygons: a position belongs to one if its centre lies inside."""
    from skimage.draw import polygon2mask

    regions = np.zeros(image.shape[:2], dtype=np.uint8)
    for number, (kind, vertices) in enumerate(shapes):
        inside = polygon2mask(regions.shape, vertices / np.array([row_step, column_step]))
        if not inside.any():
            raise DataError(
                f"{path}: polygon {number} holds no position of the scan of {image.shape[:2]} (rows, columns); "
                f"vertices are [row, column], in positions unless the file says unit: nm"
            )
        regions[inside] = REGIONS.index(kind)
    return regions


def _napari_shapes(path: Path) -> list[np.ndarray]:
    """Polygons of a Shapes layer that napari saved."""
    found: dict[str, list[list[str]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        names = [name for name in (reader.fieldnames or []) if name.startswith("axis-")]
        if not {"index", "shape-type"} <= set(reader.fieldnames or []) or len(names) < 2:
            raise InputFileError(
                f"{path}: is no Shapes layer saved by napari, whose columns are index, shape-type, vertex-index, "
                f"axis-0, axis-1; save the layer anew"
            )
        for line in reader:
            if line["shape-type"] not in ("polygon", "rectangle"):
                raise InputFileError(
                    f"{path}: a shape of type {line['shape-type']!r} has no vertices to fill; draw polygons or rectangles"
                )
            # Layers over a cube have the energy first: rows and columns are the last two.
            found.setdefault(line["index"], []).append([line[name] or "" for name in names[-2:]])
            if sum(map(len, found.values())) > MAX_VERTICES:
                raise InputFileError(f"{path}: more than {MAX_VERTICES} vertices; draw a simpler shape")
    return [_vertices(points, f"{path}: shape {index}") for index, points in found.items()]


def _vertices(points: Any, where: str) -> np.ndarray:
    try:
        vertices = np.asarray(points, dtype=float)
    except (TypeError, ValueError):
        vertices = np.empty(0)
    if vertices.ndim != 2 or vertices.shape[1:] != (2,) or not 3 <= len(vertices) <= MAX_VERTICES:
        raise InputFileError(f"{where} needs at least three vertices [row, column] of numbers")
    if not np.all(np.isfinite(vertices)) or np.abs(vertices).max() > 1e9:
        raise InputFileError(f"{where} has a vertex that is no finite place")
    return vertices


def _tree(path: Path) -> Any:
    """Read YAML or JSON; nothing in it can run code."""
    import yaml

    if path.stat().st_size > 1_000_000:
        raise InputFileError(f"{path}: larger than 1 MB, which no list of polygons is")
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        return json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as problem:
        raise InputFileError(f"{path}: cannot be read ({' '.join(str(problem).split())[:200]})") from problem
