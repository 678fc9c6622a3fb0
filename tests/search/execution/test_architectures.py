"""A search rewards any kind of architecture; only cell-specific rewards ask for cells."""

from dataclasses import asdict, dataclass

import pytest

from backbone.cells.architecture import Architecture
from backbone.cells.genotype import require_cells
from fake_rewards import genotypes
from search.execution import running_executor
from search.execution.base import ExecutorConfig, run_tasks
from search.execution.worker import Evaluator, Task


@dataclass(frozen=True)
class Stages:
    """Widths of the stages of a network: a second kind of architecture."""

    widths: tuple[int, ...]

    family = "stages"

    @property
    def digest(self):
        return "-".join(map(str, self.widths))

    def canonical(self):
        return self

    def to_dict(self):
        return asdict(self)

    def spec_size(self, *, depth, width):
        return f"{depth}@{width}"


class Widest:
    arguments, data, test_reward = {"reward": "widest"}, {}, None

    def __call__(self, architecture, *, seed, report):
        report(1, float(max(architecture.widths)))
        return float(max(architecture.widths))


def test_a_second_kind_of_architecture_is_rewarded_by_the_same_workers():
    stages = [Stages((1, 5)), Stages((3, 2)), Stages((7,))]
    assert all(isinstance(s, Architecture) for s in stages)
    tasks = [Task(number=n, architecture=s, seed=0) for n, s in enumerate(stages)]
    with running_executor(ExecutorConfig(), Evaluator(Widest())) as executor:
        outcomes = {o.number: o.reward for o in run_tasks(executor, tasks)}
    assert outcomes == {0: 5.0, 1: 3.0, 2: 7.0}


def test_code_for_cells_refuses_another_kind_of_architecture_in_one_sentence():
    (cells,) = genotypes(1)
    assert require_cells(cells) is cells
    with pytest.raises(TypeError, match=r"needs cells, a Genotype, not .*'Stages'.*'stages'"):
        require_cells(Stages((4,)))
