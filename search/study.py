"""The search itself: ask for a genotype, reward it, tell; resumed where it was interrupted."""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from tqdm import tqdm

from backbone.artifacts import write_json, write_text
from backbone.drawing import draw_genotype
from backbone.genotype import Genotype
from backbone.provenance import Provenance, read_record, recorded_key
from search.config import SearchConfig
from search.reward import Reward
from search.samplers import build_sampler
from search.space import SearchSpace, build_space
from search.storage import JOURNAL_NAME, open_storage, sole_driver

logger = logging.getLogger(__name__)

FAILURES = (ArithmeticError, MemoryError, RuntimeError)
"""What a reward raises when it is the genotype's fault, or memory's; see ``Reward``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One finished trial."""

    number: int
    genotype: Genotype
    reward: float | None
    """None if the trial failed."""
    seconds: float
    """Spent on the reward; 0 if it was known."""
    failure: str = ""
    """Why the trial failed."""
    same_as: int | None = None
    """Number of the earlier trial of an equal genotype whose reward was taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search found."""

    path: Path
    """``cells.json``."""
    genotype: Genotype
    reward: float
    """The winner's in the search."""
    trial: int
    """The winner's number."""
    num_trials: int
    num_failed: int
    seconds: float
    """Spent on rewards, over all runs of this search."""
    skipped: bool
    """Whether the file was already there, made from the same things."""


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
        driver = _Driver(study, space, config, reward, on_trial)
        driver.run()
        winner, fresh = driver.choose_winner()
    result = SearchResult(
        path=path,
        genotype=winner.genotype,
        reward=_known(winner.reward),
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
    names = ("reward", "trial", "num_trials", "num_failed", "seconds")
    return SearchResult(
        path=path,
        genotype=Genotype.from_dict(record),
        skipped=True,
        **{name: record[name] for name in names},
    )


class _Driver:
    """Runs the trials of one study, one after the other."""

    def __init__(
        self,
        study: Study,
        space: SearchSpace,
        config: SearchConfig,
        reward: Reward,
        on_trial: Callable[[TrialRecord], None] | None,
    ) -> None:
        self.study, self.space, self.config = study, space, config
        self.reward, self.on_trial = reward, on_trial
        self.records: list[TrialRecord] = []
        self._first: dict[str, TrialRecord] = {}  # by digest: the first trial that was rewarded
        self._best: float | None = None

    def run(self) -> None:
        """Bring the study to ``num_trials`` finished trials, of which ``records`` then tells."""
        with tqdm(
            total=self.config.num_trials, desc="search", unit="trial",
            disable=not self.config.progress,
        ) as bar:  # fmt: skip
            for number in range(self.config.num_trials):
                trial = self._trial(number)
                if isinstance(trial, FrozenTrial):
                    record = self._recall(trial)
                else:
                    record = self._evaluate(trial)
                self._remember(record)
                if self._best is not None:
                    bar.set_postfix_str(f"best reward {self._best:.4f}", refresh=False)
                bar.update()
                if self.on_trial is not None and isinstance(trial, Trial):
                    self.on_trial(record)

    def _trial(self, number: int) -> Trial | FrozenTrial:
        """Return a finished trial as it is, one in flight to be run again, or a new one."""
        trials = self.study.get_trials(deepcopy=False)
        if number >= len(trials):
            return self.study.ask()
        trial = trials[number]
        if trial.state.is_finished():
            return trial
        # Its number, and the decisions already made, stay; the sampler makes the rest as before.
        return Trial(self.study, trial._trial_id)

    def _genotype(self, decisions: list[int]) -> Genotype:
        return self.space.to_genotype(decisions).canonical()

    def _recall(self, trial: FrozenTrial) -> TrialRecord:
        decisions = [trial.params[choice.name] for choice in self.space.choices]
        return TrialRecord(
            number=trial.number,
            genotype=self._genotype(decisions),
            reward=trial.value,
            seconds=trial.user_attrs.get("seconds", 0.0),
            failure=trial.user_attrs.get("failure", ""),
            same_as=trial.user_attrs.get("same_as"),
        )

    def _evaluate(self, trial: Trial) -> TrialRecord:
        decisions = [
            trial.suggest_int(choice.name, 0, choice.num_options - 1)
            for choice in self.space.choices
        ]
        genotype = self._genotype(decisions)
        first = self._first.get(genotype.digest)
        value, seconds, failure = None, 0.0, ""
        if first is not None:
            value = first.reward
        else:
            start = time.perf_counter()
            value, failure = self._reward(genotype, self.config.seed, _reporter(self.study, trial))
            seconds = time.perf_counter() - start
        record = TrialRecord(
            number=trial.number,
            genotype=genotype,
            reward=value,
            seconds=seconds,
            failure=failure,
            same_as=None if first is None else first.number,
        )
        _tell(self.study, trial, record)
        return record

    def _reward(
        self, genotype: Genotype, seed: int, report: Callable[[int, float], None]
    ) -> tuple[float | None, str]:
        """Return the reward and "", or None and why there is none."""
        try:
            value = float(self.reward(genotype, seed=seed, report=report))
        except FAILURES as error:
            return None, f"{type(error).__name__}: {error}"
        if not 0 <= value < float("inf"):
            return None, f"the reward is {value}; it must be a number of at least 0"
        return value, ""

    def _remember(self, record: TrialRecord) -> None:
        self.records.append(record)
        if record.reward is None:
            logger.warning("trial %d failed: %s", record.number, record.failure)
            return
        self._first.setdefault(record.genotype.digest, record)
        self._best = max(record.reward, self._best or 0.0)

    def choose_winner(self) -> tuple[TrialRecord, dict[int, float]]:
        """Return the winner, and the mean reward on fresh seeds of those tried again.

        Raises:
            RuntimeError: if every trial failed.
        """
        # Sorting is stable: of equal rewards the earlier trial comes first.
        ranked = sorted(self._first.values(), key=lambda r: -_known(r.reward))
        if not ranked:
            raise RuntimeError(
                f"all {len(self.records)} trials failed; the last because of "
                f"{self.records[-1].failure}. To try them again, delete {JOURNAL_NAME}"
            )
        again = ranked[: self.config.num_reevaluated]
        if not again:
            return ranked[0], {}
        fresh = {record.number: self._fresh_reward(record.genotype) for record in again}
        return max(again, key=lambda record: fresh[record.number]), fresh

    def _fresh_reward(self, genotype: Genotype) -> float:
        """Return the mean over seeds that the search did not use; a failure counts as 0."""
        values = []
        for offset in range(1, self.config.reevaluation_seeds + 1):
            seed = self.config.seed + offset
            key = f"fresh:{genotype.digest}:{seed}"  # in the study, so that it is done once
            if key not in self.study.user_attrs:
                value, _ = self._reward(genotype, seed, lambda _step, _value: None)
                self.study.set_user_attr(key, value or 0.0)
            values.append(float(self.study.user_attrs[key]))
        return sum(values) / len(values)


def _reporter(study: Study, trial: Trial) -> Callable[[int, float], None]:
    # A trial that runs again reports again, of which Optuna would warn.
    reported = set(study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    def report(step: int, value: float) -> None:
        if step not in reported:
            trial.report(value, step)
            reported.add(step)

    return report


def _tell(study: Study, trial: Trial, record: TrialRecord) -> None:
    trial.set_user_attr("digest", record.genotype.digest)
    trial.set_user_attr("seconds", record.seconds)
    if record.same_as is not None:
        trial.set_user_attr("same_as", record.same_as)
    if record.reward is None:
        trial.set_user_attr("failure", record.failure)
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, record.reward)


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
        "fresh_reward": fresh.get(result.trial),
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


def _known(reward: float | None) -> float:
    assert reward is not None
    return reward
