"""The JSON schemas in the documentation are those that the program writes."""

import pytest
from pydantic import BaseModel

from phonon_eels.config import Settings, json_schema
from phonon_eels.config.base import descriptions
from phonon_eels.config.components import FitSettings
from phonon_eels.config.planning import PlanSettings
from tests.architecture.modules import REPOSITORY

REFERENCE = REPOSITORY / "docs" / "reference"


@pytest.mark.parametrize(
    ("model", "name", "option"),
    [(Settings, "settings", ""), (PlanSettings, "plan", " --plan"), (FitSettings, "fit", " --fit")],
    ids=["run", "plan", "fit"],
)
def test_schema_in_the_documentation_is_current(model: type[BaseModel], name: str, option: str) -> None:
    file = REFERENCE / f"{name}.schema.json"
    assert file.read_text(encoding="utf-8") == json_schema(model), (
        f"the settings have changed: phonon-eels schema{option} > docs/reference/{name}.schema.json"
    )


def test_every_setting_of_a_plan_is_described() -> None:
    def undescribed(model: type[BaseModel], path: str = "") -> list[str]:
        found = []
        for key, entry in model.model_fields.items():
            inner = entry.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found += [] if key == "fit" else undescribed(inner, f"{path}{key}.")
            elif key not in descriptions(model) and key != "schema_version":
                found.append(path + key)
        return found

    assert undescribed(PlanSettings) == []
