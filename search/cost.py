"""What a genotype costs, and rewards that mind it."""

from __future__ import annotations

from search.config import CostConfig


def constrained_reward(reward: float, cost: float | None, config: CostConfig) -> float:
    """Lower the reward of a genotype that costs more than the target."""
    if cost is None or not config.target:
        return reward
    return reward * min(1.0, config.target / cost) ** config.exponent
