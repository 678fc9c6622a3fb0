"""Rewards of genotypes: proxy training, supernet, zero-cost scores, recorded tables.

Importing this package loads no torch; a reward's module is imported when the reward is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from backbone.config import Choice
from search.rewards.config import ProxyConfig, SupernetConfig
from search.rewards.tabular import TableConfig

REWARDS: Mapping[str, Choice] = MappingProxyType(
    {
        "proxy": Choice(ProxyConfig, "search.rewards.proxy:ProxyReward"),
        "supernet": Choice(SupernetConfig, "search.rewards.supernet_reward:SupernetReward"),
        "table": Choice(TableConfig, "search.rewards.tabular:TableReward"),
    }
)
"""Name -> config type and the class that is built from one such config. Zero-cost scores are no
row of their own: each scores the network of a ``ProxyConfig``."""
