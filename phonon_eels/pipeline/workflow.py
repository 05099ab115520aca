"""What the Snakefile asks: datasets, inputs, parameters and resources of rules, and who failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phonon_eels.config import Settings
from phonon_eels.errors import ConfigError
from phonon_eels.pipeline.datasets import Dataset, check_dataset_name, read_rows
from phonon_eels.pipeline.gather import gather_settings
from phonon_eels.pipeline.index_page import write_index
from phonon_eels.pipeline.record import read_record
from phonon_eels.pipeline.resources import memory_mb, runtime_min, scan_size
from phonon_eels.pipeline.staleness import step_parameters, unfinished_step
from phonon_eels.pipeline.status import collect_status
from phonon_eels.pipeline.times import note_workflow, process_began
from phonon_eels.steps.registry import REGISTRY, find_step, upstream


@dataclass(frozen=True)
class Workflow:
    """The datasets and the settings of a batch, checked.

    Attributes
    ----------
    datasets
        Name → row of the table.
    settings
        The same for all datasets.
    results
        Folder of all results.
    gpu
        Resources that a job on a GPU asks for beside the others; none where none is used.
    """

    datasets: Mapping[str, Dataset]
    settings: Settings
    results: str
    gpu: Mapping[str, str]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Workflow:
        """Read what the workflow's configuration (``pipelines/config.yaml``) names.

        Raises
        ------
        PhononEELSError
            If the table of datasets or the settings are not right; the message names the place.
        """
        tree = {**(config.get("settings") or {})}
        if "route" in tree:
            raise ConfigError(
                "settings.route: the route is the key `route` of the workflow's own configuration; say it there"
            )
        if config.get("route"):
            tree["route"] = config["route"]
        settings = gather_settings(recipe=config.get("recipe"), tree=tree)
        gpu = {}
        if config.get("device") == "cuda":
            gpu = {"gres": config.get("gpu_gres") or "gpu:1", "slurm_partition": config.get("gpu_partition") or "gpu"}
        rows = read_rows(config["datasets"])
        return cls({row.name: row for row in rows}, settings, str(config["results"]), gpu)

    def folder(self, wildcards: Any) -> str:
        """Return the folder of a dataset, for the parameters of a rule."""
        return f"{self.results}/{wildcards.dataset}"

    def source(self, dataset: str) -> list[str]:
        """Return the files of a dataset that are there. A missing one fails its own `ingest`, not the whole batch."""
        row = self.datasets[dataset]
        if row.refusal is not None:
            return []
        files = [row.path, row.haadf, row.path.with_name(f"{row.path.stem}.truth.json")]
        return [str(path) for path in files if path is not None and path.exists()]

    def file_options(self, dataset: str) -> list[str]:
        """Return the words after ``phonon-eels ingest`` that name the files of a dataset."""
        row = self.datasets[dataset]
        if row.refusal is not None:
            return [str(row.path), "--refused", row.refusal]
        return [str(row.path), *(["--haadf", str(row.haadf)] if row.haadf is not None else [])]

    @property
    def groups(self) -> dict[str, list[str]]:
        """Groups of two and more datasets, which are pooled."""
        found: dict[str, list[str]] = {}
        for row in self.datasets.values():
            if row.refusal is None:
                found.setdefault(row.group, []).append(row.name)
        return {check_dataset_name(group): names for group, names in found.items() if group and len(names) > 1}

    def group_folders(self, wildcards: Any) -> list[str]:
        """Return the folders of the datasets of a group."""
        return [f"{self.results}/{name}" for name in self.groups[wildcards.group]]

    def group_inputs(self, wildcards: Any) -> list[str]:
        """Return what the pooled result of a group is made from."""
        return [f"{folder}/report/summary.json" for folder in self.group_folders(wildcards)]

    def inputs(self, step: str) -> list[str]:
        """Return the patterns of the files that a step is made from, on the route of the settings.

        A step that the route leaves out has none; its rule is never asked for.
        """
        if find_step(step).classic_only and self.settings.route != "classic":
            return []
        files = [f"{self.results}/{{dataset}}/{name}/summary.json" for name in upstream(step, self.settings.route)]
        own_material = self.settings.material.endswith((".yaml", ".yml")) and "material" in find_step(step).shared
        return [*files, self.settings.material] if own_material else files

    def parameters(self, step: str) -> str:
        """Return the settings that a step depends on, as JSON for ``--settings``."""
        return step_parameters(self.settings, step)

    def all_parameters(self) -> str:
        """Return every setting that is not at its default, as JSON for ``phonon-eels run --settings``."""
        return self.settings.model_dump_json(exclude_defaults=True)

    def memory_mb(self, step: str | None = None) -> Callable[..., int]:
        """Return what a rule asks for its memory: by the size of the scan, twice as much at each further attempt."""

        def ask(wildcards: Any, attempt: int, threads: int) -> int:
            return memory_mb(scan_size(self.datasets[wildcards.dataset].path), step, threads) * 2 ** (attempt - 1)

        return ask

    def runtime_min(self, step: str | None = None) -> Callable[..., int]:
        """Return what a rule asks for its time in minutes, twice as much at each further attempt."""

        def ask(wildcards: Any, attempt: int, threads: int) -> int:
            return runtime_min(scan_size(self.datasets[wildcards.dataset].path), step, threads) * 2 ** (attempt - 1)

        return ask

    def show(self) -> Path:
        """Write the overview of all datasets, and what Snakemake itself took; to be called when nothing runs any more."""
        results = Path(self.results)
        records = {name: [read_record(results / name, entry.name) for entry in REGISTRY] for name in self.datasets}
        note_workflow(results, process_began(), records)
        return write_index(self.results, collect_status(self.results, self.datasets.values(), ended=True))

    def failures(self) -> str:
        """Return one line per dataset that is not finished: its name, the step, the reason."""
        lines = []
        order = list(self.datasets)
        rows = collect_status(self.results, self.datasets.values(), ended=True)
        for row in sorted(rows, key=lambda row: order.index(row.name)):
            if row.state in ("done", "warned"):
                step = unfinished_step(row.folder, self.settings)
                if step is not None:
                    lines.append(f"  {row.name}: {step}: has to run again")
            else:
                step = row.step or unfinished_step(row.folder, self.settings)
                lines.append(f"  {row.name}: {step}: {row.reason}")
        return "\n".join(["Datasets that are not finished:", *lines])
