"""The JSON schema in the documentation is the one that the program writes."""

from phonon_eels.config import json_schema
from tests.architecture.modules import REPOSITORY

SCHEMA = REPOSITORY / "docs" / "reference" / "settings.schema.json"


def test_schema_in_the_documentation_is_current() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == json_schema(), (
        "the settings have changed: phonon-eels schema > docs/reference/settings.schema.json"
    )
