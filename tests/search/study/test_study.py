import csv
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

import optuna
import pytest

from backbone.cells.genotype import Genotype
from search.space import SpaceConfig
from search.strategies.config import ControllerConfig, RandomConfig
from search.study.config import SearchConfig
from search.study.study import run_search

SMALL = SpaceConfig(operations=["identity", "conv_1x1", "max_pool_3x3"], num_blocks=1)
CONTROLLER = ControllerConfig(batch_size=4, num_units=8, learning_rate=0.05)


def config(**changes):
    defaults = {"strategy": RandomConfig(), "num_trials": 10, "space": SMALL, "progress": False}
    return SearchConfig(**(defaults | changes))


@dataclass
class FromDigest:
    """A reward that is a function of genotype and seed, and records its calls."""

    interrupt_at: int = -1
    fail_at: tuple[int, ...] = ()
    arguments: dict = field(default_factory=lambda: {"reward": "from_digest"})
    data: dict = field(default_factory=dict)
    calls: list = field(default_factory=list)
    test_reward: None = None

    def __call__(self, genotype, *, seed, report):
        if len(self.calls) == self.interrupt_at:
            self.interrupt_at = -1
            raise KeyboardInterrupt
        self.calls.append((genotype.digest, seed))
        if len(self.calls) - 1 in self.fail_at:
            raise FloatingPointError("the loss became nan in epoch 1")
        value = random.Random(f"{genotype.digest} {seed}").random()
        report(1, value)
        return value


def trials(folder):
    """Return the rows of ``trials.csv`` without their times."""
    with (folder / "trials.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_a_search_writes_its_cells_a_drawing_and_its_trials(tmp_path):
    reward = FromDigest()
    result = run_search(config(num_reevaluated=0), tmp_path, reward=reward)
    data = json.loads((tmp_path / "cells.json").read_text())
    rows = trials(tmp_path)
    best = max(rows, key=lambda row: float(row["reward"]))
    assert Genotype.load(tmp_path / "cells.json") == result.genotype
    assert result.genotype.digest == best["digest"]
    assert data["reward"] == result.reward == float(best["reward"])
    assert data["trial"] == result.trial == int(best["trial"])
    assert data["provenance"]["stage"] == "search"
    assert data["provenance"]["arguments"]["num_trials"] == len(rows) == 10
    assert (tmp_path / "cells.png").read_bytes().startswith(b"\x89PNG")


def test_a_finished_search_is_skipped_and_a_changed_one_is_not(tmp_path):
    first = run_search(config(), tmp_path, reward=FromDigest())
    idle = FromDigest()
    again = run_search(config(), tmp_path, reward=idle)
    assert not first.skipped
    assert again.skipped
    assert not idle.calls
    assert (again.genotype, again.reward, again.trial) == (
        first.genotype, first.reward, first.trial,
    )  # fmt: skip
    other = FromDigest(data={"train": "changed"})
    assert not run_search(config(), tmp_path, reward=other).skipped
    assert other.calls


@pytest.mark.parametrize("strategy", [RandomConfig(), CONTROLLER])
@pytest.mark.parametrize("moment", [0, 3, 9, 18])
def test_an_interrupted_search_resumes_and_ends_with_the_same_trials(tmp_path, strategy, moment):
    settings = config(strategy=strategy, num_trials=18)
    whole = FromDigest()
    run_search(settings, tmp_path / "whole", reward=whole)
    reward = FromDigest(interrupt_at=moment)
    with pytest.raises(KeyboardInterrupt):
        run_search(settings, tmp_path / "cut", reward=reward)
    assert not (tmp_path / "cut" / "cells.json").exists()
    run_search(settings, tmp_path / "cut", reward=reward)
    assert reward.calls == whole.calls  # nothing is rewarded twice
    assert trials(tmp_path / "cut") == trials(tmp_path / "whole")


KILLED = """
import os, pathlib, sys, time
sys.path.insert(0, sys.argv[2])
from test_study import CONTROLLER, FromDigest, config
from search.study.study import run_search
print("ready", flush=True)
class Slow(FromDigest):
    def __call__(self, genotype, *, seed, report):
        time.sleep(0.01)
        return super().__call__(genotype, seed=seed, report=report)
run_search(config(strategy=CONTROLLER, num_trials=24), pathlib.Path(sys.argv[1]), reward=Slow())
"""


def test_a_search_that_is_killed_at_any_instant_resumes(tmp_path):
    milliseconds = random.SystemRandom().randrange(20, 600)
    settings = config(strategy=CONTROLLER, num_trials=24)
    here = os.path.dirname(__file__)  # noqa: PTH120
    command = [sys.executable, "-c", KILLED, str(tmp_path / "cut"), here]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        time.sleep(milliseconds / 1000)
        process.send_signal(signal.SIGKILL)
    run_search(settings, tmp_path / "cut", reward=FromDigest())
    run_search(settings, tmp_path / "whole", reward=FromDigest())
    assert trials(tmp_path / "cut") == trials(tmp_path / "whole"), f"killed at {milliseconds} ms"


def test_equal_genotypes_are_rewarded_once(tmp_path):
    tiny = SpaceConfig(operations=["identity"], num_blocks=1, combinations=["add"])
    reward = FromDigest()
    run_search(config(space=tiny, num_trials=30, num_reevaluated=0), tmp_path, reward=reward)
    digests = [digest for digest, _ in reward.calls]
    rows = trials(tmp_path)
    assert len(digests) == len(set(digests)) == len({row["digest"] for row in rows}) == 9
    known = {row["digest"]: row for row in reversed(rows)}
    for row in rows:
        first = known[row["digest"]]
        assert row["reward"] == first["reward"]
        assert row["same_as"] == ("" if row is first else first["trial"])


def test_a_failed_trial_is_recorded_with_its_reason_and_the_search_continues(tmp_path, caplog):
    records = []
    with caplog.at_level(logging.WARNING):
        result = run_search(
            config(), tmp_path, reward=FromDigest(fail_at=(0, 4)), on_trial=records.append
        )
    assert result.num_failed == 2
    assert [r.number for r in records] == list(range(10))
    assert [r.reward is None for r in records].count(True) == 2
    assert records[0].failure == "FloatingPointError: the loss became nan in epoch 1"
    assert trials(tmp_path)[0]["failure"] == records[0].failure
    assert trials(tmp_path)[0]["reward"] == ""
    assert "trial 0 failed" in caplog.text


def test_a_search_without_any_success_gives_the_reason(tmp_path):
    with pytest.raises(RuntimeError, match=r"all 3 trials failed.*the loss became nan"):
        run_search(config(num_trials=3), tmp_path, reward=FromDigest(fail_at=(0, 1, 2)))
    assert not (tmp_path / "cells.json").exists()


@pytest.mark.parametrize("value", [float("nan"), -0.5, float("inf")])
def test_a_reward_that_is_not_a_finite_number_of_at_least_0_is_a_failure(tmp_path, value):
    class Odd(FromDigest):
        def __call__(self, genotype, *, seed, report):
            return value

    with pytest.raises(RuntimeError, match="at least 0"):
        run_search(config(num_trials=1), tmp_path, reward=Odd())


def test_a_bug_in_a_reward_ends_the_search(tmp_path):
    class Broken(FromDigest):
        def __call__(self, genotype, *, seed, report):
            raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        run_search(config(), tmp_path, reward=Broken())


def test_all_trials_have_one_seed_and_the_best_are_reevaluated_with_others(tmp_path):
    reward = FromDigest()
    settings = config(seed=7, num_reevaluated=2, reevaluation_seeds=2)
    result = run_search(settings, tmp_path, reward=reward)
    assert {seed for _, seed in reward.calls[:-4]} == {7}
    assert [seed for _, seed in reward.calls[-4:]] == [8, 9, 8, 9]
    reevaluated = [row for row in trials(tmp_path) if row["reevaluated_reward"]]
    best = sorted(
        {r["digest"]: r for r in trials(tmp_path)}.values(), key=lambda r: -float(r["reward"])
    )
    assert {row["digest"] for row in reevaluated} == {row["digest"] for row in best[:2]}
    assert (
        result.genotype.digest
        == max(reevaluated, key=lambda r: float(r["reevaluated_reward"]))["digest"]
    )


def test_a_longer_search_continues_a_shorter_one(tmp_path):
    run_search(config(num_trials=6, num_reevaluated=0), tmp_path, reward=FromDigest())
    more = FromDigest()
    run_search(config(num_trials=10, num_reevaluated=0), tmp_path, reward=more)
    run_search(config(num_trials=10, num_reevaluated=0), tmp_path / "b", reward=FromDigest())
    assert len(more.calls) <= 4
    assert trials(tmp_path) == trials(tmp_path / "b")


def test_studies_of_different_settings_share_a_storage_without_mixing(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    for seed in (0, 1):
        settings = config(seed=seed, storage=url, num_trials=4)
        run_search(settings, tmp_path / str(seed), reward=FromDigest())
    assert len(trials(tmp_path / "1")) == 4
    assert trials(tmp_path / "0") != trials(tmp_path / "1")
    assert len(optuna.get_all_study_names(url)) == 2


def test_optunas_verbosity_is_restored(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    run_search(config(num_trials=2), tmp_path, reward=FromDigest())
    assert optuna.logging.get_verbosity() == optuna.logging.INFO


def test_the_progress_bar_shows_the_best_reward(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("backbone.io.progress.shows_bars", lambda: True)
    run_search(config(num_trials=3, progress=True), tmp_path, reward=FromDigest())
    best = max(float(row["reward"]) for row in trials(tmp_path))
    assert f"best reward {best:.4f}" in capfd.readouterr().err
