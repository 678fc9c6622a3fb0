"""The search itself: ask for a genotype, reward it, tell; resumed where it was interrupted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import optuna

from backbone.cells.genotype import Genotype
from backbone.io.provenance import Provenance, read_record, recorded_key
from search.execution import running_executor
from search.execution.worker import Evaluator
from search.rewards.base import Reward
from search.space import build_space
from search.strategies import build_sampler
from search.strategies.base import HistoryWindow
from search.strategies.random import RandomConfig
from search.study.config import PruningConfig, SearchConfig
from search.study.driver import TrialDriver, TrialRecord, known_reward
from search.study.reevaluate import choose_winner
from search.study.results import SearchResult, write_results
from search.study.storage import JOURNAL_NAME, Presence, open_storage, sole_driver

__all__ = ["SearchResult", "TrialRecord", "search_cells", "search_control"]

logger = logging.getLogger(__name__)


def search_cells(
    config: SearchConfig,
    out_dir: Path,
    *,
    reward: Reward,
    score: Reward | None = None,
    on_trial: Callable[[TrialRecord], None] | None = None,
) -> SearchResult:
    """Search, and write ``cells.json``, ``cells.png`` and ``trials.csv`` into ``out_dir``.

    A finished ``cells.json`` made from the same things is kept. An interrupted search goes on:
    finished trials are kept, the one in flight runs again with its decisions, and the sequence of
    genotypes and rewards is that of an uninterrupted search. A search with more trials continues
    one with fewer; any other difference starts a new study in the same storage.

    Args:
        config: the space, the strategy and how long to search.
        out_dir: folder of this search.
        reward: what is maximized. It is given canonical genotypes, and all trials the same seed.
            With an executor that has processes of its own it must be possible to pickle.
        score: a training-free reward; trials that are not among the best share by it
            (``config.pruning.keep_scored``) are not trained.
        on_trial: called after each trial that this run finishes.

    Raises:
        ValueError: if the space is impossible or the storage cannot be opened.
        RuntimeError: if another process searches in ``out_dir``, or every trial failed.
    """
    build_space(config.space)  # an impossible one is refused before anything is opened
    provenance = _provenance(config, reward, score, whole=True)
    path = out_dir / "cells.json"
    done = _finished(path, provenance)
    if done is not None:
        return done
    has_cost = config.cost.measure != "none"
    evaluator = Evaluator(reward, score=score, cost=config.cost if has_cost else None)
    with sole_driver(out_dir), _quiet_optuna():
        study = open_study(config, out_dir, reward=reward, score=score)
        presence = Presence(
            study, out_dir, shared=bool(config.storage), heartbeat_seconds=config.heartbeat_seconds
        )
        with running_executor(config.executor, evaluator) as executor, presence:
            driver = TrialDriver(study, config, executor, presence, on_trial)
            driver.run()
            winner, rewards = choose_winner(driver, config, reward)
    result = SearchResult(
        path=path,
        genotype=winner.genotype,
        reward=known_reward(winner.reward),
        fresh_reward=rewards.fresh.get(winner.number),
        unseen_reward=rewards.unseen,
        trial=winner.number,
        num_trials=len(driver.records),
        num_failed=sum(bool(record.failure) for record in driver.records),
        seconds=sum(record.seconds for record in driver.records),
        skipped=False,
    )
    write_results(result, driver.records, rewards.fresh, provenance)
    return result


def search_control(config: SearchConfig, out_dir: Path, *, reward: Reward) -> SearchResult:
    """Search at random with the budget of ``config``, in ``out_dir``/control; see ``search_cells``.

    The difference to a strategy's best is what the strategy, and not the many trials, found.
    """
    cost = replace(config.cost, front=False)
    control = SearchConfig(
        **{f.name: getattr(config, f.name) for f in fields(SearchConfig)}
        | {"strategy": RandomConfig(), "cost": cost, "pruning": PruningConfig()}
    )
    return search_cells(control, out_dir / "control", reward=reward)


def open_study(
    config: SearchConfig, out_dir: Path, *, reward: Reward, score: Reward | None = None
) -> optuna.Study:
    """Open the study of a search, with its sampler: a new one, or one to go on with.

    Raises:
        ValueError: if the space is impossible or the storage cannot be opened.
    """
    space = build_space(config.space)
    provenance = _provenance(config, reward, score, whole=False)
    storage = open_storage(config.storage, out_dir)
    name = f"cells-{provenance.key[:16]}"
    others = [n for n in optuna.get_all_study_names(storage) if n != name]
    if others:
        where = config.storage or out_dir / JOURNAL_NAME
        logger.warning(
            "%s holds %d searches with other settings; they stay as they are, and this one has "
            "trials of its own", where, len(others),
        )  # fmt: skip
    history = HistoryWindow(config.history_lag if config.deterministic else None)
    return optuna.create_study(
        storage=storage,
        study_name=name,
        directions=["maximize", "minimize"] if config.cost.front else ["maximize"],
        sampler=build_sampler(config.strategy, space, seed=config.seed, history=history),
        pruner=optuna.pruners.NopPruner(),  # ours decides with the thresholds of a task
        load_if_exists=True,
    )


def _provenance(
    config: SearchConfig, reward: Reward, score: Reward | None, *, whole: bool
) -> Provenance:
    """Return how the cells are made, or only what must agree for trials to be continued."""
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
    if whole:
        arguments |= {
            name: getattr(config, name)
            for name in ("num_trials", "num_reevaluated", "reevaluation_seeds")
        }
    return Provenance(stage="search", arguments=arguments, data=reward.data)


def _finished(path: Path, provenance: Provenance) -> SearchResult | None:
    record = read_record(path)
    if recorded_key(record) != provenance.key:
        return None
    names = (
        "reward",
        "fresh_reward",
        "unseen_reward",
        "trial",
        "num_trials",
        "num_failed",
        "seconds",
    )
    return SearchResult(
        path=path,
        genotype=Genotype.from_dict(record),
        skipped=True,
        **{name: record[name] for name in names},
    )


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keep Optuna from announcing every study and trial; the caller's setting comes back."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
