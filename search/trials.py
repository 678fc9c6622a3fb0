"""The trials of one search, run one after the other and resumed where they were interrupted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from tqdm import tqdm

from backbone.genotype import Genotype
from search.config import SearchConfig
from search.reward import Reward
from search.space import SearchSpace
from search.storage import JOURNAL_NAME

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


class TrialDriver:
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
        ranked = sorted(self._first.values(), key=lambda r: -known_reward(r.reward))
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


def known_reward(reward: float | None) -> float:
    """Return the reward of a trial that is known to have succeeded."""
    assert reward is not None
    return reward
