"""The search itself: ask for a genotype, reward it, tell; resumed where it was interrupted."""

from __future__ import annotations

import csv
import io
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
from search.reward import Reward
from search.samplers import build_sampler
from search.space import build_space
from search.storage import open_storage, sole_driver
from search.trials import TrialDriver, TrialRecord, known_reward

__all__ = ["SearchResult", "TrialRecord", "search_cells"]


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
        on_trial: called after each trial that this run finishes.

    Raises:
        ValueError: if the space is impossible or the storage cannot be opened.
        RuntimeError: if another process searches in ``out_dir``, or every trial failed.
    """
    space = build_space(config.space)
    provenance = _provenance(config, reward, whole=True)
    path = out_dir / "cells.json"
    done = _finished(path, provenance)
    if done is not None:
        return done
    with sole_driver(out_dir), _quiet_optuna():
        study = optuna.create_study(
            storage=open_storage(config.storage, out_dir),
            study_name=f"cells-{_provenance(config, reward, whole=False).key[:16]}",
            direction="maximize",
            sampler=build_sampler(config.strategy, space, seed=config.seed),
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        driver = TrialDriver(study, space, config, reward, on_trial)
        driver.run()
        winner, fresh = driver.choose_winner()
    result = SearchResult(
        path=path,
        genotype=winner.genotype,
        reward=known_reward(winner.reward),
        fresh_reward=fresh.get(winner.number),
        trial=winner.number,
        num_trials=len(driver.records),
        num_failed=sum(record.reward is None for record in driver.records),
        seconds=sum(record.seconds for record in driver.records),
        skipped=False,
    )
    _write(result, driver.records, fresh, provenance)
    return result


def _provenance(config: SearchConfig, reward: Reward, *, whole: bool) -> Provenance:
    """Return how the cells are made, or only what must agree for trials to be continued."""
    arguments: dict[str, Any] = {
        "space": config.space,
        "strategy": config.strategy,
        "seed": config.seed,
        "reward": reward.arguments,
    }
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
    names = ("reward", "fresh_reward", "trial", "num_trials", "num_failed", "seconds")
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
    title = f"trial {result.trial}, reward {result.reward:.4f}"
    draw_genotype(result.genotype, folder / "cells.png", title=title)
    about = {
        "reward": result.reward,
        "fresh_reward": result.fresh_reward,
        "trial": result.trial,
        "num_trials": result.num_trials,
        "num_failed": result.num_failed,
        "seconds": result.seconds,
        "provenance": provenance.to_dict(),
    }
    write_json(result.path, result.genotype.to_dict() | about)


def _as_csv(records: list[TrialRecord], fresh: dict[int, float]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["trial", "reward", "fresh_reward", "seconds", "digest", "same_as", "failure"])
    for r in records:
        row = (r.number, r.reward, fresh.get(r.number), round(r.seconds, 3), r.genotype.digest)
        rows.writerow(["" if cell is None else cell for cell in (*row, r.same_as, r.failure)])
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
