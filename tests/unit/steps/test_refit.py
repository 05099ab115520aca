"""Some positions of a finished fit, fitted again."""

import json
from dataclasses import replace

import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.cli.program import main
from phonon_eels.config import Settings, load_material, load_settings, load_simulation
from phonon_eels.errors import ConfigError, InputFileError
from phonon_eels.io.results import read_result, read_summary, write_maps
from phonon_eels.pipeline import run, unfinished_step
from phonon_eels.pipeline.refit import refit
from phonon_eels.simulate import simulate, write_simulation
from phonon_eels.steps.fit_peaks import fit_peaks
from phonon_eels.steps.refit import chosen_positions, refit_peaks
from tests.unit.forward.spectra import SEPARATED, material_of, simulated
from tests.unit.steps import test_classic_peaks, test_fit_peaks

MATERIAL = material_of(*SEPARATED)
SETTINGS = Settings().fit_peaks
HURT = np.zeros((5, 4), bool)
HURT[1, 2] = HURT[3, 0] = True


@pytest.fixture(scope="module")
def forward():
    scan = simulated(
        5, 4, material=MATERIAL, phonons={"area_e": 8e3}, detector={"poisson": True, "gain": 2.5, "read_noise_e": 1.0}
    )
    context = test_fit_peaks._context(scan.image)
    return scan.image, SETTINGS, context, fit_peaks(scan.image, SETTINGS, context)


@pytest.fixture(scope="module")
def classic():
    image, context, _ = test_classic_peaks.scan_of("gaussian")
    settings = SETTINGS.model_copy(update={"line_shape": "gaussian"})
    return image, settings, context, fit_peaks(image, settings, context)


def hurt(result):
    """Spoil two positions as if their fit had not ended."""
    maps = result.maps.copy(deep=True)
    maps["status"].values[HURT] = 1
    for name in ("fitted_energy_mev", "energy_mev", "apparent_energy_mev", "area_e"):
        if name in maps:
            maps[name].values[:, HURT] += 3.0
    return replace(result, maps=maps)


@pytest.mark.parametrize("route", ["forward", "classic"])
def test_only_the_chosen_positions_change_and_come_back(route, request):
    image, settings, context, result = request.getfixturevalue(route)
    spoilt = hurt(result)
    found, chosen, changed = refit_peaks(spoilt, image, settings, context, "status == max_iterations")
    assert (chosen, changed) == (2, 2)
    for name, variable in found.maps.data_vars.items():
        if variable.dims[-2:] == ("row", "column"):
            np.testing.assert_array_equal(variable.values[..., ~HURT], result.maps[name].values[..., ~HURT])
    energy = "energy_mev" if route == "forward" else "apparent_energy_mev"
    again, first = found.maps[energy].values[:, HURT], result.maps[energy].values[:, HURT]
    std = result.maps[f"{energy}_std"].values[:, HURT]
    np.testing.assert_allclose(again[np.isfinite(std)], first[np.isfinite(std)], atol=0.05 * float(np.nanmax(std)))
    assert found.summary["status_counts"] == result.summary["status_counts"]
    nothing, chosen, changed = refit_peaks(result, image, settings, context, "status == no_data")
    assert (nothing, chosen, changed) == (result, 0, 0)


def test_expressions_speak_of_maps_and_modes(forward):
    maps = forward[3].maps
    last = SEPARATED[-1]
    wide = np.nanmedian(maps["energy_mev_std"].sel(mode=last))
    chosen = chosen_positions(maps, f"{last}.energy_mev_std > {float(wide)!r} and {last}.mode_status == ok")
    np.testing.assert_array_equal(chosen, maps["energy_mev_std"].sel(mode=last).values > wide)
    with pytest.raises(ConfigError, match="is no number and none of status"):
        chosen_positions(maps, "energy_mev > 3")


@pytest.mark.slow
def test_command_on_a_folder_of_results(tmp_path, capsys):
    """As a user has it: run, spoil, refit; run keeps it and makes anew what read it."""
    scan = simulate(load_simulation(overrides=["scan.rows=8", "scan.columns=10", "seed=4"]), load_material("bi2212"))
    path = next(p for p in write_simulation(scan, tmp_path / "scan.hspy") if p.suffix == ".hspy")
    settings = Settings()
    run(path, tmp_path / "results", settings, backend=CpuBackend(2))
    folder = tmp_path / "results" / "scan"
    before = read_result(folder / "fit_peaks")
    spoilt = before.maps.copy(deep=True)
    spoilt["status"].values[2, 3] = 1
    spoilt["fitted_energy_mev"].values[:, 2, 3] += 1.0
    write_maps(spoilt, folder / "fit_peaks" / "maps.nc", read_summary(folder / "fit_peaks")["provenance"])
    assert main(["refit", "--dataset-folder", str(folder), "--where", "status == max_iterations"]) == 0
    assert "1 positions fitted again, 1 of them changed" in capsys.readouterr().err
    after = read_result(folder / "fit_peaks")
    kept = np.ones((8, 10), bool)
    kept[2, 3] = False
    for name, variable in before.maps.data_vars.items():
        np.testing.assert_array_equal(after.maps[name].values[..., kept], variable.values[..., kept], err_msg=name)
    assert int(after.maps["status"].values[2, 3]) == int(before.maps["status"].values[2, 3])
    record = json.loads((folder / "fit_peaks" / "summary.json").read_text())["provenance"]
    assert record["refits"][0] | {"time": ""} == {
        "where": "status == max_iterations", "positions": 1, "changed": 1, "time": ""
    }  # fmt: skip
    assert unfinished_step(folder, settings) not in ("fit_peaks", None)  # kept; what was made of it is not
    with pytest.raises(InputFileError, match="is not what these settings make"):
        refit(folder, "status != converged", load_settings(overrides=["fit_peaks.background=linear"]))
    with pytest.raises(ConfigError, match="cannot read"):
        refit(folder, "status !=", settings)
