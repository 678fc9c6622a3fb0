"""Architecture search: find the architecture with the highest reward.

The names below are imported when they are used, so that ``import search`` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.space import SearchSpace, SpaceConfig
    from search.study.config import SearchConfig
    from search.study.results import SearchResult
    from search.study.study import search_cells

_MODULES = {
    "SearchConfig": "search.study.config",
    "SearchResult": "search.study.results",
    "SearchSpace": "search.space",
    "SpaceConfig": "search.space",
    "search_cells": "search.study.study",
}

__all__ = ["SearchConfig", "SearchResult", "SearchSpace", "SpaceConfig", "search_cells"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
