import os
import signal
import sys
import time
from pathlib import Path

import pytest

from search.execution import running_executor
from search.execution.ray import RayConfig
from search.execution.worker import Evaluator, Task

sys.path.insert(0, str(Path(__file__).parents[1]))  # for worker processes, too
from fake_rewards import FakeReward, Slow, genotypes

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:ray", "ignore::ResourceWarning")
ray = pytest.importorskip("ray", reason="Ray is not installed")


@pytest.fixture(scope="module")
def _cluster():
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    ray.init(
        num_cpus=3, include_dashboard=False, log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )  # fmt: skip
    yield
    ray.shutdown()


@pytest.mark.usefixtures("_cluster")
def test_the_task_of_a_lost_ray_worker_is_run_again(tmp_path):
    reward = Slow(folder=str(tmp_path), seconds=1.0)
    waiting = [Task(number=n, architecture=g, seed=5) for n, g in enumerate(genotypes(6))]
    calls, killed, done = tmp_path / "calls", None, {}
    with running_executor(RayConfig(num_workers=3), Evaluator(reward)) as executor:
        assert executor.num_slots == 3
        for _ in range(3):
            executor.submit(waiting.pop(0))
        while not calls.exists():
            time.sleep(0.05)
        killed = int(calls.read_text().split()[2])
        os.kill(killed, signal.SIGKILL)
        while len(done) < 6:
            for outcome in executor.wait():
                done[outcome.number] = outcome
                if waiting:
                    executor.submit(waiting.pop(0))
    expected = [FakeReward()(g, seed=5, report=lambda *_: None) for g in genotypes(6)]
    assert [done[n].reward for n in range(6)] == expected
    assert len(calls.read_text().splitlines()) == 7  # six, and the lost one again
    assert len({line.split()[2] for line in calls.read_text().splitlines()}) >= 3


@pytest.mark.usefixtures("_cluster")
@pytest.mark.parametrize(
    ("config", "message"),
    [
        (RayConfig(gpus_per_worker=0.5), "0 GPUs on 1 machines"),
        (RayConfig(num_workers=9), "9 workers of 1 CPUs"),
    ],
)
def test_a_cluster_without_the_resources_is_one_sentence(config, message):
    with (
        pytest.raises(ValueError, match=message),
        running_executor(config, Evaluator(FakeReward())),
    ):
        pass
