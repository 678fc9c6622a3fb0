"""Choice of the winner: the best trials are reevaluated, since the best of many is partly luck."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from optuna import Study

from search.execution.base import Executor, run_tasks
from search.execution.worker import Task
from search.rewards.base import Reward
from search.study.config import SearchError
from search.study.driver import TrialDriver
from search.study.storage import JOURNAL_NAME
from search.study.trials import TrialRecord


@dataclass(frozen=True, slots=True)
class Reevaluation:
    """Rewards of the best trials with seeds that the search did not use."""

    reevaluated_rewards: Mapping[int, float]
    """Trial -> mean reward with new seeds."""
    test_reward: float | None
    """The winner's mean reward with the same seeds on data that no trial was scored on."""


def choose_winner(driver: TrialDriver, reward: Reward) -> tuple[TrialRecord, Reevaluation]:
    """Return the best trial, by its reevaluated reward if any trial is reevaluated.

    Args:
        driver: a search whose trials are finished.
        reward: the reward of the search.

    Raises:
        RuntimeError: if no trial succeeded.
    """
    config = driver.config
    ranked = rank_trials(driver)
    best = ranked[: config.num_reevaluated]
    seeds = range(config.seed + 1, config.seed + 1 + config.reevaluation_seeds)
    means = reevaluate(driver.study, driver.executor, best, seeds)
    winner = max(best, key=lambda r: driver.objective.scalar(r, means[r.number]), default=ranked[0])
    test_reward = None
    if best and reward.test_reward is not None:
        tested = reevaluate(driver.study, driver.executor, [winner], seeds, use_test_reward=True)
        test_reward = tested[winner.number]
    return winner, Reevaluation(means, test_reward)


def rank_trials(driver: TrialDriver) -> list[TrialRecord]:
    """Return the fully trained architectures, one trial each, by decreasing objective.

    Raises:
        SearchError: if there is none.
    """
    complete = [record for record in driver.history.originals.values() if record.is_complete]
    if not complete:
        records = driver.records
        raise SearchError(
            f"all {len(records)} trials failed; the last because of {records[-1].failure}. To try "
            f"them again, delete {JOURNAL_NAME}"
        )
    return sorted(complete, key=lambda r: (-driver.objective.scalar(r), r.number))


def reevaluate(
    study: Study,
    executor: Executor,
    records: Sequence[TrialRecord],
    seeds: Iterable[int],
    *,
    use_test_reward: bool = False,
) -> dict[int, float]:
    """Reward the architectures of some trials again; return trial -> mean reward over seeds.

    A failure counts as 0. The study keeps every reward, so that none is computed twice.

    Args:
        study: stores the rewards.
        executor: computes them.
        records: the trials.
        seeds: other seeds than the search's.
        use_test_reward: whether to score on data that no trial is scored on.
    """
    seeds = list(seeds)
    prefix = "unseen" if use_test_reward else "fresh"  # as in the studies of earlier versions
    keys = {(r.number, s): f"{prefix}:{r.architecture.digest}:{s}" for r in records for s in seeds}
    architectures = {r.number: r.architecture for r in records}
    stored = study.user_attrs
    missing = [index for index, key in keys.items() if key not in stored]
    tasks = [
        # Negative numbers, since trials count from 0.
        Task(
            number=-1 - index,
            architecture=architectures[number],
            seed=seed,
            use_test_reward=use_test_reward,
        )
        for index, (number, seed) in enumerate(missing)
    ]
    for outcome in run_tasks(executor, tasks):
        study.set_user_attr(keys[missing[-1 - outcome.number]], outcome.reward or 0.0)
    stored = study.user_attrs
    return {r.number: sum(stored[keys[r.number, s]] for s in seeds) / len(seeds) for r in records}
