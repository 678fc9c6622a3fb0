"""Rewards from their settings: where search and detection meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detection.reward import DetectionRewardConfig
from search.config import ProxyConfig, SharedConfig

if TYPE_CHECKING:
    from search.config import ZeroCostConfig
    from search.rewards.base import Reward


def build_reward(config: Any) -> Reward:
    """Build the reward of some settings.

    Raises:
        FileNotFoundError: if its data are missing.
        TypeError: if there is no reward for settings of that type.
        ValueError: if its data are not fit for it.
    """
    match config:
        case SharedConfig():
            from search.rewards.supernet_reward import SharedAccuracy

            return SharedAccuracy(config)
        case ProxyConfig():
            from search.rewards.proxy import ProxyAccuracy

            return ProxyAccuracy(config)
        case DetectionRewardConfig():
            from detection.reward import DetectionReward

            return DetectionReward(config)
        case _:
            raise TypeError(f"no reward for {type(config).__name__}")


def build_score(config: ZeroCostConfig | None, proxy: Any) -> Reward | None:
    """Build the training-free score that goes before a proxy training, if there is one."""
    if config is None:
        return None
    from search.rewards.zero_cost import ZeroCostReward

    assert isinstance(proxy, ProxyConfig)
    return ZeroCostReward(proxy, config)
