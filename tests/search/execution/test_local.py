import os
import sys
from pathlib import Path

import pytest
import torch

from backbone.io.runtime import usable_cores
from search.execution import running_executor
from search.execution.base import ExecutorConfig, run_tasks
from search.execution.local import LocalConfig, LocalExecutor, WorkerResources, allocate_resources
from search.execution.processes import partition_cores
from search.execution.worker import Evaluator, Task
from search.rewards.config import CostConfig
from search.rewards.cost import genotype_cost

sys.path.insert(0, str(Path(__file__).parents[1]))  # for worker processes, too
from fake_rewards import (
    Broken,
    DiesAlways,
    DiesOnce,
    FakeReward,
    FirstCore,
    OddError,
    Slow,
    genotypes,
)

TWO = LocalConfig(num_workers=2)


def outcomes(executor, tasks):
    """Return the outcomes of tasks ordered by number."""
    return sorted(run_tasks(executor, tasks), key=lambda outcome: outcome.number)


def tasks(number, **changes):
    return [
        Task(number=n, architecture=genotype, seed=5, **changes)
        for n, genotype in enumerate(genotypes(number))
    ]


def test_worker_processes_give_the_same_outcomes_as_this_process():
    with running_executor(ExecutorConfig(), Evaluator(FakeReward())) as executor:
        inline = outcomes(executor, tasks(6))
    with running_executor(TWO, Evaluator(FakeReward())) as executor:
        local = outcomes(executor, tasks(6))
    assert [o.reward for o in local] == [o.reward for o in inline]
    assert [o.steps for o in local] == [o.steps for o in inline]


def test_a_task_is_stopped_below_its_threshold():
    cost = CostConfig(measure="parameters", num_cells=1, first_filters=8)
    evaluate = Evaluator(FakeReward(), cost=cost)
    (task,) = tasks(1)
    whole = evaluate(task)
    stopped = evaluate(
        Task(number=0, architecture=task.architecture, seed=5, thresholds={1: whole.reward, 2: 0.0})
    )
    assert not whole.pruned
    assert stopped.pruned
    assert stopped.steps == {1: whole.reward / 2}
    assert stopped.reward == whole.reward / 2
    assert stopped.cost == genotype_cost(task.architecture, cost).value > 0


def test_the_task_of_a_worker_that_is_killed_is_run_again(tmp_path):
    with running_executor(TWO, Evaluator(DiesOnce(folder=str(tmp_path)))) as executor:
        done = outcomes(executor, tasks(3))
    with running_executor(ExecutorConfig(), Evaluator(FakeReward())) as executor:
        assert [o.reward for o in done] == [o.reward for o in outcomes(executor, tasks(3))]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_task_that_kills_every_worker_is_a_failure_with_its_reason():
    with running_executor(LocalConfig(num_workers=1), Evaluator(DiesAlways())) as executor:
        (outcome,) = outcomes(executor, tasks(1))
    assert outcome.reward is None
    assert "signal 9" in outcome.failure
    assert "memory" in outcome.failure
    assert "3 times" in outcome.failure


@pytest.mark.parametrize("config", [ExecutorConfig(), LocalConfig(num_workers=1)])
def test_a_bug_in_a_reward_reaches_the_driver(config):
    expected = (
        OddError if not isinstance(config, LocalConfig) else RuntimeError
    )  # it cannot be pickled
    with (
        running_executor(config, Evaluator(Broken())) as executor,
        pytest.raises(expected, match="3 bugs"),
    ):
        outcomes(executor, tasks(1))


def test_workers_end_with_the_executor(tmp_path):
    reward = Slow(folder=str(tmp_path), seconds=60)
    with running_executor(TWO, Evaluator(reward)) as executor:
        for task in tasks(2):
            executor.submit(task)
        assert isinstance(executor, LocalExecutor)
        processes = [worker.process for worker in executor._workers]
    assert not any(process.is_alive() for process in processes)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be chosen here")
def test_each_worker_stays_on_its_cores():
    cores = usable_cores()
    with running_executor(LocalConfig(), Evaluator(FirstCore())) as executor:
        assert executor.num_slots == len(cores)
        done = outcomes(executor, tasks(2 * len(cores)))
    assert {o.reward for o in done} == set(cores)


@pytest.mark.parametrize(
    ("cores", "workers", "expected"),
    [
        ([0, 1, 2, 3], 2, [[0, 1], [2, 3]]),
        ([4, 5, 6], 2, [[4], [5]]),
        ([0, 1], 3, [[0], [1], [0]]),
    ],
)
def test_cores_are_partitioned_evenly(cores, workers, expected):
    assert partition_cores(cores, workers) == expected


def test_workers_take_turns_with_the_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    resources = allocate_resources(LocalConfig(workers_per_gpu=2))
    assert [r.gpu for r in resources] == ["0", "1", "0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [r.gpu for r in allocate_resources(LocalConfig(workers_per_gpu=1))] == ["5", "7"]


def test_missing_gpus_are_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="torch finds no GPU; set it to 0"):
        allocate_resources(LocalConfig(workers_per_gpu=1))


def test_a_worker_has_no_gpu_of_its_own_by_default():
    assert WorkerResources((0,)).gpu is None
