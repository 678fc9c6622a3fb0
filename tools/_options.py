"""Options of the config groups that fit a tool.

An option fits if the tool's config has its keys and accepts its schema. Composing the tool once per
option would take seconds, and leave out options that need one of another group beside them, such as
a detector that lacks settings of the present ``size``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import cache
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf

SCHEMA = "_schema"
"""Ending of the names of the configs that ``_choices`` registers for dataclasses."""


def group_options(group: str) -> list[str]:
    """Return the names of a config group's options, without the schemas."""
    names = _repository().get_group_options(group, ObjectType.CONFIG)
    return [name for name in names if not name.endswith(SCHEMA)]


def chosen_options(config: DictConfig) -> dict[str, str | None]:
    """Return a tool's config groups, such as ``data@training.data``, and their present options."""
    choices = config.hydra.runtime.choices
    return {str(g): choices[g] for g in sorted(choices, key=str) if not str(g).startswith("hydra/")}


def fitting_options(group: str, config: DictConfig) -> list[str]:
    """Return the options of a config group that fit a tool.

    Args:
        group: the config group as the defaults list names it, e.g. ``data@training.data``.
        config: the tool's config with Hydra's own, composed within ``Tool.config_dir``.
    """
    present = chosen_options(config).get(group)
    names = group_options(group.partition("@")[0])
    return [name for name in names if name == present or _fits(group, name, config)]


def _fits(group: str, name: str, config: DictConfig) -> bool:
    path, _, package = group.partition("@")
    option = f"{path}/{name}"
    source = _load(option)
    package = package or source.header["package"] or path
    if package == "_global_":
        keys = {str(key) for key in source.config}
        return keys <= set(map(str, config)) and all(
            group in chosen_options(config) and _fits(group, name, config)
            for group, name in _overridden(source)
        )
    parent, _, key = package.rpartition(".")
    above: Any = OmegaConf.select(config, parent) if parent else config
    if not isinstance(above, DictConfig) or key not in above:
        return False
    node = above._get_node(key)
    assert isinstance(node, DictConfig)
    sources = list(_with_defaults(option))
    schema: Any = next((s for s in map(_schema, sources) if s is not None), None)
    declared, kind = node._metadata.ref_type, schema or node._metadata.object_type
    if schema is not None and declared is not Any and not issubclass(schema, declared):
        return False
    keys = {str(key) for s in sources for key in s.config}
    return keys <= {field.name for field in fields(kind)}


def _with_defaults(option: str) -> Iterator[Any]:
    """Yield the sources of an option and of the options of its group that it starts from."""
    source = _load(option)
    yield source
    for default in source.defaults_list:
        name = getattr(default, "path", None)  # other groups' options set keys of the schema
        if name not in (None, "_self_"):
            yield from _with_defaults(f"{option.partition('/')[0]}/{name}")


def _overridden(source: Any) -> Iterable[tuple[str, str]]:
    """Yield the groups of which an experiment selects an option, and the option."""
    for default in source.defaults_list:
        if getattr(default, "override", False):
            group = default.group.lstrip("/")
            yield f"{group}@{default.package}" if default.package else group, default.value


def _schema(source: Any) -> type[Any] | None:
    kind = OmegaConf.get_type(source.config)
    return kind if source.is_schema_source and kind is not dict else None


def _repository() -> Any:
    loader: Any = GlobalHydra.instance().config_loader()
    return loader.repository


@cache
def _read(repository: Any, option: str) -> Any:
    return repository.load_config(option)


def _load(option: str) -> Any:
    return _read(_repository(), option)
