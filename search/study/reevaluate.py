"""The winner of a search: the best trials tried again, since the best of many is partly luck."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from optuna import Study

from search.execution.base import Executor, run_tasks
from search.execution.worker import Task
from search.rewards.base import Reward
from search.study.config import SearchConfig
from search.study.driver import TrialDriver, TrialRecord


@dataclass(frozen=True, slots=True)
class RewardsAgain:
    """What the best are worth beside the reward that the search gave them."""

    fresh: dict[int, float]
    """Trial -> mean reward with fresh seeds."""
    unseen: float | None
    """The winner's mean reward on data that the search never saw, with the same seeds."""


def choose_winner(
    driver: TrialDriver, config: SearchConfig, reward: Reward
) -> tuple[TrialRecord, RewardsAgain]:
    """Return the best trial, by fresh seeds if some are tried again, and what it is worth.

    Raises:
        RuntimeError: if no trial succeeded.
    """
    ranked = driver.ranked()
    again = ranked[: config.num_reevaluated]
    seeds = range(config.seed + 1, config.seed + 1 + config.reevaluation_seeds)
    fresh = rewards_again(driver.study, driver.executor, again, seeds)
    winner = max(again, key=lambda r: driver.objective(r, fresh[r.number]), default=ranked[0])
    unseen = None
    if again and reward.test_reward is not None:
        means = rewards_again(driver.study, driver.executor, [winner], seeds, unseen=True)
        unseen = means[winner.number]
    return winner, RewardsAgain(fresh, unseen)


def rewards_again(
    study: Study,
    executor: Executor,
    records: Sequence[TrialRecord],
    seeds: Iterable[int],
    *,
    unseen: bool = False,
) -> dict[int, float]:
    """Return trial -> mean reward of its genotype over fresh seeds; a failure counts as 0.

    Args:
        study: keeps them, so that each is done once.
        executor: does them.
        records: the trials.
        seeds: other seeds than the search's.
        unseen: whether to score on data that the search never saw.
    """
    seeds = list(seeds)
    kind = "unseen" if unseen else "fresh"
    keys = {(r.number, s): f"{kind}:{r.genotype.digest}:{s}" for r in records for s in seeds}
    genotypes = {r.number: r.genotype for r in records}
    known = study.user_attrs
    missing = [place for place, key in keys.items() if key not in known]
    tasks = [
        # Trials count from 0; these are none.
        Task(number=-1 - index, genotype=genotypes[number], seed=seed, unseen=unseen)
        for index, (number, seed) in enumerate(missing)
    ]
    for outcome in run_tasks(executor, tasks):
        study.set_user_attr(keys[missing[-1 - outcome.number]], outcome.reward or 0.0)
    known = study.user_attrs
    return {r.number: sum(known[keys[r.number, s]] for s in seeds) / len(seeds) for r in records}
