"""Layers from positions of columns of atoms in a file, in place of the HAADF."""

import warnings

import numpy as np
import pytest

from phonon_eels.errors import InputFileError
from phonon_eels.io.column_file import read_columns
from tests.unit.lattice.scan_steps import assign, names_of
from tests.unit.lattice.scene import COLUMN_NM, WAVE, Z, _planes, make_scene

STEP_NM = 0.05


def columns_of(scene):
    """Return row, column and intensity of every column of atoms of a scene without bunching, from its formulas."""
    s, t = scene.extra["s"], scene.extra["t"]
    found = []
    for name, slab, _side, z in _planes(s.min() - 0.5, s.max() + 0.5):
        if name == "gap":
            continue
        for place in np.arange(np.ceil(t.min() / COLUMN_NM), np.floor(t.max() / COLUMN_NM) + 1) * COLUMN_NM:
            u = (-1.0) ** slab * WAVE[name] * np.cos(2 * np.pi * place / 2.578 + 0.7)
            found.append(((z + u - s[0, 0]) / STEP_NM, (place - t[0, 0]) / STEP_NM, (Z[name] / 83) ** 1.7))
    table = np.array(found)
    inside = (table[:, :2] >= 0).all(axis=1) & (table[:, 0] < s.shape[0]) & (table[:, 1] < s.shape[1])
    return table[inside]


def written(path, table, names):
    lines = [",".join(names), *(",".join(f"{v:.4f}" for v in row[: len(names)]) for row in table)]
    path.write_text("\n".join(lines))
    return str(path)


@pytest.mark.parametrize("names", [("row", "column", "intensity"), ("row", "column")])
def test_labels_from_positions_are_those_of_the_image(tmp_path, names):
    scene = make_scene(in_plane_nm=0.0)
    file = written(tmp_path / "columns.csv", columns_of(scene), names)
    result = assign(scene.haadf, STEP_NM, columns_file=file)[2]
    assert result.skipped is None
    assert (names_of(result.maps) == scene.label).mean() > 0.97


def test_positions_hold_where_the_image_is_nothing_but_noise(tmp_path):
    scene = make_scene(in_plane_nm=0.0)
    file = written(tmp_path / "columns.csv", columns_of(scene), ("row", "column", "intensity"))
    noise = np.random.default_rng(0).normal(size=scene.haadf.shape)
    assert assign(noise, STEP_NM)[2].skipped is not None
    assert (names_of(assign(noise, STEP_NM, columns_file=file)[2].maps) == scene.label).mean() > 0.97


def test_positions_that_atomap_finds(tmp_path):
    with warnings.catch_warnings():
        # Atomap 0.4.2 imports what SciPy 1.17 deprecates, and holds invalid escapes: no business of ours.
        warnings.simplefilter("ignore")
        import atomap.api as atomap
    import hyperspy.api as hs

    scene = make_scene(in_plane_nm=0.0, noise=0.02)
    positions = atomap.get_atom_positions(hs.signals.Signal2D(scene.haadf), separation=3)
    lattice = atomap.Sublattice(positions, image=scene.haadf)
    lattice.find_nearest_neighbors()
    lattice.refine_atom_positions_using_center_of_mass(percent_to_nn=0.3, show_progressbar=False)
    file = tmp_path / "columns.npz"
    np.savez(file, x_position=lattice.x_position, y_position=lattice.y_position)
    result = assign(scene.haadf, STEP_NM, columns_file=str(file))[2]
    assert (names_of(result.maps) == scene.label).mean() > 0.95


def test_arrays_of_atomaps_names_are_read(tmp_path):
    table = np.random.default_rng(0).uniform(1, 40, (50, 2))
    np.savez(tmp_path / "found.npz", x_position=table[:, 1], y_position=table[:, 0])
    places, intensity = read_columns(tmp_path / "found.npz", (64, 64))
    np.testing.assert_allclose(places, table)
    assert intensity is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("row,intensity\n1,2\n", "lacks the column column"),
        ("row,column\n" + "1,2\n" * 5, "holds 5 columns of atoms"),
        ("row,column\n" + "1,x\n" * 30, "holds no positions"),
        ("row,column\n" + "1,nan\n" * 30, "no numbers"),
        ("row,column\n" + "500,900\n" * 30, "0 % of the columns of atoms lie in the scan of 64 × 96"),
    ],
)
def test_files_that_are_no_columns_are_refused(tmp_path, text, words):
    path = tmp_path / "columns.csv"
    path.write_text(text)
    with pytest.raises(InputFileError, match=words):
        read_columns(path, (64, 96))


def test_files_that_are_not_there_or_no_arrays(tmp_path):
    with pytest.raises(InputFileError, match="there is no such file"):
        read_columns(tmp_path / "none.csv", (64, 96))
    (tmp_path / "broken.npz").write_bytes(b"PK broken")
    with pytest.raises(InputFileError, match="holds no positions"):
        read_columns(tmp_path / "broken.npz", (64, 96))
