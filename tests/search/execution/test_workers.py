"""Searches with several workers and several drivers, and their interruptions."""

import csv
import json
import os
import pwd
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from backbone.cells.genotype import Genotype
from search.execution.local import LocalConfig
from search.rewards.config import CostConfig
from search.space import SpaceConfig
from search.strategies.config import (
    ControllerConfig,
    EvolutionConfig,
    NsgaConfig,
    RandomConfig,
    TpeConfig,
)
from search.study.config import PruningConfig, SearchConfig
from search.study.storage import open_storage
from search.study.study import run_search, search_control

sys.path.insert(0, str(Path(__file__).parents[1]))  # for worker processes, too
from fake_rewards import SPACE, DiesOnce, FakeReward, Slow

EVOLUTION = EvolutionConfig(population_size=5, sample_size=3)
CONTROLLER = ControllerConfig(batch_size=4, num_units=8, learning_rate=0.05)
TWO = LocalConfig(num_workers=2)


def config(**changes):
    defaults = {
        "strategy": EVOLUTION,
        "num_trials": 24,
        "space": SpaceConfig(operations=list(SPACE.operations), num_blocks=1),
        "progress": False,
        "deterministic": True,
        "history_lag": 3,
        "num_reevaluated": 2,
        "cost": CostConfig(measure="none"),
    }
    return SearchConfig(**(defaults | changes))


def trials(folder, *ignored):
    with (folder / "trials.csv").open(newline="") as file:
        skipped = {"seconds", *ignored}
        return [{k: v for k, v in row.items() if k not in skipped} for row in csv.DictReader(file)]


@pytest.mark.parametrize("strategy", [EVOLUTION, CONTROLLER, TpeConfig(num_startup_trials=4)])
def test_two_workers_search_like_one_with_a_fixed_history_window(tmp_path, strategy):
    settings = config(strategy=strategy)
    run_search(settings, tmp_path / "one", reward=FakeReward())
    slow = Slow(folder=str(tmp_path))  # uneven speed: workers overtake one another
    two = replace(settings, executor=TWO)
    run_search(two, tmp_path / "two", reward=replace(slow, arguments={"reward": "slow"}))
    assert trials(tmp_path / "two") == trials(tmp_path / "one")
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len({line.split()[2] for line in calls}) == 2


KILLED = """
import pathlib, sys
sys.path.insert(0, sys.argv[2])
from test_workers import TWO, Slow, config
from dataclasses import replace
from search.study.study import run_search
if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1])
    out.mkdir(exist_ok=True)
    print("ready", flush=True)
    run_search(config(executor=TWO), out, reward=Slow(folder=str(out)))
"""


def test_a_search_with_two_workers_that_is_killed_at_any_instant_resumes(tmp_path):
    out, script = tmp_path / "cut", tmp_path / "killed.py"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(out), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        while not (out / "calls").exists() and process.poll() is None:
            time.sleep(0.01)
        milliseconds = random.SystemRandom().randrange(0, 400)
        time.sleep(milliseconds / 1000)
        process.send_signal(signal.SIGKILL)
    run_search(config(executor=TWO), out, reward=Slow(folder=str(out)))
    run_search(config(), tmp_path / "whole", reward=FakeReward())
    assert trials(out) == trials(tmp_path / "whole"), f"killed after {milliseconds} ms"


def test_a_search_survives_the_death_of_its_workers(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    settings = config(num_trials=4, num_reevaluated=0, executor=TWO)
    run_search(settings, tmp_path / "dying", reward=DiesOnce(folder=str(marks)))
    run_search(config(num_trials=4, num_reevaluated=0), tmp_path / "well", reward=FakeReward())
    assert trials(tmp_path / "dying") == trials(tmp_path / "well")


def check_stops(trained, step, *, num_startup):
    """Check that exactly the trials below the better half of all earlier ones were stopped."""
    seen = []
    for row in trained:
        value = float(dict(pair.split(":") for pair in row["steps"].split())[step])
        threshold = sorted(seen, reverse=True)[-(-len(seen) // 2) - 1] if seen else 0.0
        assert bool(row["pruned"]) == (len(seen) >= num_startup and value < threshold), row
        seen.append(value)


def test_trials_below_the_best_fraction_are_stopped_early(tmp_path):
    pruning = PruningConfig(keep=0.5, num_startup_trials=6)
    settings = config(strategy=RandomConfig(), deterministic=False, num_trials=40, pruning=pruning)
    result = run_search(settings, tmp_path, reward=FakeReward())
    rows = trials(tmp_path)
    trained = [row for row in rows if not row["same_as"]]
    stopped = [row for row in trained if row["pruned"]]
    check_stops(trained, "1", num_startup=6)
    assert 0.2 < len(stopped) / len(trained) < 0.8
    assert result.reward == max(float(r["reward"]) for r in trained if not r["pruned"])


class Score(FakeReward):
    """A training-free score."""

    def __call__(self, genotype, *, seed, report):
        return random.Random(f"score {genotype.digest}").random()


def test_a_training_free_score_saves_trainings(tmp_path):
    pruning = PruningConfig(keep_scored=0.5, num_startup_trials=4)
    settings = config(strategy=RandomConfig(), deterministic=False, num_trials=40, pruning=pruning)
    run_search(settings, tmp_path, reward=FakeReward(), score=Score())
    trained = [row for row in trials(tmp_path) if not row["same_as"]]
    check_stops(trained, "0", num_startup=4)
    stopped = [row for row in trained if row["pruned"]]
    assert stopped
    assert all(row["reward"] == "" and " " not in row["steps"] for row in stopped)


@pytest.mark.parametrize("strategy", [NsgaConfig(population_size=6), EVOLUTION])
def test_a_search_for_a_front_writes_the_cells_of_all_its_points(tmp_path, strategy):
    cost = CostConfig(measure="parameters", front=True, num_cells=1, first_filters=8)
    run_search(config(strategy=strategy, cost=cost), tmp_path, reward=FakeReward())
    rows = [r for r in trials(tmp_path) if not r["same_as"]]
    points = {r["trial"]: (float(r["reward"]), float(r["cost"])) for r in rows}
    front = {
        number
        for number, (reward, price) in points.items()
        if not any(r >= reward and c <= price and (r, c) != (reward, price)
                   for r, c in points.values())
    }  # fmt: skip
    written = {path.stem.removeprefix("trial_"): path for path in (tmp_path / "front").iterdir()}
    assert set(written) == front
    for number, path in written.items():
        data = json.loads(path.read_text())
        assert (data["reward"], data["cost"]) == points[number]
        assert Genotype.load(path).digest == next(r["digest"] for r in rows if r["trial"] == number)


def test_a_controller_cannot_search_for_a_front():
    with pytest.raises(
        ValueError, match=r"strategy=controller maximizes a single objective.*evolution"
    ):
        config(strategy=CONTROLLER, cost=CostConfig(front=True))


def test_a_constrained_search_prefers_costs_within_its_target(tmp_path):
    free = CostConfig(measure="parameters", num_cells=1, first_filters=8)
    run_search(config(cost=free, num_reevaluated=0), tmp_path / "free", reward=FakeReward())
    costs = sorted(float(r["cost"]) for r in trials(tmp_path / "free"))
    bound = replace(free, target=costs[len(costs) // 3], exponent_beyond=8.0)
    result = run_search(
        config(cost=bound, num_reevaluated=0), tmp_path / "bound", reward=FakeReward()
    )
    rows = {int(row["trial"]): row for row in trials(tmp_path / "bound")}
    winner = rows[result.trial]

    def constrained(row):
        excess = max(float(row["cost"]) / bound.target, 1.0)
        return float(row["reward"]) / excess**8

    assert constrained(winner) == pytest.approx(max(constrained(row) for row in rows.values()))
    assert result.reward == float(winner["reward"])  # the unconstrained reward is reported


DRIVER = """
import pathlib, sys
sys.path.insert(0, sys.argv[3])
from test_workers import Slow, config
from search.study.study import run_search
out = pathlib.Path(sys.argv[1])
out.mkdir()
settings = config(
    storage=sys.argv[2], deterministic=False, heartbeat_seconds=0.3, num_trials=16,
    num_reevaluated=0,
)
run_search(settings, out, reward=Slow(folder=str(out), seconds=float(sys.argv[4])))
"""


def drive(tmp_path, name, url, seconds):
    here = str(Path(__file__).parent)
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    return subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / name), url, here, str(seconds)]
    )


def share_a_storage(tmp_path, url):
    """Kill a driver in the middle of a trial; let two others finish the study."""
    dying = drive(tmp_path, "a", url, 60)
    while not (tmp_path / "a" / "calls").exists():
        assert dying.poll() is None
        time.sleep(0.05)
    dying.kill()
    dying.wait()
    drivers = [drive(tmp_path, name, url, 0.05) for name in ("b", "c")]
    # Some seconds on a free machine; several imports of torch at once take minutes on a busy one.
    assert [driver.wait(300) for driver in drivers] == [0, 0]
    (name,) = optuna.get_all_study_names(url)
    study = optuna.load_study(study_name=name, storage=url)
    states = [trial.state.name for trial in study.trials]
    complete = [t for t in study.trials if t.state.name == "COMPLETE"]
    assert states.count("FAIL") == 1  # the orphaned trial, which was queued again
    assert "RUNNING" not in states
    assert len(complete) >= 16
    orphan = next(t for t in study.trials if t.state.name == "FAIL")
    again = [t for t in complete if t.params == orphan.params]
    assert again
    calls = [(tmp_path / n / "calls").read_text().splitlines() for n in ("b", "c")]
    assert all(calls)  # both took part
    digests = [line.split()[0] for lines in calls for line in lines]
    assert len(set(digests)) >= len(digests) - 1  # only a race trains a genotype twice
    assert (tmp_path / "b" / "cells.json").exists()


@pytest.mark.timeout(600)
def test_two_drivers_share_a_storage_and_requeue_the_trial_of_a_dead_one(tmp_path):
    share_a_storage(tmp_path, f"sqlite:///{tmp_path}/study.db")


@pytest.fixture
def postgresql():
    """URL of a PostgreSQL server that runs for the test, on a socket of its own."""
    programs = [shutil.which(name) for name in ("initdb", "pg_ctl")]
    if None in programs:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not on the PATH")
    pytest.importorskip("psycopg2", reason="PostgreSQL's driver is not installed")
    as_root = os.geteuid() == 0  # PostgreSQL refuses to run as root
    user = pwd.getpwnam("postgres" if as_root else pwd.getpwuid(os.geteuid()).pw_name)
    with tempfile.TemporaryDirectory() as folder:
        if as_root:
            os.chown(folder, user.pw_uid, user.pw_gid)

        def run(program, *arguments):
            subprocess.run(
                [program, "-D", f"{folder}/data", *arguments], check=True, cwd=folder,
                stdout=subprocess.DEVNULL, user=user.pw_uid if as_root else None,
            )  # fmt: skip

        run(programs[0], "--auth=trust", "--username=postgres", "--no-sync")
        server = f"-c listen_addresses= -c unix_socket_directories={folder}"
        run(programs[1], "start", "--wait", "-o", server, "-l", f"{folder}/log")
        try:
            yield f"postgresql+psycopg2://postgres@/postgres?host={folder}"
        finally:
            run(programs[1], "stop", "--mode=immediate")


@pytest.mark.timeout(600)
def test_two_drivers_share_a_postgresql_server(tmp_path, postgresql):
    share_a_storage(tmp_path, postgresql)


def test_a_control_is_a_random_search_of_equal_budget(tmp_path):
    settings = config(num_trials=12, num_reevaluated=0)
    control = search_control(settings, tmp_path, reward=FakeReward())
    run_search(replace(settings, strategy=RandomConfig()), tmp_path / "random", reward=FakeReward())
    assert control.path == tmp_path / "control" / "cells.json"
    assert trials(control.path.parent) == trials(tmp_path / "random")


def test_a_journal_of_other_settings_is_named_and_kept(tmp_path, caplog):
    run_search(config(num_trials=3), tmp_path, reward=FakeReward())
    run_search(config(num_trials=3, seed=1), tmp_path, reward=FakeReward())
    assert "1 searches with other settings, which are kept" in caplog.text
    assert len(optuna.get_all_study_names(open_storage("", tmp_path))) == 2
