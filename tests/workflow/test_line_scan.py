"""A measured line scan with plasmons, as a user runs it: odd axes, a peak two channels wide, no HAADF."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from phonon_eels.cli import main
from phonon_eels.io.results import read_image

FILE = "hyperspy/LSMO_linescan_low_loss.hdf5"


@pytest.fixture(scope="module")
def scan(shared_data: Path) -> Path:
    path = shared_data / FILE
    if not path.is_file():
        pytest.skip(f"the measured line scan is not here: {FILE} in ../shared/data")
    return path


@pytest.fixture(scope="module")
def results(scan: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with the settings and the material that docs/examples gives for this file."""
    folder = tmp_path_factory.mktemp("results")
    config = repository / "docs" / "examples" / "lsmo_line_scan.yaml"
    assert main(["run", str(scan), "--config", str(config), "--output", str(folder), "--quiet"]) == 0
    return folder / scan.stem


def record(results: Path, step: str) -> dict:
    return json.loads((results / step / "summary.json").read_text("utf-8"))


def test_zero_loss_peaks_are_found_where_they_are(results: Path) -> None:
    counts = np.asarray(read_image(results / "ingest").counts)[0]
    highest = -50_000.0 + 500.0 * counts.argmax(axis=1)
    with xr.open_dataset(results / "align_zlp" / "maps.nc") as maps:
        center, std = maps["zlp_center_mev"].values[0], maps["zlp_center_mev_std"].values[0]
        fwhm = maps["zlp_fwhm_mev"].values[0]
    assert np.all(np.abs(center - highest) < 300.0)
    assert np.all((std > 0.0) & (std < 30.0))
    # The energy drifts slowly: neighbours agree far better than a channel.
    assert np.abs(np.diff(center)).max() < 100.0
    assert center[-5:].mean() - center[:5].mean() == pytest.approx(215.0, abs=60.0)
    # Narrower than the 1100 meV that half height of the sampled peak says: a channel is 500 meV wide.
    assert np.all((fwhm > 600.0) & (fwhm < 850.0))


def test_the_narrow_peak_is_no_spike(results: Path) -> None:
    spikes = pd.read_csv(results / "remove_spikes" / "tables" / "spikes.csv", comment="#")
    assert np.all(np.abs(spikes["energy_loss_mev"] - 3250.0) > 5000.0)
    assert len(spikes) < 5


def test_plasmon_energies_along_the_line(results: Path) -> None:
    with xr.open_dataset(results / "fit_peaks" / "maps.nc") as maps:
        fit = maps.load()
    assert fit["energy_mev"].sizes["row"] == 1
    for mode, expected in (("P13", 12_770.0), ("P29", 29_290.0)):
        one = fit.sel(mode=mode)
        energy, std = one["energy_mev"].values[0], one["energy_mev_std"].values[0]
        assert np.isfinite(energy).all(), f"{mode} was not fitted everywhere"
        assert np.median(energy) == pytest.approx(expected, abs=200.0)
        assert np.all((std > 50.0) & (std < 500.0))
        # The sample is one film: positions scatter about as much as their standard deviations say.
        assert 0.7 < np.std(energy) / np.median(std) < 2.5
    modes = pd.read_csv(results / "fit_peaks" / "tables" / "modes.csv", comment="#").set_index("mode")
    assert modes.loc["P29", "energy_mev"] == pytest.approx(29_290.0, abs=150.0)
    assert 10.0 < modes.loc["P29", "energy_mev_std"] < 150.0
    assert np.median(fit["deviance_per_dof"]) == pytest.approx(1.1, abs=0.3)


def test_says_what_is_skipped_and_why(results: Path) -> None:
    assert "no HAADF" in record(results, "assign_layers")["skipped"]
    assert "superstructure" in record(results, "map_superstructure")["skipped"]
    assert "no HAADF" in record(results, "measure_modulation")["skipped"]
    assert record(results, "fit_peaks")["skipped"] is None
    page = (results / "report" / "report.html").read_text("utf-8")
    assert "no HAADF: layers cannot be assigned" in page
    assert "The modulation by the superstructure was not tested" in page


def test_says_what_the_model_leaves_out(results: Path) -> None:
    zero_loss = " ".join(record(results, "align_zlp")["messages"])
    assert "channels wide: its centre depends on the assumed shape" in zero_loss
    assert "several plasmons are not in the model" in " ".join(record(results, "fit_peaks")["messages"])


def test_report_shows_spectra_and_profiles_of_the_line(results: Path) -> None:
    shown = {path.stem for path in (results / "report" / "figures").glob("*.png")}
    assert {"line_spectra", "mean_spectrum", "mode_maps", "zero_loss", "overview"} <= shown
    assert "lattice" not in shown


def test_phonons_of_another_material_are_refused_here(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(scan), "--output", str(tmp_path), "--quiet"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {scan}: all modes of material bi2212 (22 to 78 meV) lie inside the zero-loss peak")
    assert "docs/examples/lsmo_plasmons.yaml" in last
    assert not (tmp_path / scan.stem / "fit_peaks").exists()
    assert not (tmp_path / scan.stem / "report").exists()
