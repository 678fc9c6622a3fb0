import json
from dataclasses import dataclass, field

import pytest

from search.analysis.reward_log import RewardLog
from search.rewards.base import Pruned
from search.space import SearchSpace

SPACE = SearchSpace(num_blocks=1)
ONE, OTHER = (SPACE.to_genotype([0, 1, kind, 3, 0] * 2) for kind in (1, 2))


@dataclass
class Counting:
    """A reward that counts how often it is asked."""

    value: float = 0.5
    error: Exception | None = None
    arguments: dict = field(default_factory=lambda: {"reward": "counting"})
    data: dict = field(default_factory=dict)
    asked: int = 0

    def __call__(self, genotype, *, seed, report):
        self.asked += 1
        report(1, self.value)
        if self.error is not None:
            raise self.error
        return self.value


def measure(path, reward, genotype=ONE, seed=0, name="proxy"):
    with RewardLog.open(path) as log:
        return log.measure(name, reward, genotype, seed=seed)


def test_a_measurement_is_made_once_whatever_it_is_called(tmp_path):
    reward = Counting()
    first = measure(tmp_path / "log", reward)
    assert measure(tmp_path / "log", reward, ONE.canonical(), name="renamed") == first
    assert reward.asked == 1
    assert first.value == 0.5
    assert first.seconds > 0


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"genotype": OTHER},
        {"reward": Counting(arguments={"reward": "counting", "epochs": 2})},
        {"reward": Counting(data={"train": "other images"})},
    ],
)
def test_what_is_made_from_something_else_is_measured_anew(tmp_path, other):
    measure(tmp_path / "log", Counting(value=0.1))
    inputs = {"reward": Counting()} | other
    inputs["reward"].value = 0.7
    assert measure(tmp_path / "log", **inputs).value == 0.7
    assert measure(tmp_path / "log", Counting()).value == 0.1  # the first is still there


@pytest.mark.parametrize("error", [FloatingPointError("nan"), MemoryError(), RuntimeError("oom")])
def test_a_failure_is_a_measurement_with_its_reason(tmp_path, error, caplog):
    failing = Counting(error=error)
    result = measure(tmp_path / "log", failing)
    assert result.value is None
    assert result.failure == f"{type(error).__name__}: {error}"
    assert f"proxy failed on genotype {ONE.digest}" in caplog.text
    assert measure(tmp_path / "log", failing) == result
    assert failing.asked == 1


@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
def test_a_reward_that_is_no_reward_is_a_failure(tmp_path, value):
    assert "must be a number of at least 0" in measure(tmp_path / "log", Counting(value)).failure


@pytest.mark.parametrize("error", [TypeError("a bug"), Pruned()])
def test_what_is_no_failure_of_a_genotype_passes(tmp_path, error):
    with pytest.raises(type(error)):
        measure(tmp_path / "log", Counting(error=error))
    assert measure(tmp_path / "log", Counting()).value == 0.5


def test_a_line_that_a_kill_tore_is_measured_again_at_any_length(tmp_path):
    path = tmp_path / "log"
    measure(path, Counting(value=0.1), ONE)
    start = path.stat().st_size
    measure(path, Counting(value=0.2), OTHER)
    whole = path.read_bytes()
    for length in (start + 1, (start + len(whole)) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        again = Counting(value=0.3)
        assert measure(path, again, ONE).value == 0.1
        assert measure(path, again, OTHER).value == 0.3
        assert again.asked == 1
        assert len([json.loads(line) for line in path.read_text().splitlines()]) == 2


def test_a_line_damaged_in_the_middle_is_named(tmp_path):
    path = tmp_path / "log"
    path.write_text('{"key": 1}\n')
    with pytest.raises(ValueError, match=r"log, line 1, is not a logged reward .*delete the line"):
        measure(path, Counting())


def test_two_processes_do_not_measure_into_one_file(tmp_path):
    path = tmp_path / "log"
    with (
        RewardLog.open(path),
        pytest.raises(BlockingIOError, match="another process is measuring into"),
    ):
        measure(path, Counting())
    assert measure(path, Counting()).value == 0.5
