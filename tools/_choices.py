"""The packages' tables of choices and of renamed settings, joined for the command line."""

from __future__ import annotations

from collections.abc import Mapping

import backbone.config
import detection.config
import search.config

_CONFIGS = (backbone.config, detection.config, search.config)

RENAMED_SETTINGS: Mapping[str, str] = {
    former: current
    for module in _CONFIGS
    for former, current in getattr(module, "RENAMED_SETTINGS", {}).items()
}
"""Former name of a setting -> current name."""

RENAMED_CHOICES: Mapping[str, str] = {
    former: current
    for module in _CONFIGS
    for former, current in getattr(module, "RENAMED_CHOICES", {}).items()
}
"""Former ``group=option`` or ``setting=value`` -> current one."""
