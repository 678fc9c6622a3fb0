"""All choices of the command line: the packages' tables, joined and registered with Hydra.

A choice is a row of its table and a YAML that starts from ``NAME_schema``, the row's config. The
YAML files are in ``conf/`` of the package that has the table, those of loggers in this folder's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

import backbone.config
import detection.config
import search.config
from _logger_base import LoggerConfig
from _loggers import LOGGERS
from _rewards import REWARDS
from backbone.config import Choice
from backbone.presets import preset_folder
from detection.models.config import DETECTORS
from detection.models.sizes import fitting_size
from search.execution import EXECUTORS
from search.space import SpaceConfig
from search.strategies import STRATEGIES

_FOLDER = Path(__file__).parent
CONFIG_DIR = path if (path := _FOLDER / "conf").is_dir() else _FOLDER.parent / "conf"
"""``nasdet/conf`` in a wheel, ``conf`` beside ``tools`` in a checkout."""
PACKAGES = ("backbone", "search", "detection")
"""The packages with presets."""

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


class PresetSearchPath(SearchPathPlugin):
    """Adds the presets of the packages to the folders that Hydra searches for options."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for package in PACKAGES:
            search_path.append("nasdet", f"file://{preset_folder(package)}")


def register_choices() -> None:
    """Register ``small_size``, the presets and the config of every choice with Hydra.

    The configs are registered as ``NAME_schema``.
    """
    Plugins.instance().register(PresetSearchPath)
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

    Args:
        group: the config group of the detector, as Hydra's defaults list names it.
        _root_: the choices so far, which Hydra passes.
    """
    try:
        return fitting_size(_root_[group], "small")
    except ValueError:
        return "small"  # Hydra refuses the detector
