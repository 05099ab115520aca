"""Runs steps on files: names, folders, locks, staleness and provenance of results."""

from phonon_eels.pipeline.datasets import Dataset, check_dataset_name, dataset_folder, read_datasets
from phonon_eels.pipeline.execute import StepOutcome, run, run_step
from phonon_eels.pipeline.inputs import IN_MEMORY_BYTES
from phonon_eels.pipeline.staleness import step_parameters, unfinished_step

__all__ = [
    "IN_MEMORY_BYTES",
    "Dataset",
    "StepOutcome",
    "check_dataset_name",
    "dataset_folder",
    "read_datasets",
    "run",
    "run_step",
    "step_parameters",
    "unfinished_step",
]
