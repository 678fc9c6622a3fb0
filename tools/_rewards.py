"""Rewards from their settings: where search and detection meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backbone.config import Choice
from detection.reward import DetectionRewardConfig
from search.rewards import REWARDS
from search.rewards.config import ProxyConfig

if TYPE_CHECKING:
    from search.rewards.base import Reward
    from search.rewards.config import ZeroCostConfig

DETECTION = Choice(DetectionRewardConfig, "detection.reward:DetectionReward")


def build_reward(config: Any) -> Reward:
    """Build the reward of some settings.

    Raises:
        FileNotFoundError: if its data are missing.
        TypeError: if there is no reward for settings of that type.
        ValueError: if its data are not fit for it.
    """
    for choice in (*REWARDS.values(), DETECTION):
        if type(config) is choice.config:
            return choice.load()(config)
    raise TypeError(f"no reward for {type(config).__name__}")


def build_score(config: ZeroCostConfig | None, proxy: Any) -> Reward | None:
    """Build the training-free score that goes before a proxy training, if there is one."""
    if config is None:
        return None
    from search.rewards.zero_cost import ZeroCostReward

    assert isinstance(proxy, ProxyConfig)
    return ZeroCostReward(proxy, config)
