"""What all settings have in common."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema


class Frozen(BaseModel):
    """Settings cannot be changed after they were checked, and a key nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe every key; pydantic's `use_attribute_docstrings` would read all sources in each process that has settings."""
        schema = handler(core_schema)
        keys = handler.resolve_ref_schema(schema)["properties"]
        for name, words in descriptions(cls).items():
            keys[name]["description"] = words
        return schema


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return what the string below a key says of it, for those keys of a model that have one."""
    found: dict[str, str] = {}
    for part in reversed([part for part in model.__mro__ if issubclass(part, Frozen) and part is not Frozen]):
        definition = ast.parse(inspect.getsource(part)).body[0]
        assert isinstance(definition, ast.ClassDef)
        for key, below in pairwise(definition.body):
            if not (isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name)):
                continue
            words = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else None
            if isinstance(words, str):
                found[key.target.id] = inspect.cleandoc(words)
    return found


def _ordered(window: tuple[float, float]) -> tuple[float, float]:
    if not window[0] < window[1]:
        raise ValueError(f"a window needs its lower end first, got {window[0]:g} … {window[1]:g}")
    return window


Window = Annotated[tuple[float, float], AfterValidator(_ordered)]
"""(low, high), low < high."""

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
