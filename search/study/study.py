"""A whole search: propose a genotype, reward it, repeat; resumed after an interruption."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import optuna

from backbone.cells.genotype import require_cells
from backbone.io.provenance import Provenance, read_record, recorded_key
from search.execution import running_executor
from search.execution.worker import Evaluator
from search.rewards.base import Reward
from search.space import SearchSpace, build_space
from search.strategies import build_sampler
from search.strategies.base import HistoryWindow
from search.strategies.config import RandomConfig
from search.study.config import SearchConfig
from search.study.driver import TrialDriver
from search.study.heartbeat import Heartbeat
from search.study.pruning import PruningConfig
from search.study.reevaluate import choose_winner
from search.study.results import SearchResult, write_results
from search.study.storage import JOURNAL_NAME, exclusive_lock, open_storage
from search.study.trials import Objective, TrialRecord

__all__ = ["SearchResult", "TrialRecord", "run_search", "search_control"]

logger = logging.getLogger(__name__)


def run_search(
    config: SearchConfig,
    out_dir: Path,
    *,
    reward: Reward,
    score: Reward | None = None,
    on_trial: Callable[[TrialRecord], None] | None = None,
) -> SearchResult:
    """Search, and write ``cells.json``, ``cells.png`` and ``trials.csv`` into ``out_dir``.

    A finished ``cells.json`` made from the same things is kept. An interrupted search resumes:
    finished trials are kept, the running ones run again with their decisions, and the sequence of
    genotypes and rewards is that of an uninterrupted search. A search with more trials continues
    one with fewer; any other difference starts a new study in the same storage.

    Args:
        config: the space, the strategy and the budget.
        out_dir: folder of this search.
        reward: the reward to maximize. It gets canonical genotypes, and the same seed for all
            trials. It must be picklable if the executor has processes of its own.
        score: a training-free reward; trials that are not among the best fraction by it
            (``config.pruning.keep_scored``) are not trained.
        on_trial: called after each trial that this run finishes.

    Raises:
        ValueError: if the space is impossible or the storage cannot be opened.
        SearchError: if another process searches in ``out_dir``, or every trial failed.
    """
    space = build_space(config.space)
    study_provenance = describe_study(config, reward=reward, score=score)
    provenance = _add_budget(study_provenance, config)
    path = out_dir / "cells.json"
    if recorded_key(read_record(path)) == provenance.key:
        return SearchResult.load(path)
    has_cost = config.cost.measure != "none"
    evaluator = Evaluator(reward, score=score, cost=config.cost if has_cost else None)
    with exclusive_lock(out_dir), _quiet_optuna():
        study = open_study(config, space, study_provenance, out_dir)
        heartbeat = Heartbeat(
            study,
            out_dir if config.storage else None,
            interval_seconds=config.heartbeat_seconds,
        )
        with running_executor(config.executor, evaluator) as executor, heartbeat:
            driver = TrialDriver(study, config, executor, heartbeat, on_trial)
            driver.run()
            winner, reevaluation = choose_winner(driver, reward)
    records = driver.records
    result = SearchResult(
        path=path,
        genotype=require_cells(winner.architecture),
        reward=winner.complete_reward,
        reevaluated_reward=reevaluation.reevaluated_rewards.get(winner.number),
        test_reward=reevaluation.test_reward,
        trial=winner.number,
        num_trials=len(records),
        num_failed=sum(bool(record.failure) for record in records),
        seconds=sum(record.seconds for record in records),
        skipped=False,
    )
    write_results(result, records, reevaluation.reevaluated_rewards, provenance)
    return result


def search_control(config: SearchConfig, out_dir: Path, *, reward: Reward) -> SearchResult:
    """Run a random search with the budget of ``config`` in ``out_dir``/control.

    The difference to a strategy's best reward is due to the strategy and not to the number of
    trials. See ``run_search``.
    """
    cost = replace(config.cost, front=False)
    control = SearchConfig(
        **{f.name: getattr(config, f.name) for f in fields(SearchConfig)}
        | {"strategy": RandomConfig(), "cost": cost, "pruning": PruningConfig()}
    )
    return run_search(control, out_dir / "control", reward=reward)


def open_study(
    config: SearchConfig, space: SearchSpace, provenance: Provenance, out_dir: Path
) -> optuna.Study:
    """Open the study of a search, with its sampler: a new study, or one to resume.

    Args:
        config: the search.
        space: its search space.
        provenance: identifies the study in its storage; see ``describe_study``.
        out_dir: folder of the journal, if the storage is one.

    Raises:
        ValueError: if the storage cannot be opened.
    """
    storage = open_storage(config.storage, out_dir)
    name = f"cells-{provenance.key[:16]}"
    others = [n for n in optuna.get_all_study_names(storage) if n != name]
    if others:
        logger.warning(
            "%s holds %d searches with other settings, which are kept; this search starts its own "
            "trials", config.storage or out_dir / JOURNAL_NAME, len(others),
        )  # fmt: skip
    history = HistoryWindow(config.history_lag if config.deterministic else None)
    return optuna.create_study(
        storage=storage,
        study_name=name,
        directions=Objective(config.cost).directions,
        sampler=build_sampler(config.strategy, space, seed=config.seed, history=history),
        pruner=optuna.pruners.NopPruner(),  # the thresholds of a task decide
        load_if_exists=True,
    )


def describe_study(
    config: SearchConfig, *, reward: Reward, score: Reward | None = None
) -> Provenance:
    """Return everything that must agree for a search to continue the trials of another."""
    arguments: dict[str, Any] = {
        "space": config.space,
        "strategy": config.strategy,
        "seed": config.seed,
        "reward": reward.arguments,
        "pruning": config.pruning,
        "cost": config.cost,
    }
    if score is not None:
        arguments["score"] = score.arguments
    if config.deterministic:
        arguments["history_lag"] = config.history_lag
    return Provenance(stage="search", arguments=arguments, data=reward.data)


def _add_budget(provenance: Provenance, config: SearchConfig) -> Provenance:
    """Return the provenance of the cells: that of the study, and how long it searches."""
    names = ("num_trials", "num_reevaluated", "reevaluation_seeds")
    budget = {name: getattr(config, name) for name in names}
    return replace(provenance, arguments={**provenance.arguments, **budget})


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keep Optuna from logging every study and trial; restore the caller's verbosity."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
