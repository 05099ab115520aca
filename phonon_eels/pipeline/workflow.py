"""What the Snakefile asks: datasets, inputs of rules, parameters of rules, and who failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phonon_eels.config import Settings
from phonon_eels.errors import ConfigError
from phonon_eels.pipeline.datasets import Dataset, read_datasets
from phonon_eels.pipeline.gather import gather_settings
from phonon_eels.pipeline.staleness import step_parameters, unfinished_step
from phonon_eels.steps.registry import find_step, upstream


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
    """

    datasets: Mapping[str, Dataset]
    settings: Settings
    results: str

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
        datasets = read_datasets(config["datasets"])
        return cls({row.name: row for row in datasets}, settings, str(config["results"]))

    def folder(self, wildcards: Any) -> str:
        """Return the folder of a dataset, for the parameters of a rule."""
        return f"{self.results}/{wildcards.dataset}"

    def source(self, dataset: str) -> list[str]:
        """Return the files of a dataset that are there. A missing one fails its own `ingest`, not the whole batch."""
        row = self.datasets[dataset]
        files = [row.path, row.haadf, row.path.with_name(f"{row.path.stem}.truth.json")]
        return [str(path) for path in files if path is not None and path.exists()]

    def file_options(self, dataset: str) -> list[str]:
        """Return the words after ``phonon-eels ingest`` that name the files of a dataset."""
        row = self.datasets[dataset]
        return [str(row.path), *(["--haadf", str(row.haadf)] if row.haadf is not None else [])]

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

    def failures(self) -> str:
        """Return one line per dataset that is not finished: its name, the step, the reason in its log."""
        lines = []
        for name in self.datasets:
            step = unfinished_step(Path(self.results) / name, self.settings)
            if step is not None:
                log = Path(self.results) / name / "logs" / f"{step}.log"
                lines.append(f"  {name}: {step}: {_reason(log)}")
        return "\n".join(["Datasets that are not finished:", *lines])


def _reason(log: Path) -> str:
    try:
        errors = [line for line in log.read_text("utf-8").splitlines() if line.startswith("error: ")]
    except OSError:
        return "did not run"
    return errors[-1].removeprefix("error: ") if errors else f"see {log}"
