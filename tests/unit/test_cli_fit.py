"""``phonon-eels fit``: components of one's own fitted to a file, as its user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from phonon_eels.cli import main
from phonon_eels.component_fit.image import components_of
from phonon_eels.component_fit.model import KINDS
from phonon_eels.config import json_schema
from phonon_eels.config.base import descriptions
from phonon_eels.config.components import ComponentSettings, FitSettings, Kind, TieSettings, load_fit
from phonon_eels.errors import ConfigError
from phonon_eels.io.export import write_hspy
from phonon_eels.pipeline import components as pipeline_components
from phonon_eels.spectrum_image import EnergyAxis, NoiseModel, ScanAxis, SpectrumImage
from tests.unit.component_fit.made_up import ENERGIES, TRUTH, expected, three_gaussians

PEAKS = """
components:
  a: {kind: gaussian, start: {centre: 36, fwhm: 7}}
  b: {kind: gaussian, start: {centre: 58, fwhm: 7}, tied: {fwhm: a.fwhm}}
  c: {kind: gaussian, start: {centre: 80, fwhm: 7}, tied: {fwhm: {to: a.fwhm}}, bounds: {centre: [70, 90]}}
  tail: {kind: exponential}
  floor: {kind: offset}
"""
GAIN, DARK = 2.5, 170.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scan of three peaks in detector numbers, and a file of components, in the working folder."""
    monkeypatch.chdir(tmp_path)
    mean = expected(three_gaussians(), TRUTH)
    electrons = np.random.default_rng(4).poisson(mean, (6, 5, mean.size))
    axis = EnergyAxis(float(ENERGIES[0]), float(ENERGIES[1] - ENERGIES[0]), ENERGIES.size)
    image = SpectrumImage(
        (GAIN * electrons + DARK).astype(np.float32),
        axis,
        (ScanAxis("row", 0.1, 6), ScanAxis("column", 0.2, 5)),
        noise=NoiseModel(GAIN, DARK, source={"gain": "given", "dark_level": "given", "read_noise_e": "given"}),
    )
    write_hspy(image, tmp_path / "scan.hspy")
    (tmp_path / "peaks.yaml").write_text(PEAKS, encoding="utf-8")
    return tmp_path


def _fit(*words: str) -> int:
    return main(["fit", "scan.hspy", "--components", "peaks.yaml", "--device", "cpu", *words])


def test_maps_table_and_record(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _fit("--threads", "2") == 0
    out, err = capsys.readouterr()
    assert [Path(line) for line in out.splitlines()] == [
        Path("results/scan/fit_components") / name for name in ("maps.nc", "tables/parameters.csv", "summary.json")
    ]
    assert "c_centre_mev" in err
    maps = xr.load_dataset("results/scan/fit_components/maps.nc")
    truth = dict(zip([f"{n}_{w}" for n in "abc" for w in ("area", "centre_mev", "fwhm_mev")], TRUTH[:9], strict=True))
    for name, value in truth.items():
        pull = (maps[name].values - value) / maps[f"{name}_std"].values
        assert np.abs(pull).max() < 5.0, name
        assert 0.6 < pull.std() < 1.4, name  # 30 positions: 13 % at one deviation
    assert maps["c_area"].attrs["units"] == "electrons"
    assert maps["c_fwhm_mev_std"].attrs["units"] == "meV"
    assert maps["tail_rate_per_mev"].attrs["units"] == "1/meV"
    np.testing.assert_array_equal(maps["a_fwhm_mev"], maps["c_fwhm_mev"])
    np.testing.assert_allclose(maps.column, 0.2 * np.arange(5))
    assert maps["status"].attrs["flag_meanings"].split()[0] == "converged"
    assert "tail" in str(maps.attrs["component_tail"]) or "exp(-rate" in maps.attrs["component_tail"]
    record = json.loads(maps.attrs["provenance"])
    assert record["step"] == "fit_components"
    assert record["settings"]["components"]["b"]["tied"] == {"fwhm": "a.fwhm"}
    assert len(next(iter(record["inputs"].values()))) == 64
    table = pd.read_csv("results/scan/fit_components/tables/parameters.csv", skiprows=1).set_index("parameter")
    assert table.loc["c_centre_mev", "mean"] == pytest.approx(78.0, abs=5 * table.loc["c_centre_mev", "mean_std"])
    assert table.loc["c_centre_mev", "mean_std"] == pytest.approx(
        maps["c_centre_mev_std"].values.mean() / 30**0.5, rel=0.05
    )
    assert table.loc["b_fwhm_mev", "role"] == "tied to a.fwhm"
    summary = json.loads(Path("results/scan/fit_components/summary.json").read_text(encoding="utf-8"))
    assert summary["summary"]["status_counts"]["converged"] == 30
    assert summary["summary"]["noise"] == {"gain": GAIN, "dark_level": DARK, "read_noise_e": 0.0}


def test_a_large_file_is_read_lazily_with_the_same_result(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fit("--quiet") == 0
    monkeypatch.setattr(pipeline_components, "SMALL_FILE_BYTES", 0.0)
    read = pipeline_components.read
    lazily = []
    monkeypatch.setattr(pipeline_components, "read", lambda *a, **k: lazily.append(k["lazy"]) or read(*a, **k))
    assert _fit("--quiet", "--output", "again") == 0
    assert lazily == [True]
    assert capsys.readouterr().err == ""
    one, two = (xr.load_dataset(f"{place}/scan/fit_components/maps.nc") for place in ("results", "again"))
    xr.testing.assert_equal(one, two)


def test_chosen_positions_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong fit is mended where the expression holds; all others keep their bits, and the record says so."""
    assert _fit("--quiet") == 0
    place = Path("results/scan/fit_components/maps.nc")
    good = xr.load_dataset(place)
    spoilt = good.copy(deep=True)
    spoilt["status"][2, 3] = spoilt["status"].attrs["flag_meanings"].split().index("max_iterations")
    spoilt["deviance"][2, 3] = 1e9
    spoilt["a_centre_mev"][2, 3] = 20.0
    spoilt.to_netcdf(place, engine="h5netcdf")
    assert _fit("--where", "status != converged") == 0
    assert "1 positions fitted again from other starts, 1 of them changed" in capsys.readouterr().err
    mended = xr.load_dataset(place)
    assert abs(mended["a_centre_mev"][2, 3] - good["a_centre_mev"][2, 3]) < 0.05 * good["a_centre_mev_std"][2, 3]
    others = np.ones((6, 5), bool)
    others[2, 3] = False
    for name in good.data_vars:
        np.testing.assert_array_equal(mended[name].values[others], good[name].values[others])
    record = json.loads(Path("results/scan/fit_components/summary.json").read_text(encoding="utf-8"))["provenance"]
    assert record["refits"][0]["positions"] == 1
    assert _fit("--where", "c.centre.std > 1e9") == 0
    assert "0 positions fitted again" in capsys.readouterr().err
    assert _fit("--where", "status != converged", "--set", "components.a.start.centre=37") == 2
    assert "made of another file or of other components" in capsys.readouterr().err
    assert main(["refit", "--dataset-folder", "results/scan", "--where", "status != converged"]) == 2
    assert "holds a result of `phonon-eels fit`, none of fit_peaks" in capsys.readouterr().err
    assert _fit("--where", "colour == red") == 2
    assert "'colour' is no number and none of status" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("components.c.kind=gauss", "components.c.kind = 'gauss': Input should be 'gaussian', 'lorentzian'"),
        ("components.c.knd=gaussian", "unknown key components.c.knd; did you mean kind?"),
        ("components.c.start.width=3", "component c: 'width' is none of its parameters (area, centre, fwhm)"),
        ("components.d={kind: gaussian}", "component d: start needs centre"),
        ("components.c.tied={fwhm: z.fwhm}", "c.fwhm is tied to 'z.fwhm', which is none of a.area"),
        ("components.c.bounds={centre: [90, 70]}", "a window needs its lower end first"),
        ("components.c.fixed=[area]", "component c: area is fixed, so start must say at what"),
        ("components.1st={kind: offset}", "must be letters, digits and underscores"),
        ("components.c.priors={fwhm: [6, 0]}", "the standard deviation of the prior of fwhm must be positive"),
        ("window_mev=[300, 400]", "holds 0 channels"),
        ("likelihood=chi2", "Input should be 'poisson' or 'least_squares'"),
        ("acquisition.gain=-1", "acquisition.gain"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_is_allowed(
    folder: Path, override: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fit("--set", override) == 2
    err = capsys.readouterr().err
    assert told in err
    assert len([line for line in err.splitlines() if line.startswith("error")]) == 1
    assert not Path("results/scan/fit_components").exists()


def test_nothing_to_fit_and_no_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "peaks.yaml").write_text("window_mev: [20, 90]\n", encoding="utf-8")
    assert _fit() == 2
    assert "components is missing" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="give at least one peak or background"):
        load_fit("peaks.yaml", ["components={}"])
    assert main(["fit", "none.hspy", "--components", "peaks.yaml", "--set", "components.a={kind: offset}"]) == 2
    assert "none.hspy" in capsys.readouterr().err


def test_an_unknown_gain_and_a_wrong_model_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _fit("--set", "components.c={kind: offset}", "--set", "components.floor={kind: exponential}") == 0
    assert "the components do not describe the spectra: median chi-squared" in capsys.readouterr().err
    assert _fit("--set", "likelihood=least_squares") == 0
    told = capsys.readouterr().err
    assert "do not describe" not in told
    squares = xr.load_dataset("results/scan/fit_components/maps.nc")
    pull = (squares["c_centre_mev"].values - 78.0) / squares["c_centre_mev_std"].values
    assert 0.6 < pull.std() < 1.4
    assert _fit("--where", "status != converged", "--set", "likelihood=least_squares") == 2
    assert "scaled by its own scatter" in capsys.readouterr().err


def test_settings_say_what_the_fit_knows() -> None:
    assert sorted(get_args(Kind)) == sorted(KINDS)
    for model in (FitSettings, ComponentSettings, TieSettings):
        assert set(model.model_fields) - set(descriptions(model)) <= {"schema_version"}
    settings = FitSettings.model_validate(
        {"components": {"p": {"kind": "voigt", "start": {"centre": 1.0}, "tied": {"area": {"to": "q.area", "factor": 2}},
                              "priors": {"centre": [1, 2]}}, "q": {"kind": "polynomial", "degree": 3}}}
    )  # fmt: skip
    first, second = components_of(settings)
    assert (first.kind, first.name, first.start) == ("voigt", "p", {"centre": 1.0})
    assert (first.tied["area"].to, first.tied["area"].factor, first.priors) == ("q.area", 2.0, {"centre": (1.0, 2.0)})
    assert second.parameters == ("c0", "c1", "c2", "c3")


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--fit"]) == 0
    assert capsys.readouterr().out == json_schema(FitSettings)


def test_masked_and_missing_take_no_part(folder: Path) -> None:
    from phonon_eels.component_fit.image import fit_image
    from phonon_eels.io.read import read

    image = read(folder / "scan.hspy", lazy=False)
    components = components_of(load_fit("peaks.yaml"))
    whole = fit_image(image, components)
    regions = np.zeros((6, 5), np.uint8)
    regions[0, :2] = 1
    bad = np.zeros(image.shape, bool)
    bad[3, 3, 40:60] = True
    spoilt = image.counts.copy()
    spoilt[3, 3, 40:60] = 1e6
    spoilt[0, :2] = 1e6
    maps: Any = fit_image(image.with_(counts=spoilt, regions=regions, bad=bad), components).maps
    assert whole.maps is not None
    words = maps["status"].attrs["flag_meanings"].split()
    assert [words[code] for code in maps["status"].values[0, :3]] == ["masked", "masked", "converged"]
    assert np.isnan(maps["c_centre_mev"].values[0, :2]).all()
    assert maps["n_channels"].values[3, 3] == 160
    np.testing.assert_allclose(
        maps["c_centre_mev"].values[1:3], whole.maps["c_centre_mev"].values[1:3], atol=0.02
    )  # the mean to start from is another


def test_it_starts_without_dask_and_hyperspy(folder: Path) -> None:
    """What a start costs: HyperSpy takes seconds to load, Dask one, SciPy's distributions half of one."""
    code = (
        "import sys; from phonon_eels.cli import main; code = main(['fit', 'scan.hspy', '--components', 'peaks.yaml', '--quiet']); "
        "print(code, [name for name in ('hyperspy', 'dask', 'scipy.stats', 'matplotlib', 'distributed') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
