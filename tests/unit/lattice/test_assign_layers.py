"""The step `assign_layers` on images with known planes, and what it says of images without."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Material
from tests.unit.lattice.scan_steps import assign, image_of, names_of
from tests.unit.lattice.scene import make_scene

CASES = {
    "as measured": {},
    "four times the noise": {"noise": 0.2},
    "dark layers": {"contrast": -1.0},
    "c along columns": {"transpose": True, "rows": 96, "columns": 64},
    "tilted": {"tilt_deg": 9.0},
    "drifting": {"drift_nm": 0.08, "rows": 100},
    "one cell": {"rows": 40},
    "under one cell": {"rows": 28},
    "scan step 4 % off": {"scale": 1.04, "rows": 110},
    "wedge": {"wedge": 0.5},
    "no superstructure": {"amplitude": 0.0},
    "0.3 Å": {"step_nm": 0.03, "rows": 90, "columns": 120},
    "0.6 Å": {"step_nm": 0.06},
}


@pytest.mark.parametrize("case", CASES)
def test_labels_are_right(case):
    scene = make_scene(**CASES[case])
    _image, _context, result = assign(scene.haadf, scene.step_nm)
    right = names_of(result.maps) == scene.label
    assert right.mean() >= 0.97, case
    if CASES[case].get("drift_nm") is None:
        # a wrong label lies close to a boundary: 0.1 Å mean error of the boundaries would put more of them further off
        assert scene.edge_distance_nm[~right].max(initial=0.0) < 0.06


def test_coarse_scan_of_2_angstrom_is_still_labelled():
    scene = make_scene(32, 40, 0.2)
    assert (names_of(assign(scene.haadf, scene.step_nm)[2].maps) == scene.label).mean() >= 0.93


def test_slabs_normals_and_coordinates_agree_with_the_scene():
    scene = make_scene(noise=0.03)
    maps = assign(scene.haadf, scene.step_nm)[2].maps
    away = scene.label != "Ca"
    outward, slab = maps["outward"].values, maps["slab"].values
    assert (outward[away] == scene.side[away]).mean() > 0.98
    assert (outward[names_of(maps) == "Ca"] == 0).all()
    lag = np.median(slab - scene.slab)
    assert (slab - scene.slab == lag)[away].mean() > 0.98
    fraction = maps["c_fraction"].values
    assert np.abs(np.mod(fraction[scene.label == "Ca"], 0.5) - 0.25).max() < 0.06
    assert np.allclose(maps["half_slab"].values // 2, slab)
    total = maps["layer_probability"].values.sum(axis=0)
    np.testing.assert_allclose(total, 1.0)


def test_planes_table_says_where_and_which_way():
    scene = make_scene(noise=0.03)
    planes = assign(scene.haadf, scene.step_nm)[2].tables["planes"]
    assert list(planes["plane"]) == list(range(len(planes)))
    bio = planes[(planes["layer"] == "BiO") & planes["measured"]]
    gaps = np.diff(bio["c_scan_nm"].to_numpy())
    assert np.all((np.abs(gaps - 0.322) < 0.04) | (np.abs(gaps - 1.221) < 0.04))
    assert set(planes["outward"]) == {-1, 0, 1}
    middle = planes[planes["layer"] == "Ca"]
    assert (middle["side"] == 0).all()
    np.testing.assert_allclose(np.mod(middle["c_fraction"], 0.5), 0.25)
    assert planes["whole"].any()
    assert not planes["whole"].all()


def test_displacements_are_those_of_the_planes():
    scene = make_scene(noise=0.02, amplitude=1.0)
    result = assign(scene.haadf, scene.step_nm)[2]
    table = result.tables["displacements"]
    for _plane, part in table.groupby("plane"):
        theta = 2 * np.pi * part["b_nm"].to_numpy() / 2.578
        weight = 1.0 / part["displacement_std_nm"].to_numpy() ** 2
        design = np.stack([np.ones(len(part)), theta, np.cos(theta), np.sin(theta)], axis=1)
        found = np.linalg.solve(design.T * weight @ design, design.T * weight @ part["displacement_nm"].to_numpy())
        assert np.hypot(found[2], found[3]) == pytest.approx(0.035, rel=0.12)


def test_pixel_size_error_is_reported_with_its_deviation():
    for scale in (0.97, 1.0, 1.03):
        summary = assign(make_scene(130, 56, scale=scale).haadf, 0.05)[2].summary
        period = summary["c_period_nm"]
        assert period["status"] == "ok"
        assert period["std"] < 0.02
        assert abs(period["value"] - 3.0861 * scale) < 5.0 * period["std"] + 0.003


def test_little_of_c_in_view_is_said():
    _image, _context, result = assign(make_scene(rows=30).haadf, 0.05)
    assert result.summary["c_period_nm"]["status"] == "assumed"
    assert np.isnan(result.summary["c_period_nm"]["std"])
    assert any("taken from the material" in message for message in result.messages)


def test_positions_without_image_are_flagged_not_dropped():
    scene = make_scene(noise=0.05)
    haadf = scene.haadf.copy()
    haadf[20:23] = np.nan
    maps = assign(haadf, scene.step_nm)[2].maps
    meanings = maps["status"].attrs["flag_meanings"].split()
    assert (maps["status"].values[20:23] == meanings.index("no_haadf")).all()
    assert np.isnan(maps["quality"].values[20:23]).all()
    assert (names_of(maps) == scene.label).mean() > 0.97
    assert (maps["status"].values[:20] == 0).all()


def test_source_planes_name_the_plane_under_the_probe():
    scene = make_scene(noise=0.03)
    result = assign(scene.haadf, scene.step_nm, localisation_fwhm_nm=0.15)[2]
    layer = result.tables["planes"]["layer"].to_numpy()
    first = result.maps["source_plane"].values[0]
    atoms = names_of(result.maps) != "gap"
    assert (layer[first[atoms]] == names_of(result.maps)[atoms]).all()
    weight = result.maps["source_weight"].values
    assert weight.max() <= 1.0
    wider = assign(scene.haadf, scene.step_nm, localisation_fwhm_nm=0.4)[2].maps["source_weight"].values
    assert wider[1].mean() > weight[1].mean()


def _one_row(noise):
    rows = np.arange(60)[:, None] * 0.05
    bump = np.exp(-0.5 * ((rows - 1.5) / 0.06) ** 2) * np.ones((1, 60))
    return bump + noise * np.random.default_rng(0).standard_normal((60, 60))


@pytest.mark.parametrize(
    ("haadf", "words"),
    [
        (np.full((40, 40), 7.0), "no contrast"),
        (np.random.default_rng(0).normal(size=(64, 64)), "layer"),
        (gaussian_filter(np.random.default_rng(1).normal(size=(64, 64)), 4), "layer"),
        (gaussian_filter(np.random.default_rng(2).normal(size=(64, 64)), 2), "layer"),
        (np.cos(np.arange(64) * 0.05 * 2 * np.pi / 0.27) * np.ones((64, 1)), "layer"),
        (_one_row(0.02), "layer"),
        (make_scene(rows=10).haadf, "layers cannot be told apart"),
        (np.full((40, 40), np.nan), "finite at only 0 %"),
    ],
    ids=["flat", "white noise", "blobs", "small blobs", "columns only", "one layer", "half a nm", "no number"],
)
def test_images_without_layers_give_a_sentence_and_no_number(haadf, words):
    result = assign(haadf, 0.05)[2]
    assert result.skipped is not None
    assert words in result.skipped
    assert result.maps is None
    assert not result.tables


def test_absent_image_layers_or_switch_are_said():
    scene = make_scene()
    image, context, _result = assign(scene.haadf, scene.step_nm)
    from phonon_eels.config import Settings
    from phonon_eels.steps.assign_layers import assign_layers

    settings = Settings().assign_layers
    assert assign_layers(image.with_(haadf=None), settings, context).skipped == "no HAADF: layers cannot be assigned"
    off = settings.model_copy(update={"enabled": False})
    assert "switched off" in assign_layers(image, off, context).skipped
    mode = {"name": "A", "energy_mev": 40.0, "bounds_mev": (30.0, 50.0), "fwhm_mev": 4.0}
    assert "no layers" in assign(scene.haadf, scene.step_nm, Material(name="x", modes=[mode]))[2].skipped


def test_result_does_not_depend_on_blocks():
    scene = make_scene(48, 60)
    one, many = (assign(scene.haadf, scene.step_nm, backend=CpuBackend(threads))[2] for threads in (1, 7))
    for name in one.maps.data_vars:
        assert one.maps[name].values.tobytes() == many.maps[name].values.tobytes()
    assert one.tables["layer_spectra"].equals(many.tables["layer_spectra"])


def test_layer_spectra_hold_electrons_of_their_layer():
    scene = make_scene(noise=0.03)
    image = image_of(scene.haadf, scene.step_nm)
    image.counts[:] = np.where(scene.label == "CuO2", 30.0, 5.0)[:, :, None]
    from phonon_eels.config import Settings
    from phonon_eels.steps.assign_layers import assign_layers

    _same, context, _result = assign(scene.haadf, scene.step_nm)
    tables = assign_layers(image, Settings().assign_layers, context).tables
    table, along_c = tables["layer_spectra"], tables["c_spectra"]
    assert along_c["c_fraction"].between(0.0, 1.0).all()
    assert (along_c["std_e"] > 0).all()
    heights = tables["planes"].groupby("layer")["c_fraction"].apply(lambda c: np.unique(np.round(np.mod(c, 1.0), 3)))
    for layer in ("CuO2", "BiO"):
        for c in heights[layer]:
            away = np.abs(np.mod(along_c["c_fraction"] - c + 0.5, 1.0) - 0.5)
            seen = along_c.loc[away == away.min(), "mean_e"].mean()
            assert seen > 22.0 if layer == "CuO2" else seen < 8.0
    assert table["CuO2_e"].mean() > 28.0
    assert table["BiO_e"].mean() < 6.0
    assert (table["CuO2_std_e"] > 0).all()
    sides = [f"CuO2 {side}" for side in ("lower", "upper")]
    assert all(table[f"{name}_e"].mean() > 28.0 for name in sides)
    # Each of the two holds part of the positions: its mean is known less well than that of both.
    assert all((table[f"{name}_std_e"] > table["CuO2_std_e"]).all() for name in sides)
    both = sum(1.0 / table[f"{name}_std_e"].mean() ** 2 for name in sides)
    assert both == pytest.approx(1.0 / table["CuO2_std_e"].mean() ** 2, rel=0.05)
