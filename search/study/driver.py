"""The trials of one search: proposed, handed to workers, remembered, and resumed after a kill."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from tqdm import tqdm

from backbone.cells.genotype import Genotype
from search.execution.base import Executor
from search.execution.worker import Outcome, Task
from search.rewards.cost import constrained_reward
from search.strategies.base import DecisionSampler, is_orphaned
from search.study.config import SearchConfig
from search.study.storage import JOURNAL_NAME, Presence

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""How often other drivers' trials are looked at when there is nothing else to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One finished trial."""

    number: int
    genotype: Genotype
    reward: float | None
    """None if the trial failed, or was stopped before it was trained. Of one that was stopped
    later, the last value reported."""
    seconds: float
    """Spent on the reward; 0 if it was known."""
    failure: str = ""
    """Why the trial failed."""
    same_as: int | None = None
    """Number of the earlier trial of an equal genotype whose reward was taken."""
    pruned: bool = False
    """Whether it was stopped early."""
    cost: float | None = None
    """What the genotype costs, where the search minds."""
    steps: Mapping[int, float] = field(default_factory=dict)
    """Step -> value reported there; step 0 is the training-free score."""

    @property
    def complete(self) -> bool:
        """Whether it has the reward of a whole training."""
        return self.reward is not None and not self.pruned


class TrialDriver:
    """Runs the trials of one study on an executor."""

    def __init__(
        self,
        study: Study,
        config: SearchConfig,
        executor: Executor,
        presence: Presence,
        on_trial: Callable[[TrialRecord], None] | None = None,
    ) -> None:
        assert isinstance(study.sampler, DecisionSampler)
        self.study, self.space, self.config = study, study.sampler.space, config
        self.executor, self.on_trial = executor, on_trial
        self._sampler = study.sampler
        self._presence = presence
        self._by_number: dict[int, TrialRecord] = {}
        self._first: dict[str, TrialRecord] = {}  # by digest: the first trial that was trained
        self._running: dict[int, tuple[Trial, Genotype]] = {}  # on the executor, by number
        self._running_digests: set[str] = set()
        self._following: dict[str, list[tuple[Trial, Genotype]]] = {}  # wait for an equal one
        self._open: list[int] = []  # numbers that were not finished when last looked at
        self._num_seen = 0
        self._num_lost = 0
        self._first_unfinished = 0
        self._best: float | None = None
        self._has_looked = False

    @property
    def records(self) -> list[TrialRecord]:
        """Finished trials by number, without those that were lost with their process."""
        return [self._by_number[number] for number in sorted(self._by_number)]

    def run(self) -> None:
        """Bring the study to ``num_trials`` finished trials, of which ``records`` then tells."""
        with tqdm(
            total=self.config.num_trials, desc="search", unit="trial",
            disable=not self.config.progress,
        ) as bar:  # fmt: skip
            self._look(bar)
            for number in self._interrupted():
                # Its number, and the decisions already made, stay; the rest is made as before.
                trial_id = self.study.get_trials(deepcopy=False)[number]._trial_id
                self._wait_for_slot(bar)
                self._start(Trial(self.study, trial_id))
                self._look(bar)
            while True:
                self._fill(bar)
                if self._running:
                    self._collect(bar)
                elif len(self._by_number) >= self.config.num_trials:
                    return
                else:  # what is missing runs in another process
                    time.sleep(POLL_SECONDS)
                self._look(bar)

    def _interrupted(self) -> list[int]:
        """Return the trials that this search left in flight when it was killed."""
        trials = self.study.get_trials(deepcopy=False)
        return [n for n in self._open if self._presence.owns(trials[n])]

    def _fill(self, bar: tqdm[None]) -> None:
        """Propose trials as long as there is a slot for them and their past is known."""
        while len(self._running) < self.executor.num_slots:
            trials = self.study.get_trials(deepcopy=False)
            number = len(trials)
            taken_over = any(trials[n].state is TrialState.WAITING for n in self._open)
            if number - self._num_lost >= self.config.num_trials and not taken_over:
                return
            if not self._sampler.history.may_propose(number, self._first_unfinished):
                return
            self._start(self.study.ask())
            self._look(bar)

    def _wait_for_slot(self, bar: tqdm[None]) -> None:
        while len(self._running) >= self.executor.num_slots:
            self._collect(bar)
            self._look(bar)

    def _start(self, trial: Trial) -> None:
        """Hand a trial to a worker, or let it wait for an equal one, or tell what is known."""
        self._presence.claim(trial)
        genotype = self.space.to_genotype(self._sampler.suggest(trial)).canonical()
        digest = genotype.digest
        trial.set_user_attr("digest", digest)
        if digest in self._first or self._is_under_way(digest, trial.number):
            self._following.setdefault(digest, []).append((trial, genotype))
            return
        task = Task(
            number=trial.number,
            genotype=genotype,
            seed=self.config.seed,
            thresholds=self._thresholds(trial.number),
        )
        self._running[trial.number] = (trial, genotype)
        self._running_digests.add(digest)
        self.executor.submit(task)

    def _is_under_way(self, digest: str, number: int) -> bool:
        if digest in self._running_digests or self._presence.is_alone:
            return digest in self._running_digests
        trials = self.study.get_trials(deepcopy=False)
        return any(
            trials[n].user_attrs.get("digest") == digest and not self._presence.owns(trials[n])
            for n in self._open
            if n < number
        )

    def _thresholds(self, number: int) -> dict[int, float]:
        """Return what must be reported at each step: the best share of the past (Li et al. 2020).

        "A system for massively parallel hyperparameter tuning", algorithm 2: asynchronous
        successive halving, without waiting for a rung to fill.
        """
        end = self._sampler.history.end(number)
        values: dict[int, list[float]] = {}
        last = 0  # step of a whole training, at which there is nothing left to save
        for record in self._by_number.values():
            if end is None or record.number < end:
                for step, value in record.steps.items():
                    values.setdefault(step, []).append(value)
                    last = max(last, step)
        pruning = self.config.pruning
        kept = {step: pruning.keep if step else pruning.keep_scored for step in values}
        return {
            step: least_of_best(past, kept[step])
            for step, past in values.items()
            if len(past) >= pruning.num_startup_trials and kept[step] < 1 and step < max(last, 1)
        }

    def _collect(self, bar: tqdm[None]) -> None:
        for outcome in self.executor.wait():
            trial, genotype = self._running.pop(outcome.number)
            self._running_digests.remove(genotype.digest)
            self._tell(trial, _record(genotype, outcome))

    def _tell(self, trial: Trial, record: TrialRecord) -> None:
        """Write a trial's end to the study; ``_look`` then finds it there."""
        for name, value in (
            ("seconds", record.seconds),
            ("same_as", record.same_as),
            ("cost", record.cost),
            ("steps", {str(step): value for step, value in record.steps.items()} or None),
            ("reward", record.reward),
            ("failure", record.failure or None),
        ):
            if value is not None:
                trial.set_user_attr(name, value)
        self._report_steps(trial, record)
        if record.failure:
            self.study.tell(trial, state=TrialState.FAIL)
        elif record.pruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, self._values(record))

    def _report_steps(self, trial: Trial, record: TrialRecord) -> None:
        """Let Optuna know what was reported; a pruned trial's value is the last of these."""
        if len(self.study.directions) > 1:
            return  # Optuna has no such thing there
        known = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        for step, value in record.steps.items():
            if step > 0 and step not in known:  # a trial that runs again reports again
                trial.report(self._constrained(value, record.cost), step)

    def _values(self, record: TrialRecord) -> list[float]:
        reward = known_reward(record.reward)
        if len(self.study.directions) == 1:
            return [self._constrained(reward, record.cost)]
        assert record.cost is not None
        return [reward, record.cost]

    def _constrained(self, reward: float, cost: float | None) -> float:
        if cost is None or not self.config.cost.target:
            return reward
        return constrained_reward(reward, cost, self.config.cost)

    def _look(self, bar: tqdm[None]) -> None:
        """Take in what is finished in the study, by this process, earlier ones or others."""
        trials = self.study.get_trials(deepcopy=False)
        running = (trials[n] for n in self._open)
        self._presence.take_over(t for t in running if t.state is TrialState.RUNNING)
        trials = self.study.get_trials(deepcopy=False)
        still_open = []
        for number in [*self._open, *range(self._num_seen, len(trials))]:
            trial = trials[number]
            if not trial.state.is_finished():
                still_open.append(number)
            elif is_orphaned(trial):
                self._num_lost += 1
            else:
                is_new = self._has_looked and self._presence.owns(trial)
                self._remember(self._recall(trial), is_new=is_new, bar=bar)
        self._has_looked = True
        self._open, self._num_seen = still_open, len(trials)
        self._first_unfinished = min(still_open, default=len(trials))
        self._tell_followers(bar)

    def _tell_followers(self, bar: tqdm[None]) -> None:
        for digest in [d for d in self._following if d in self._first]:
            first = self._first[digest]
            for trial, genotype in self._following.pop(digest):
                record = TrialRecord(
                    number=trial.number,
                    genotype=genotype,
                    reward=first.reward,
                    seconds=0.0,
                    failure=first.failure,
                    same_as=first.number,
                    pruned=first.pruned,
                    cost=first.cost,
                )
                self._tell(trial, record)
                self._open.remove(trial.number)
                self._remember(record, is_new=True, bar=bar)
        self._first_unfinished = min(self._open, default=self._num_seen)

    def _recall(self, trial: FrozenTrial) -> TrialRecord:
        decisions = self._sampler.decisions_of(trial)
        assert decisions is not None
        attrs = trial.user_attrs
        return TrialRecord(
            number=trial.number,
            genotype=self.space.to_genotype(decisions).canonical(),
            reward=attrs.get("reward"),
            seconds=attrs.get("seconds", 0.0),
            failure=attrs.get("failure", ""),
            same_as=attrs.get("same_as"),
            pruned=trial.state is TrialState.PRUNED,
            cost=attrs.get("cost"),
            steps={int(step): value for step, value in attrs.get("steps", {}).items()},
        )

    def _remember(self, record: TrialRecord, *, is_new: bool, bar: tqdm[None]) -> None:
        self._by_number[record.number] = record
        if record.same_as is None:
            self._first.setdefault(record.genotype.digest, record)
        if record.failure:
            logger.warning("trial %d failed: %s", record.number, record.failure)
        if record.complete:
            self._best = max(known_reward(record.reward), self._best or 0.0)
        if self._best is not None:
            bar.set_postfix_str(f"best reward {self._best:.4f}", refresh=False)
        bar.update()
        if is_new and self.on_trial is not None:
            self.on_trial(record)

    # -- the winner ----------------------------------------------------------------------------

    def ranked(self) -> list[TrialRecord]:
        """Return the fully trained genotypes, best first by what the search maximized.

        Raises:
            RuntimeError: if there is none.
        """
        rewarded = [r for r in self._first.values() if r.complete]
        if not rewarded:
            last = max(self._by_number)
            raise RuntimeError(
                f"all {len(self._by_number)} trials failed; the last because of "
                f"{self._by_number[last].failure}. To try them again, delete {JOURNAL_NAME}"
            )
        return sorted(rewarded, key=lambda r: (-self.objective(r), r.number))

    def objective(self, record: TrialRecord, reward: float | None = None) -> float:
        """Return what a search for one number maximizes: a reward, less for costing too much."""
        reward = known_reward(record.reward) if reward is None else reward
        return self._constrained(reward, record.cost)


def _record(genotype: Genotype, outcome: Outcome) -> TrialRecord:
    return TrialRecord(
        number=outcome.number,
        genotype=genotype,
        reward=outcome.reward,
        seconds=outcome.seconds,
        failure=outcome.failure,
        pruned=outcome.pruned,
        cost=outcome.cost,
        steps=outcome.steps,
    )


def least_of_best(values: Sequence[float], share: float) -> float:
    """Return the least of the best ``share`` of some values, at least one of them."""
    return sorted(values, reverse=True)[max(math.ceil(share * len(values)), 1) - 1]


def known_reward(reward: float | None) -> float:
    """Return the reward of a trial that is known to have succeeded."""
    assert reward is not None
    return reward
