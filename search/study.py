"""The search itself: ask for a genotype, reward it, tell; resumed where it was interrupted."""

from __future__ import annotations

import csv
import io
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from backbone.artifacts import write_json, write_text
from backbone.drawing import draw_genotype
from backbone.genotype import Genotype
from backbone.provenance import Provenance, read_record, recorded_key
from search.config import SearchConfig
from search.cost import pareto_front
from search.evaluation import Evaluator
from search.executors import running_executor
from search.reward import Reward
from search.samplers import Horizon, build_sampler
from search.space import SearchSpace, build_space
from search.storage import JOURNAL_NAME, Presence, open_storage, sole_driver
from search.trials import TrialDriver, TrialRecord, known_reward

__all__ = ["SearchResult", "TrialRecord", "search_cells"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search found."""

    path: Path
    """``cells.json``."""
    genotype: Genotype
    reward: float
    """The winner's in the search."""
    fresh_reward: float | None
    """Its mean reward with fresh seeds; None if none of the best was rewarded again."""
    unseen_reward: float | None
    """The same on data that the search never saw; None without such data."""
    trial: int
    """The winner's number."""
    num_trials: int
    num_failed: int
    seconds: float
    """Spent on rewards, over all runs of this search."""
    skipped: bool
    """Whether the file was already there, made from the same things."""

    def describe(self) -> str:
        """Return one line on the winner, and on why it need not be the trial rewarded best."""
        line = f"trial {self.trial} with reward {self.reward:.3f}"
        if self.fresh_reward is None:
            return line
        return f"{line}; best of those tried again with fresh seeds, {self.fresh_reward:.3f}"


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
    space = build_space(config.space)
    provenance = _provenance(config, reward, score, whole=True)
    path = out_dir / "cells.json"
    done = _finished(path, provenance)
    if done is not None:
        return done
    has_cost = config.cost.measure != "none"
    evaluator = Evaluator(reward, score=score, cost=config.cost if has_cost else None)
    with sole_driver(out_dir), _quiet_optuna():
        study = _open_study(config, out_dir, space, _provenance(config, reward, score, whole=False))
        presence = Presence(
            study, out_dir, shared=bool(config.storage), heartbeat_seconds=config.heartbeat_seconds
        )
        with running_executor(config.executor, evaluator) as executor, presence:
            driver = TrialDriver(study, space, config, executor, presence, on_trial)
            driver.run()
            winner, rewards = _choose_winner(driver, config, reward)
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
    _write(result, driver.records, rewards.fresh, provenance)
    return result


def _open_study(
    config: SearchConfig, out_dir: Path, space: SearchSpace, provenance: Provenance
) -> optuna.Study:
    storage = open_storage(config.storage, out_dir)
    name = f"cells-{provenance.key[:16]}"
    others = [n for n in optuna.get_all_study_names(storage) if n != name]
    if others:
        where = config.storage or out_dir / JOURNAL_NAME
        logger.warning(
            "%s holds %d searches with other settings; they stay as they are, and this one has "
            "trials of its own", where, len(others),
        )  # fmt: skip
    horizon = Horizon(config.history_lag if config.deterministic else None)
    return optuna.create_study(
        storage=storage,
        study_name=name,
        directions=["maximize", "minimize"] if config.is_multi_objective else ["maximize"],
        sampler=build_sampler(config.strategy, space, seed=config.seed, horizon=horizon),
        pruner=optuna.pruners.NopPruner(),  # ours decides with the thresholds of a task
        load_if_exists=True,
    )


@dataclass(frozen=True, slots=True)
class _Rewards:
    """What the best are worth beside the reward that the search gave them."""

    fresh: dict[int, float]
    """Trial -> mean reward with fresh seeds."""
    unseen: float | None
    """The winner's mean reward on data that the search never saw, with the same seeds."""


def _choose_winner(
    driver: TrialDriver, config: SearchConfig, reward: Reward
) -> tuple[TrialRecord, _Rewards]:
    """Return the best trial, by fresh seeds if some are tried again, and what it is worth."""
    ranked = driver.ranked()
    again = ranked[: config.num_reevaluated]
    seeds = range(config.seed + 1, config.seed + 1 + config.reevaluation_seeds)
    fresh = driver.rewards_again(again, seeds)
    winner = max(again, key=lambda r: driver.objective(r, fresh[r.number]), default=ranked[0])
    unseen = None
    if again and reward.unseen is not None:
        unseen = driver.rewards_again([winner], seeds, unseen=True)[winner.number]
    return winner, _Rewards(fresh, unseen)


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


def _write(
    result: SearchResult,
    records: list[TrialRecord],
    fresh: dict[int, float],
    provenance: Provenance,
) -> None:
    """Write all artifacts, ``cells.json`` last: with it the stage is finished."""
    folder = result.path.parent
    write_text(folder / "trials.csv", _as_csv(records, fresh))
    if any(record.cost is not None for record in records):
        _write_front(records, folder / "front", provenance)
    title = f"trial {result.trial}, reward {result.reward:.4f}"
    draw_genotype(result.genotype, folder / "cells.png", title=title)
    about = {
        "reward": result.reward,
        "fresh_reward": result.fresh_reward,
        "unseen_reward": result.unseen_reward,
        "trial": result.trial,
        "num_trials": result.num_trials,
        "num_failed": result.num_failed,
        "seconds": result.seconds,
        "provenance": provenance.to_dict(),
    }
    write_json(result.path, result.genotype.to_dict() | about)


def _write_front(records: list[TrialRecord], folder: Path, provenance: Provenance) -> None:
    """Write a file of cells for every genotype that no other beats in reward and cost."""
    complete = [r for r in records if r.complete and r.same_as is None]
    points = [(known_reward(r.reward), r.cost or 0.0) for r in complete]
    if folder.exists():  # of a shorter search
        shutil.rmtree(folder)
    for record in (complete[i] for i in pareto_front(points)):
        about = {
            "reward": record.reward, "cost": record.cost, "trial": record.number,
            "provenance": provenance.to_dict(),
        }  # fmt: skip
        path = folder / f"trial_{record.number}.json"
        write_json(path, record.genotype.to_dict() | about)


def _as_csv(records: list[TrialRecord], fresh: dict[int, float]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(
        ["trial", "reward", "fresh_reward", "seconds", "digest", "same_as", "failure", "pruned",
         "cost", "steps"]
    )  # fmt: skip
    for r in records:
        steps = " ".join(f"{step}:{value:.6g}" for step, value in r.steps.items())
        row = (
            r.number, r.reward, fresh.get(r.number), round(r.seconds, 3), r.genotype.digest,
            r.same_as, r.failure, r.pruned or None, r.cost, steps,
        )  # fmt: skip
        rows.writerow(["" if cell is None else cell for cell in row])
    return text.getvalue()


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keep Optuna from announcing every study and trial; the caller's setting comes back."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
