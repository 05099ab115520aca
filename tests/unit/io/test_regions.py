"""Masks from files: every form gives the same regions, and what is wrong is said."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from phonon_eels.config.settings import MarkedFile
from phonon_eels.errors import ConfigError, DataError, InputFileError
from phonon_eels.io.regions import mark_regions, read_regions
from phonon_eels.spectrum_image import REGIONS
from tests.unit.io.scans import small_scan

IMAGE = small_scan(rows=6, columns=8)
VACUUM, HOLE, CONTAMINATION = (REGIONS.index(name) for name in ("vacuum", "hole", "contamination"))
BOX = np.zeros((6, 8), dtype=np.uint8)
BOX[1:4, 2:6] = 1
CORNERS = [[0.5, 1.5], [0.5, 5.5], [3.5, 5.5], [3.5, 1.5]]  # around the centres of BOX


def write_tiff(path: Path, array: np.ndarray) -> Path:
    from rsciio.tiff import file_writer

    axes = [
        {"name": name, "size": size, "scale": 1.0, "offset": 0.0, "units": "", "navigate": False}
        for name, size in zip("yx", array.shape, strict=True)
    ]
    file_writer(str(path), {"data": array, "axes": axes, "metadata": {}, "original_metadata": {}})
    return path


def napari_csv(path: Path, *shapes: tuple[str, list[list[float]]]) -> Path:
    lines = ["index,shape-type,vertex-index,axis-0,axis-1"]
    for index, (kind, corners) in enumerate(shapes):
        lines += [f"{index},{kind},{number},{row},{column}" for number, (row, column) in enumerate(corners)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_every_form_of_file_marks_the_same_positions(tmp_path):
    np.save(tmp_path / "mask.npy", BOX)
    write_tiff(tmp_path / "labels.tif", BOX)
    import imageio.v3 as imageio

    imageio.imwrite(tmp_path / "mask.png", 255 * BOX)
    napari_csv(tmp_path / "shapes.csv", ("polygon", CORNERS))
    (tmp_path / "polygons.yaml").write_text(yaml.safe_dump({"polygons": [{"kind": "hole", "vertices": CORNERS}]}))
    nm = [[row * 0.05, column * 0.06] for row, column in CORNERS]
    (tmp_path / "polygons.json").write_text(json.dumps({"unit": "nm", "polygons": [{"vertices": nm}]}))
    for name in ("mask.npy", "labels.tif", "mask.png", "shapes.csv", "polygons.yaml", "polygons.json"):
        found = read_regions(MarkedFile(path=str(tmp_path / name), kind="hole"), IMAGE)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, BOX * HOLE, err_msg=name)


def test_a_labels_layer_says_what_each_value_means(tmp_path):
    layer = np.zeros((6, 8), dtype=np.int32)
    layer[0], layer[5, 3:] = 1, 7
    np.save(tmp_path / "labels.npy", layer)
    file = MarkedFile(path=str(tmp_path / "labels.npy"), labels={1: "vacuum", 7: "contamination"})
    image = mark_regions(IMAGE, [file])
    assert image.region("vacuum").sum() == 8
    assert image.region("contamination").sum() == 5
    assert image.region("sample").sum() == 35
    np.testing.assert_array_equal(image.masked, layer > 0)
    with pytest.raises(ConfigError, match=r"holds the values 7, which labels does not name"):
        read_regions(MarkedFile(path=file.path, labels={1: "vacuum"}), IMAGE)


def test_later_files_win_and_no_file_changes_nothing(tmp_path):
    np.save(tmp_path / "a.npy", BOX)
    np.save(tmp_path / "b.npy", np.eye(6, 8))
    files = [
        MarkedFile(path=str(tmp_path / f"{name}.npy"), kind=kind) for name, kind in (("a", "vacuum"), ("b", "edge"))
    ]
    image = mark_regions(IMAGE, files)
    assert image.region("edge").sum() == 6
    assert image.region("vacuum").sum() == 12 - 2
    assert mark_regions(IMAGE, []) is IMAGE
    assert IMAGE.masked is None
    assert IMAGE.region("sample").all()


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("none.npy", None, InputFileError, "the mask file does not exist; check masks.files"),
        ("mask.doc", b"x", InputFileError, r"a mask ends in \.tif"),
        ("wrong.npy", np.zeros((3, 4)), DataError, r"the mask has shape \(3, 4\), the scan \(6, 8\)"),
        ("nan.npy", np.full((6, 8), np.nan), InputFileError, "no finite numbers"),
        ("objects.npy", np.array([{}], dtype=object), InputFileError, "cannot be read as an image"),
        ("table.csv", b"x,y\n1,2\n", InputFileError, "is no Shapes layer saved by napari"),
        (
            "line.csv",
            b"index,shape-type,vertex-index,axis-0,axis-1\n0,path,0,1,2\n0,path,1,3,4\n",
            InputFileError,
            "a shape of type 'path'",
        ),
        ("two.yaml", b"polygons: [{kind: vacuum, vertices: [[0, 0], [1, 1]]}]", InputFileError, "at least three vertices"),
        ("kind.yaml", b"polygons: [{kind: sea, vertices: [[0, 0], [1, 1], [1, 0]]}]", InputFileError, "has the kind 'sea'"),
        ("away.yaml", b"polygons: [{vertices: [[50, 50], [51, 50], [50, 51]]}]", DataError, "holds no position of the scan"),
        ("inf.json", b'{"polygons": [{"vertices": [[0, 0], [Infinity, 1], [1, 0]]}]}', InputFileError, "no finite place"),
        ("unit.yaml", b"{unit: inch, polygons: [{}]}", InputFileError, "unit = 'inch'; allowed are position and nm"),
        ("list.yaml", b"[1, 2]", InputFileError, "needs `polygons`"),
        ("code.yaml", b"!!python/object/apply:os.system ['touch /tmp/never']", InputFileError, "cannot be read"),
        ("broken.json", b"{", InputFileError, "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(tmp_path, name, content, error, says):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(error, match=says):
        read_regions(MarkedFile(path=str(path)), IMAGE)


def test_a_mask_of_everything_is_refused(tmp_path):
    np.save(tmp_path / "all.npy", np.ones((6, 8)))
    with pytest.raises(DataError, match="mark every position: nothing of the sample is left"):
        mark_regions(IMAGE, [MarkedFile(path=str(tmp_path / "all.npy"))])
