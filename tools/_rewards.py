"""The rewards of search and detection in one table, and their construction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import search.rewards
from backbone.config import Choice, find_choice
from detection.reward import DetectionRewardConfig
from search.rewards.config import ProxyConfig

if TYPE_CHECKING:
    from search.rewards.base import Reward
    from search.rewards.config import ZeroCostConfig

REWARDS: Mapping[str, Choice] = {
    **search.rewards.REWARDS,
    "detection": Choice(DetectionRewardConfig, "detection.reward:DetectionReward"),
}
"""Name -> config and class, which is constructed from the config."""


def build_reward(config: Any) -> Reward:
    """Build the reward that a config selects.

    Raises:
        FileNotFoundError: if its data are missing.
        TypeError: if no reward has a config of that type.
        ValueError: if its data do not fit.
    """
    reward: Reward = find_choice(REWARDS, config).load()(config)
    return reward


def build_score(config: ZeroCostConfig | None, proxy: Any) -> Reward | None:
    """Build the training-free score that precedes a proxy training; None without a config."""
    if config is None:
        return None
    from search.rewards.zero_cost import ZeroCostReward

    assert isinstance(proxy, ProxyConfig)
    return ZeroCostReward(proxy, config)
