"""All results of a dataset at once."""

from pathlib import Path

import pytest

import phonon_eels
from phonon_eels.errors import ConfigError, InputFileError
from phonon_eels.io.results import write_result
from phonon_eels.spectrum_image import StepResult


def test_steps_come_in_their_order(tmp_path: Path) -> None:
    for step in ("fit_peaks", "ingest"):
        (tmp_path / step).mkdir()
        write_result(StepResult(messages=(step,)), tmp_path / step, step=step)
    results = phonon_eels.read_results(tmp_path)
    assert list(results) == ["ingest", "fit_peaks"]
    assert results["fit_peaks"].messages == ("fit_peaks",)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="holds no results of a dataset"):
        phonon_eels.read_results(tmp_path)


def test_samples_are_found_by_name() -> None:
    assert phonon_eels.sample_path("bi2212_null").name == "bi2212_null.hspy"
    with pytest.raises(ConfigError, match="bi2212_modulated, bi2212_null"):
        phonon_eels.sample_path("lsmo")
