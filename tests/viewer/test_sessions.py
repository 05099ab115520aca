"""Sessions, their layers, spectra, regions and runs. No Qt."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phonon_eels.backends.select import select_backend
from phonon_eels.config import Settings
from phonon_eels.errors import DataError, InputFileError, OutputError
from phonon_eels.viewer import layers as layers_module
from phonon_eels.viewer import regions
from phonon_eels.viewer.layers import KEY, first_layers, layers_of, session_of
from phonon_eels.viewer.opening import open_path
from phonon_eels.viewer.reading import get_reader, open_modulated, read_layers
from phonon_eels.viewer.running import Job, Stopped, folder_name, run_job
from phonon_eels.viewer.sessions import Session, crop
from phonon_eels.viewer.spectrum_words import export, spectrum_table, values_html


def names(layers: list[Any]) -> list[str]:
    return [keywords["name"] for _, keywords, _ in layers]


def test_without_qt() -> None:
    """Forms, layers and everything else that a script may want do not even import Qt or napari."""
    modules = ("forms", "layers", "reading", "regions", "running", "sessions", "linking", "spectrum_words")
    code = (
        f"import sys; {'; '.join(f'import phonon_eels.viewer.{name}' for name in modules)}; "
        "print([m for m in sys.modules if m.partition('.')[0] in ('napari', 'qtpy', 'PyQt6', 'pyqtgraph', 'magicgui')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_raw_file_arrives_named_scaled_and_lazy(scan: Path) -> None:
    session = open_path(scan)[0]
    layers = layers_of(session)
    assert names(layers) == ["HAADF", "window 73.0 … 83.0 meV (e⁻)"]
    assert hasattr(session.image.counts, "dask")
    for data, keywords, kind in layers:
        assert kind == "image"
        assert data.shape == session.shape
        assert keywords["scale"] == pytest.approx((0.055, 0.09), rel=1e-6)
        assert keywords["units"] == ("nm", "nm")
        assert session_of(type("Layer", (), keywords)) is session
    assert hasattr(layers[1][0], "dask"), "napari reads the counts when the map is first shown"
    assert [keywords["visible"] for _, keywords, _ in layers] == [True, False]


def test_the_sample_of_the_menu_opens() -> None:
    assert names(open_modulated())[0] == "HAADF"


def test_results_arrive_as_every_map(session: Session) -> None:
    layers = layers_of(session)
    found = names(layers)
    for mode in ("Sr22", "BiO38", "CuO42", "BiO57", "SrO67", "CuO78"):
        for what in ("energy (meV)", "energy σ (meV)", "FWHM (meV)", "area (e⁻)", "area σ (e⁻)", "status"):
            assert f"{mode} {what}" in found
    for what in (
        "centroid (meV)",
        "centroid σ (meV)",
        "splitting (meV)",
        "splitting σ (meV)",
        "area ratio",
        "area ratio σ",
        "status",
    ):
        assert f"BiO38+CuO42 {what}" in found
    assert len(set(found)) == len(found)
    kinds = {keywords["name"]: (kind, keywords) for _, keywords, kind in layers}
    assert kinds["layers"][0] == kinds["CuO78 status"][0] == "labels"
    assert kinds["superstructure phase (rad)"][1]["colormap"] == "twilight"
    assert kinds["CuO78 shift from the mean (meV)"][1]["colormap"] == "PuOr"
    low, high = kinds["CuO78 shift from the mean (meV)"][1]["contrast_limits"]
    assert low == pytest.approx(-high)
    assert found[0] == "HAADF", "the lowest layer: nothing is hidden under it"
    assert found[-1] == "CuO78 energy (meV)"
    assert [k["name"] for _, k, _ in layers if k["visible"]] == ["HAADF"]


def test_labels_carry_their_words(session: Session) -> None:
    data, keywords, _ = next(layer for layer in layers_of(session) if layer[1]["name"] == "layers")
    maps = session.maps("assign_layers")
    assert maps is not None
    assert np.array_equal(data, maps["layer"].values + 1)
    words = dict(zip(keywords["features"]["index"], keywords["features"]["meaning"], strict=True))
    assert words[2] == "CuO2"
    from phonon_eels.figures.lattice import layer_legend

    shown = keywords["colormap"].map(np.array([0, 2], np.uint8))
    assert shown[0][3] == 0.0, "where there is no layer, nothing is drawn"
    wanted = layer_legend(maps)["CuO2"].lstrip("#")
    assert np.allclose(shown[1][:3] * 255, [int(wanted[k : k + 2], 16) for k in (0, 2, 4)], atol=1)


def test_only_our_files_have_a_reader(scan: Path, results: Path, tmp_path: Path) -> None:
    assert get_reader(str(scan)) is not None
    assert get_reader([str(results)]) is not None
    assert get_reader(str(results / "fit_peaks")) is not None
    assert get_reader(str(results.parent)) is not None
    assert get_reader(str(tmp_path)) is not None, "the user may choose us for any folder"
    with pytest.raises(InputFileError, match="holds no results; open the folder of a dataset"):
        read_layers(str(tmp_path))
    assert get_reader("picture.tif") is None
    assert get_reader([]) is None
    assert len(read_layers(str(results.parent))) == len(first_layers(open_path(results)[0]))


def test_what_cannot_be_opened_is_said(tmp_path: Path, results: Path) -> None:
    with pytest.raises(InputFileError, match=r"nothing\.hspy"):
        open_path(tmp_path / "nothing.hspy")
    (tmp_path / "broken.hspy").write_bytes(b"not an HDF5 file")
    with pytest.raises(InputFileError, match=r"broken\.hspy"):
        read_layers(str(tmp_path / "broken.hspy"))
    half = tmp_path / "half" / "fit_peaks"
    half.mkdir(parents=True)
    shutil.copy(results / "fit_peaks" / "summary.json", half)
    with pytest.raises(InputFileError, match="holds no spectrum image"):
        open_path(tmp_path / "half")


def test_settings_of_results_that_cannot_be_read_are_told(results: Path, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(results, folder)
    path = folder / "fit_peaks" / "summary.json"
    path.write_text(path.read_text("utf-8").replace('"tail_std": 0.02', '"tail_sdt": 0.02'), "utf-8")
    opened = open_path(folder)[0]
    assert "tail_sdt" in opened.notes[0]
    assert open_path(results)[0].notes == ()


def test_places_are_found_by_nm(session: Session) -> None:
    assert session.position_at(0.0, 0.0) == (0, 0)
    assert session.position_at(10.4 * 0.055, 3.49 * 0.09) == (10, 3)
    assert session.position_at(-0.03, 0.0) is None
    assert session.position_at(0.0, 40 * 0.09) is None
    part = crop(session.image, (10, 20), (5, 15))
    assert part.scan[0].positions_nm[0] == pytest.approx(session.image.scan[0].positions_nm[10])
    assert dataclasses.replace(session, image=part).position_at(10 * 0.055, 5 * 0.09) == (0, 0)


def test_spectra_are_those_of_the_image(session: Session) -> None:
    image = session.image
    rng = np.random.default_rng(5)
    for row, column in rng.integers((0, 0), session.shape, (20, 2)):
        counts, variance = session.spectra.at(row, column)
        wanted = (np.asarray(image.counts[row, column], float) - image.noise.dark_level) / image.noise.gain
        usable = np.isfinite(counts)
        assert variance is None
        assert np.array_equal(counts[usable], wanted[usable])
        if image.bad is not None:
            assert np.array_equal(~usable, np.asarray(image.bad[row, column]))


def test_a_fitted_position_is_that_of_the_results(session: Session) -> None:
    """The fit is the same model on the same counts; modes at the verge of being seen may fall to either side."""
    rng = np.random.default_rng(11)
    pulls, chi2 = [], []
    for row, column in rng.integers((0, 0), session.shape, (150, 2)):
        fit, stored = session.fit_position(row, column), session.stored(row, column)
        assert fit is not None
        chi2.append(fit.chi2_per_dof)
        for m, mode in enumerate(fit.mode_names):
            if np.isfinite(fit.energy_mev[m]) and stored[mode]["status"] in ("ok", "prior_dominated"):
                away = fit.energy_mev[m] - float(stored[mode]["energy_mev"])
                pulls.append(abs(away) / float(stored[mode]["energy_mev_std"]))
    assert len(pulls) > 300
    assert np.mean(np.array(pulls) < 0.1) > 0.9
    maps = session.maps("fit_peaks")
    assert maps is not None
    assert np.mean(chi2) == pytest.approx(float(np.nanmean(maps["deviance_per_dof"])), rel=0.05)


def test_parts_add_up_and_residuals_are_in_sigma(session: Session) -> None:
    fit = session.fit_position(20, 20)
    assert fit is not None
    assert np.allclose(sum(fit.components_e.values()), fit.model_e)
    inside = np.isfinite(fit.counts_e)
    assert np.allclose((fit.residual_sigma * fit.std_e + fit.model_e)[inside], fit.counts_e[inside])
    assert 0.7 < np.nanstd(fit.residual_sigma) < 1.3


def test_region_of_a_layer_is_summed_and_fitted(session: Session) -> None:
    mask = regions.layer_mask(session, "CuO2")
    fit = session.region_spectrum(mask, select_backend("cpu"))
    assert fit.good
    assert fit.n_positions == mask.sum()
    m = fit.mode_names.index("CuO78")
    assert fit.energy_mev[m] == pytest.approx(78.3, abs=0.15)
    assert fit.energy_std_mev[m] < 0.05
    one = np.zeros(session.shape, bool)
    one[20, 20] = True
    single, fitted = session.region_spectrum(one, select_backend("cpu")), session.fit_position(20, 20)
    assert fitted is not None
    usable = np.isfinite(fitted.counts_e)
    assert np.allclose(single.counts_e[usable], fitted.counts_e[usable], rtol=1e-6)
    # A mode at the verge of being seen may have its energy free in the one and held in the other.
    assert np.all(np.abs(single.area_e - fitted.area_e) < 0.5 * fitted.area_std_e)


def test_region_of_a_raw_file_is_fitted_too(scan: Path) -> None:
    session = open_path(scan)[0]
    assert session.fit_position(3, 3) is None
    mask = np.zeros(session.shape, bool)
    mask[8:20, 5:30] = True
    fit = session.region_spectrum(mask, select_backend("cpu"))
    assert fit.good
    assert fit.chi2_per_dof < 1.4
    assert fit.energy_mev[fit.mode_names.index("CuO78")] == pytest.approx(78.3, abs=0.7)
    with pytest.raises(DataError, match="holds no position"):
        session.region_spectrum(np.zeros(session.shape, bool), select_backend("cpu"))


def test_window_map_counts_from_each_zero_loss_peak(session: Session) -> None:
    made = session.window_map(70.0, 85.0, select_backend("cpu"))
    alignment = session.alignment
    assert alignment is not None
    image, axis = session.image, session.image.energy
    for row, column in ((0, 0), (31, 17), (55, 39)):
        energies = (np.arange(axis.n_channels) - alignment.channel[row, column]) * axis.dispersion_mev
        energies -= alignment.shift_mev[row, column]
        inside = (energies >= 70.0 - 1e-9) & (energies <= 85.0 + 1e-9)
        electrons = (np.asarray(image.counts[row, column], float) - image.noise.dark_level) / image.noise.gain
        assert made[row, column] == pytest.approx(electrons[inside].sum())
    assert np.all(session.window_map(1e4, 2e4, select_backend("cpu")) == 0.0)


@pytest.mark.parametrize(
    ("kind", "vertices", "wanted"),
    [
        # Edges between positions, so that it does not matter whether an edge counts as inside.
        (
            "rectangle",
            [[1.7, 2.7], [1.7, 7.3], [5.3, 7.3], [5.3, 2.7]],
            lambda r, c: (r >= 2) & (r <= 5) & (c >= 3) & (c <= 7),
        ),
        ("polygon", [[-0.3, -0.3], [-0.3, 10.9], [10.9, -0.3]], lambda r, c: r + c <= 10),
        ("ellipse", [[0, 0], [0, 12], [6, 12], [6, 0]], lambda r, c: ((r - 3) / 3) ** 2 + ((c - 6) / 6) ** 2 <= 1),
        ("path", [[1, 0], [1, 8], [9, 8]], lambda r, c: ((r == 1) & (c <= 8)) | ((c == 8) & (r >= 1) & (r <= 9))),
        ("line", [[4, 2], [4, 2]], lambda r, c: (r == 4) & (c == 2)),
    ],
)
def test_shapes_cover_what_lies_in_them(session: Session, kind: str, vertices: Any, wanted: Any) -> None:
    corners = np.array(vertices, float)
    mask = regions.shape_mask(session, corners * np.array(session.scale_nm), kind)
    rows, columns = np.mgrid[: session.shape[0], : session.shape[1]]
    np.testing.assert_array_equal(mask, wanted(rows, columns))
    with pytest.raises(DataError, match="cannot be a region"):
        regions.shape_mask(session, corners, "text")


def test_phase_bins_share_out_the_layer(session: Session) -> None:
    bins = session.table("measure_modulation", "phase_bins")
    phases = bins[bins["mode"] == "CuO78"]["phase_rad"].to_list()
    masks = [regions.phase_bin_mask(session, "CuO2", phases, k) for k in range(len(phases))]
    wave = session.maps("map_superstructure")
    assert wave is not None
    with_phase = regions.layer_mask(session, "CuO2") & np.isfinite(wave["phase_rad"].values)
    assert np.array_equal(np.sum(masks, axis=0), with_phase.astype(int))
    inside = wave["phase_rad"].values[masks[0]]
    assert np.abs(np.angle(np.exp(1j * (inside - phases[0])))).max() < 2 * np.pi / len(phases)
    with pytest.raises(DataError, match="its layers are: Ca"):
        regions.layer_mask(session, "Au")


def test_spectra_are_exported(session: Session, tmp_path: Path) -> None:
    import pandas as pd

    from phonon_eels.io.read import read

    fit = session.fit_position(20, 20)
    assert fit is not None
    one = ("here", session.energy_loss_mev(20, 20), session.spectra.at(20, 20)[0], fit)
    table, values = export(tmp_path / "spectrum.csv", [one, ("there", *one[1:])])
    back = pd.read_csv(table, comment="#")
    assert list(back["spectrum"].unique()) == ["here", "there"]
    assert np.allclose(back["model_e"][: fit.model_e.size], fit.model_e)
    assert list(pd.read_csv(values, comment="#")["mode"][:6]) == list(fit.mode_names)
    assert export(tmp_path / "spectrum.png", [one])[0].read_bytes().startswith(b"\x89PNG")
    signal = read(export(tmp_path / "spectrum.hspy", [one])[0])
    assert signal.energy.offset_mev == pytest.approx(one[1][0])
    assert np.allclose(np.asarray(signal.counts)[0, 0], np.nan_to_num(one[2]))
    with pytest.raises(OutputError, match=r"use one of \.csv"):
        export(tmp_path / "spectrum.tif", [one])
    with pytest.raises(OutputError, match="choose another folder"):
        export(tmp_path / "no" / "folder.png", [one])
    assert "residual_sigma" in spectrum_table(*one[1:])


def test_words_show_the_stored_values_and_own_up(session: Session) -> None:
    fit = session.fit_position(20, 20)
    assert fit is not None
    stored = session.stored(20, 20)
    words = values_html(fit, stored, "row 20", "")
    assert all(mode in words for mode in fit.mode_names)
    assert "lie elsewhere" not in values_html(fit, {}, "row 20")
    seen = next(mode for m, mode in enumerate(fit.mode_names) if np.isfinite(fit.energy_mev[m]))
    moved = {**stored, seen: {**stored[seen], "energy_mev": float(fit.energy_mev.max()) + 5.0, "energy_mev_std": 0.1}}
    assert "lie elsewhere" in values_html(fit, moved, "row 20")
    assert "&lt;b&gt;" in values_html(None, {}, "<b>")


def test_a_run_leaves_results_that_open(scan: Path, tmp_path: Path) -> None:
    reports = []
    job = Job(open_path(scan)[0], Settings(), "align_zlp", tmp_path)
    session = run_job(job, select_backend("cpu"), threading.Event(), lambda *words: reports.append(words))
    assert session.folder == tmp_path / "corner"
    assert set(session.results) == {"ingest", "register_frames", "remove_spikes", "align_zlp"}
    assert "zero-loss shift (meV)" in names(layers_of(session))
    assert {step for step, _, _ in reports} >= {"ingest", "align_zlp"}


def test_a_region_is_run_as_a_scan_of_its_own(session: Session, tmp_path: Path) -> None:
    mask = np.zeros(session.shape, bool)
    mask[10:30, 4:24] = True
    job = Job(session, Settings(), "ingest", tmp_path, mask)
    made = run_job(job, select_backend("cpu"), threading.Event(), lambda *_: None)
    assert made.shape == (20, 20)
    assert made.image.scan[0].offset_nm == pytest.approx(10 * 0.055)
    assert made.name == "corner_rows10-29_columns4-23"
    assert np.array_equal(
        np.asarray(made.image.counts), np.asarray(open_path(session.source)[0].image.counts[10:30, 4:24])
    )  # type: ignore[arg-type]


def test_a_stopped_run_leaves_no_half_result(scan: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def report(step: str, done: int, total: int) -> None:
        if step == "remove_spikes":
            stop.set()

    job = Job(open_path(scan)[0], Settings(), None, tmp_path)
    with pytest.raises(Stopped, match="cancelled: no result"):
        run_job(job, select_backend("cpu"), stop, report)
    left = {path.name for path in (tmp_path / "corner").iterdir() if not path.name.startswith(".")}
    assert left == {"ingest", "register_frames", "logs"}


def test_a_session_without_a_file_says_so(session: Session, tmp_path: Path) -> None:
    lost = dataclasses.replace(session, folder=None, source=None)
    with pytest.raises(InputFileError, match="its file is not known"):
        run_job(Job(lost, Settings(), "ingest", tmp_path), select_backend("cpu"), threading.Event(), lambda *_: None)
    assert folder_name("../a b:c") == "a_b_c"


def test_metadata_name_the_source_of_a_layer(session: Session) -> None:
    entry = layers_of(session)[-1][1]["metadata"][KEY]
    assert (entry["step"], entry["name"], entry["mode"], entry["unit"]) == ("fit_peaks", "energy_mev", "CuO78", "meV")


def test_large_files_open_without_being_read(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large file without HAADF a preview is shown; the map of all positions stays lazy until somebody asks for it."""
    monkeypatch.setattr(layers_module, "PREVIEW_BYTES", 1_000)
    monkeypatch.setattr(layers_module, "PREVIEW_SIDE", 8)
    opened = open_path(scan)[0]
    opened = dataclasses.replace(opened, image=opened.image.with_(haadf=None))
    made = {keywords["metadata"][KEY]["name"]: (data, keywords) for data, keywords, _ in first_layers(opened)}
    assert set(made) == {"window", "preview"}
    lazy, keywords = made["window"]
    assert not keywords["visible"]
    assert hasattr(lazy, "dask")
    data, keywords = made["preview"]
    assert keywords["visible"]
    assert keywords["scale"] == tuple(7 * step for step in opened.scale_nm)
    assert "every 7th position" in keywords["name"]
    assert np.array_equal(data, np.asarray(lazy)[::7, ::7])
    assert data.shape == (8, 6)
