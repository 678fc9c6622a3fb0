"""Presets: named settings in YAML files inside the packages.

A package keeps its presets in ``conf/GROUP/NAME.yaml``. On the command line they are the options of
Hydra's config group of that name (``recipe=detector_1x``); for Python they are read here
(``DetectorRecipe.preset("detector_1x")``). ``defaults`` in a file lists another preset of its group
to start from, or ``NAME_schema``: the row of the group's table of choices whose config it sets.
Importing this module does not import torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Self, get_type_hints

import msgspec
import yaml

from backbone.io.lazy import load_target

SCHEMA_SUFFIX = "_schema"
REQUIRED = "???"
"""Value of a setting that a user must give."""


@dataclass(kw_only=True, slots=True)
class Preset:
    """Base class of configs that have presets."""

    preset_group: ClassVar[str]
    """Package and group, as ``detection/recipe``."""
    preset_table: ClassVar[str] = ""
    """Table of choices, as ``package.module:NAME``, whose rows give the config types of the
    presets; empty: all presets are of this class."""

    @classmethod
    def preset(cls, name: str, **settings: Any) -> Self:
        """Return the config of a preset.

        Args:
            name: a name from ``preset_names``.
            **settings: settings that replace those of the preset.

        Raises:
            ValueError: if there is no such preset or setting, a value does not fit, or a setting
                without a value is missing.
        """
        row, values = read_preset(cls.preset_group, name)
        kind = load_target(cls.preset_table)[row].config if cls.preset_table else cls
        label = f"{cls.preset_group.partition('/')[2]}={name}"
        if not issubclass(kind, cls):
            raise ValueError(f"{label} is a {kind.__name__}, not a {cls.__name__}")
        types = get_type_hints(kind)
        own = {
            name: _check(value, types.get(name, Any), label=f"{label}: {name}")
            for name, value in settings.items()
        }
        return _construct(kind, {**_convert(values, types), **own}, label=label)

    @classmethod
    def named(cls, value: str | Self) -> Self:
        """Return the config of a preset given by its name; return a config as it is.

        Raises:
            ValueError: if there is no such preset.
        """
        return cls.preset(value) if isinstance(value, str) else value

    @classmethod
    def preset_names(cls) -> list[str]:
        """Return the names of the presets, sorted."""
        return preset_names(cls.preset_group)


def preset_folder(package: str) -> Path:
    """Return the folder with a package's groups of presets; the package is not imported."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "conf"


def preset_names(group: str) -> list[str]:
    """Return the names of the presets of a group, ``package/group``, sorted."""
    package, _, name = group.partition("/")
    return sorted(path.stem for path in (preset_folder(package) / name).glob("*.yaml"))


def read_preset(group: str, name: str) -> tuple[str, dict[str, Any]]:
    """Return the row of a preset in the table of its group, if it names one, and its values.

    Args:
        group: package and group, as ``detection/recipe``.
        name: name of the preset.

    Raises:
        ValueError: if there is no such preset; the message lists all.
    """
    package, _, folder = group.partition("/")
    path = preset_folder(package) / folder / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"there is no {folder}={name}; choose from {preset_names(group)}")
    own: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    row = ""
    values: dict[str, Any] = {}
    for entry in own.pop("defaults", ()):
        if not isinstance(entry, str):
            raise ValueError(
                f"{folder}={name} combines presets of several groups; construct its config instead"
            )
        if entry.endswith(SCHEMA_SUFFIX):
            row = entry.removesuffix(SCHEMA_SUFFIX)
        elif entry != "_self_":
            row, values = read_preset(group, entry)
    return row, {**values, **own}


def _convert(values: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
    """Convert values of YAML (where 5e-3 is text) to the types of a config's fields.

    Values that refer to other settings are left out, as are those that a user must give.
    """
    return {
        name: msgspec.convert(value, types[name], strict=False)
        for name, value in values.items()
        if value != REQUIRED and not (isinstance(value, str) and "${" in value)
    }


def _check(value: Any, kind: Any, *, label: str) -> Any:
    """Return a value that a caller gave, checked against the type of its field."""
    if isinstance(value, Path) and kind is str:
        return str(value)
    if not isinstance(value, (str, int, float, bool, list, tuple, dict)):
        return value
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{label}={value!r}: {error}") from None


def _construct(kind: type[Any], settings: Mapping[str, Any], *, label: str) -> Any:
    known = {field.name: field for field in fields(kind)}
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; choose from {list(known)}"
            raise ValueError(f"{label} has no setting {name!r}{hint}")
    missing = [
        name
        for name, field in known.items()
        if name not in settings and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"{label} needs {', '.join(f'{name}=...' for name in missing)}")
    return kind(**settings)
