"""The base of all settings: frozen values, each written once with its title, description and bounds.

The form in a dock, its tooltip, the flag of the command line, the table in the docs and
the JSON in a model file all come from the one line that defines a field. Bounds are
inclusive, because a spin box cannot show an exclusive one.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_unet.errors import ConfigError

__all__ = ["Settings", "settings_table"]


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused, errors in one sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_sentence(type(self), error)) from None

    def replace(self, **changes: Any) -> Self:
        """Copy these settings with `changes`, checked again."""
        return type(self)(**{**dict(self), **changes})


def _sentence(cls: type[BaseModel], error: ValidationError) -> str:
    """Say in one sentence what is wrong: which setting, what was found, which rule."""
    parts = []
    for problem in error.errors(include_url=False):
        name = ".".join(str(part) for part in problem["loc"])
        found = problem["input"]
        match problem["type"]:
            case "extra_forbidden":
                known = ", ".join(cls.model_fields)
                parts.append(f"{name!r} is not a setting of {cls.__name__} (it has {known})")
            case "missing":
                parts.append(f"{name!r} is missing in {cls.__name__}")
            case "value_error":
                text = problem["msg"].removeprefix("Value error, ")
                parts.append(f"{name}: {text}" if name else text)
            case _:
                rule = problem["msg"].removeprefix("Input ")
                parts.append(f"{name} is {found!r}, but it {rule}")
    return f"{'; '.join(parts)}."


def settings_table(cls: type[Settings]) -> str:
    """Return the settings of a class as a Markdown table, for the docs."""
    rows = ["| setting | default | from, to | meaning |", "|---|---|---|---|"]
    for name, field in cls.model_fields.items():
        bounds = {type(rule).__name__: rule for rule in field.metadata}
        limits = f"{bounds['Ge'].ge:g}, {bounds['Le'].le:g}" if {"Ge", "Le"} <= bounds.keys() else ""
        default = field.get_default(call_default_factory=True)
        shown = f"`{type(default).__name__}()`" if isinstance(default, Settings) else default
        rows.append(f"| `{name}` | {shown} | {limits} | {field.description} |")
    return "\n".join(rows)
