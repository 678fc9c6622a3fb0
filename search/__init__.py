"""Architecture search: find the architecture with the highest reward.

The names below are imported when they are used, so that ``import search`` loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backbone.io.lazy import lazy_exports

if TYPE_CHECKING:
    from search.api import search_cells
    from search.execution.base import ExecutorConfig
    from search.rewards.base import Reward
    from search.rewards.config import CostConfig, RewardConfig
    from search.space import SearchSpace, SpaceConfig
    from search.strategies.config import StrategyConfig
    from search.study.config import SearchConfig
    from search.study.pruning import PruningConfig
    from search.study.results import SearchResult
else:
    _MODULES = {
        "CostConfig": "search.rewards.config",
        "ExecutorConfig": "search.execution.base",
        "PruningConfig": "search.study.pruning",
        "Reward": "search.rewards.base",
        "RewardConfig": "search.rewards.config",
        "SearchConfig": "search.study.config",
        "SearchResult": "search.study.results",
        "SearchSpace": "search.space",
        "SpaceConfig": "search.space",
        "StrategyConfig": "search.strategies.config",
        "search_cells": "search.api",
    }
    __getattr__ = lazy_exports(__name__, _MODULES)

__all__ = [
    "CostConfig",
    "ExecutorConfig",
    "PruningConfig",
    "Reward",
    "RewardConfig",
    "SearchConfig",
    "SearchResult",
    "SearchSpace",
    "SpaceConfig",
    "StrategyConfig",
    "search_cells",
]


def __dir__() -> list[str]:
    return __all__
