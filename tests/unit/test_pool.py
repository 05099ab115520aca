"""Scans of one specimen pooled from their results on disk."""

import json

import numpy as np
import pandas as pd
import pytest

from phonon_eels.cli.program import main
from phonon_eels.errors import ConfigError, InputFileError
from phonon_eels.io.results import read_result, write_result
from phonon_eels.pipeline.pool import pool_datasets
from phonon_eels.pipeline.workflow import Workflow
from phonon_eels.spectrum_image import StepResult


def planes(random, amplitude, n, mode="CuO78", layer="CuO2"):
    values = 0.1 * random.normal(size=(n, 2)) + [amplitude, 0.0]
    return pd.DataFrame(
        {
            "half_slab": np.arange(n), "mode": mode, "layer": layer, "energy_mev": 78.0, "energy_mev_std": 0.1,
            "cos_mev": values[:, 0], "cos_mev_std": 0.1, "sin_mev": values[:, 1], "sin_mev_std": 0.1,
            "n_positions": 100, "sign": np.resize([1.0, -1.0], n), "used": True,
        }
    )  # fmt: skip


def write_scan(results, name, random, amplitude=1.0, n=4, primary="CuO78", skipped=None, failing=()):
    folder = results / name / "measure_modulation"
    folder.mkdir(parents=True)
    units = pd.concat([planes(random, amplitude, n), planes(random, 0.0, n, "BiO57", "BiO")], ignore_index=True)
    defences = pd.DataFrame({"defence": ["in-phase sum", *failing], "verdict": ["pass", *["fail" for _ in failing]]})
    summary = {"primary": {"mode": primary, "layer": "CuO2", "units_needed": 6}}
    result = StepResult(
        tables={} if skipped else {"units": units, "defences": defences},
        summary={} if skipped else summary,
        skipped=skipped,
    )
    write_result(result, folder, step="measure_modulation", provenance={"fingerprint": name})
    return results / name


@pytest.fixture
def scans(tmp_path):
    random = np.random.default_rng(0)
    return [write_scan(tmp_path / "results", f"scan{k}", random) for k in range(3)]


def test_pooled_amplitude_is_written_with_its_figure(scans, tmp_path):
    output = tmp_path / "results" / "pool" / "crystal"
    pool_datasets(scans, output)
    found = read_result(output)
    primary = found.summary["primary"]
    assert found.summary["verdict"] == "claim"
    assert primary["amplitude_low_mev"] < 1.0 < primary["amplitude_high_mev"]
    assert (primary["n_units"], primary["n_scans"]) == (12, 3)
    table = found.tables["amplitudes"]
    assert list(table["role"]) == ["primary", "secondary"]
    assert table.loc[1, "p_value_holm"] == table.loc[1, "p_value"] > 0.05
    assert len(found.tables["scans"]) == 6
    assert (output / "pooled.png").stat().st_size > 10_000
    record = json.loads((output / "summary.json").read_text())
    assert record["provenance"]["parents"] == {"scan0": "scan0", "scan1": "scan1", "scan2": "scan2"}


def test_too_few_planes_say_how_many_scans_are_needed(tmp_path):
    random = np.random.default_rng(1)
    few = [write_scan(tmp_path, f"scan{k}", random, n=2) for k in range(2)]
    result = pool_datasets(few, tmp_path / "pool" / "few")
    assert result.summary["verdict"] == "not testable"
    assert any("3 scans like these would be needed" in message for message in result.messages)


def test_a_failed_defence_of_one_scan_forbids_the_claim(scans, tmp_path):
    bad = write_scan(tmp_path / "results", "bad", np.random.default_rng(2), failing=("predicted artefact",))
    result = pool_datasets([*scans, bad], tmp_path / "pool")
    assert result.summary["verdict"] == "no modulation claimed"
    assert result.summary["defences_failed"] == {"bad": ["predicted artefact"]}


def test_skipped_scans_are_left_out_and_named(scans, tmp_path):
    empty = write_scan(tmp_path / "results", "blank", np.random.default_rng(3), skipped="no superstructure was mapped")
    result = pool_datasets([*scans, empty], tmp_path / "pool")
    assert result.summary["primary"]["n_scans"] == 3
    assert "blank is left out: no superstructure was mapped" in result.messages
    nothing = pool_datasets([empty], tmp_path / "other")
    assert nothing.summary["verdict"] == "not testable"
    assert "primary" not in nothing.summary


def test_bad_requests_are_refused(scans, tmp_path):
    with pytest.raises(ConfigError, match="given twice"):
        pool_datasets([scans[0], scans[0]], tmp_path / "pool")
    other = write_scan(tmp_path / "results", "other", np.random.default_rng(4), primary="BiO57")
    with pytest.raises(ConfigError, match="different primary tests"):
        pool_datasets([*scans, other], tmp_path / "pool")
    with pytest.raises(InputFileError, match="measure_modulation holds no result"):
        pool_datasets([tmp_path / "nowhere"], tmp_path / "pool")


def test_command_line(scans, tmp_path, capsys):
    assert main(["pool", *map(str, scans), "--output", str(tmp_path / "out"), "--min-units", "20"]) == 0
    said = capsys.readouterr()
    assert said.out.strip().endswith("summary.json")
    assert "not testable: 12 half-slab planes in 3 scans, 20 are asked for" in said.err


def test_workflow_pools_groups_of_two_and_more(tmp_path):
    table = "dataset\tpath\tgroup\na\ta.hspy\tone\nb\tb.hspy\tone\nc\tc.hspy\ttwo\nd\td.hspy\t\n"
    (tmp_path / "datasets.tsv").write_text(table)
    workflow = Workflow.from_config({"datasets": tmp_path / "datasets.tsv", "results": "results"})
    assert workflow.groups == {"one": ["a", "b"]}

    class Wildcards:
        group = "one"

    assert workflow.group_inputs(Wildcards) == [
        "results/a/report/summary.json",
        "results/b/report/summary.json",
    ]
