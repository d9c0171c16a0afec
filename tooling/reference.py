"""Writes what repeats the settings model: the configuration in Pulumi.yaml and docs/configuration.md.

`make reference` runs it; a test compares both with the model, so that neither can drift.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from infra.settings import Settings, nested_model
from infra.site import Site

ROOT = Path(__file__).resolve().parent.parent
PULUMI = "Pulumi.yaml"
PAGE = "docs/configuration.md"
BEGIN = "<!-- The settings, written by `make reference`. -->"
END = "<!-- End of the settings. -->"
HEAD = "# Every setting of a stack. infra/settings.py holds the same keys with all that is accepted; `make reference`"
TYPES = {int: "integer", bool: "boolean", dict: "object", tuple: "array"}


def fields() -> dict[str, FieldInfo]:
    """The settings by key: those of what serves the site, then those of the site."""
    own = {name: field for name, field in Settings.model_fields.items() if name not in Site.model_fields}
    return {field.alias or name: field for name, field in {**own, **Site.model_fields}.items()}


def pulumi_yaml(text: str) -> str:
    """Pulumi.yaml with its settings written anew."""
    head, _, _ = text.partition(HEAD)
    lines = [
        HEAD,
        "# writes them here.",
        "config:",
        "  pulumi:autonaming:",
        "    value:",
        "      pattern: ${project}-${stack}-${name}-${hex(7)}",
    ]
    for key, field in fields().items():
        lines += [f"  uwsgi-nginx:{key}:", f"    type: {_type(field)}"]
        if _type(field) == "array":
            lines += ["    items:", "      type: string"]
        lines += [f"    default: {json.dumps(_default(field))}", "    description: >-"]
        # Not at hyphens: YAML would read the line's end as a space in a name.
        lines += textwrap.wrap(
            str(field.description),
            width=110,
            initial_indent=" " * 6,
            subsequent_indent=" " * 6,
            break_on_hyphens=False,
        )
    return head + "\n".join(lines) + "\n"


def page(text: str) -> str:
    """docs/configuration.md with its table written anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join([before + BEGIN, "", *_table(), "", END]) + after


def _table() -> Iterator[str]:
    yield "| key | default | what it does |"
    yield "|---|---|---|"
    for key, default, description in _rows(fields(), ""):
        yield f"| `{key}` | {default} | {description.replace('|', chr(92) + '|')} |"


def _rows(entries: dict[str, FieldInfo], prefix: str) -> Iterator[tuple[str, str, str]]:
    for key, field in entries.items():
        model = nested_model(field.annotation)
        yield prefix + key, _shown(field), str(field.description)
        if model:
            many = ".PATH." if get_origin(field.annotation) is dict else "."
            inner = {entry.alias or name: entry for name, entry in model.model_fields.items()}
            yield from _rows(inner, f"{prefix}{key}{many}")


def _shown(field: FieldInfo) -> str:
    default = field.get_default()
    if default is None or isinstance(default, BaseModel | dict | tuple) or default == "":
        return ""
    return f"`{json.dumps(_default(field))}`".replace('"', "")


def _type(field: FieldInfo) -> str:
    default = field.get_default()
    return "object" if isinstance(default, BaseModel) else TYPES.get(type(default), "string")


def _default(field: FieldInfo) -> Any:
    default = field.get_default()
    if isinstance(default, BaseModel):
        return {}
    return default if isinstance(default, int | dict | tuple) else str(default)


def main() -> None:
    """Writes both files."""
    for name, write in {PULUMI: pulumi_yaml, PAGE: page}.items():
        file = ROOT / name
        file.write_text(write(file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
