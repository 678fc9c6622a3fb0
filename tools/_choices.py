"""All choices of the command line: the packages' tables, joined and registered with Hydra.

A choice is a row of its table and a YAML that starts from ``NAME_schema``, the row's config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

import backbone.config
import detection.config
import search.config
from _logger_base import LoggerConfig
from _loggers import LOGGERS
from _rewards import REWARDS
from backbone.config import Choice
from detection.models.config import DETECTORS
from search.execution import EXECUTORS
from search.space import SpaceConfig
from search.strategies import STRATEGIES

_FOLDER = Path(__file__).parent
CONFIG_DIR = path if (path := _FOLDER / "conf").is_dir() else _FOLDER.parent / "conf"
"""``nasdet/conf`` in a wheel, ``conf`` beside ``tools`` in a checkout."""

CHOICES: Mapping[str, Mapping[str, Choice]] = {
    "detector": DETECTORS,
    "strategy": STRATEGIES,
    "reward": REWARDS,
    "executor": EXECUTORS,
    "logger": LOGGERS,
}
"""Config group -> its table."""

PLAIN_CONFIGS: Mapping[str, Mapping[str, type]] = {
    "space": {"space": SpaceConfig},
    "logger": {"none": LoggerConfig},
}
"""Config group -> configs that select no implementation."""

_CONFIG_MODULES = (backbone.config, detection.config, search.config)

RENAMED_SETTINGS: Mapping[str, str] = {
    former: current
    for module in _CONFIG_MODULES
    for former, current in getattr(module, "RENAMED_SETTINGS", {}).items()
}
"""Former name of a setting -> current name."""

RENAMED_CHOICES: Mapping[str, str] = {
    former: current
    for module in _CONFIG_MODULES
    for former, current in getattr(module, "RENAMED_CHOICES", {}).items()
}
"""Former ``group=option`` or ``setting=value`` -> current one."""


def register_choices() -> None:
    """Register ``small_size`` and the config of every choice, as ``NAME_schema``, with Hydra."""
    OmegaConf.register_new_resolver("small_size", small_size, replace=True)
    store = ConfigStore.instance().store
    for group, table in CHOICES.items():
        for name, choice in table.items():
            store(group=group, name=f"{name}_schema", node=choice.config)
    for group, configs in PLAIN_CONFIGS.items():
        for name, config in configs.items():
            store(group=group, name=f"{name}_schema", node=config)


def small_size(group: str, *, _root_: Any) -> str:
    """Return the option of ``size`` for small images that fits the chosen detector.

    That is ``KIND_small`` for a detector ``ENGINE_KIND`` if there is such a file
    (``retinanet_small``), or else ``small``; or ``full``, the detector's own defaults, if the
    detector lacks a setting of these.

    Args:
        group: the config group of the detector, as Hydra's defaults list names it.
        _root_: the choices so far, which Hydra passes.
    """
    detector = _root_[group]
    config = _detector_config(detector)
    if config is None:
        return "small"  # Hydra refuses the detector
    names = {field.name for field in fields(config)}
    for size in (f"{detector.partition('_')[2]}_small", "small"):
        path = CONFIG_DIR / "size" / f"{size}.yaml"
        if path.is_file() and names.issuperset(str(name) for name in OmegaConf.load(path)):
            return size
    return "full"


def _detector_config(option: str) -> type[Any] | None:
    """Return the config of the row that the YAML of a detector starts from, if there is one."""
    path = CONFIG_DIR / "detector" / f"{option}.yaml"
    if not path.is_file():
        return None
    values: Any = OmegaConf.to_container(OmegaConf.load(path))
    for name in map(str, values.get("defaults", ())):
        row = DETECTORS.get(name.removesuffix("_schema"))
        config = row.config if row and name.endswith("_schema") else _detector_config(name)
        if config is not None:
            return config
    return None
