import subprocess
import sys
from pathlib import Path

import pytest

import search.strategies
from backbone.config import Choice
from search.execution import EXECUTORS
from search.space import SpaceConfig
from search.strategies import STRATEGIES
from search.strategies.base import DecisionSampler, StrategyConfig
from search.strategies.config import RandomConfig
from search.study.config import SearchConfig
from search.study.study import run_search

ROOT = Path(__file__).parents[3]

DUMMY = '''
from dataclasses import dataclass
from typing import ClassVar

from search.strategies.base import DecisionSampler, StrategyConfig


@dataclass(kw_only=True, slots=True)
class FirstOptionConfig(StrategyConfig):
    """Count up in the space's first choice; every other decision is a fixed option."""

    option: int = 0
    """Index of the fixed option."""

    supports_multi_objective: ClassVar[bool] = False


class FirstOptionSampler(DecisionSampler[FirstOptionConfig]):
    def decide(self, past, number):
        first, *others = self.space.choices
        return [number % first.num_options] + [self.config.option] * len(others)
'''


class Constant:
    arguments = {"reward": "constant"}  # noqa: RUF012
    data = {}  # noqa: RUF012
    test_reward = None

    def __call__(self, genotype, *, seed, report):
        return 0.5


@pytest.fixture
def dummy(tmp_path, monkeypatch):
    """Add a strategy as a contributor does: one module, and one line in the table."""
    (tmp_path / "first_option.py").write_text(DUMMY)
    monkeypatch.syspath_prepend(tmp_path)
    import first_option

    row = Choice(first_option.FirstOptionConfig, "first_option:FirstOptionSampler")
    table = {**STRATEGIES, "first_option": row}
    monkeypatch.setattr(search.strategies, "STRATEGIES", table)
    monkeypatch.setattr("search.study.config.STRATEGIES", table)
    yield first_option.FirstOptionConfig
    del sys.modules["first_option"]


def test_a_new_strategy_is_one_module_and_one_line_of_the_table(dummy, tmp_path):
    space = SpaceConfig(operations=["identity", "conv_1x1"], num_blocks=1)
    config = SearchConfig(
        strategy=dummy(option=1), num_trials=3, space=space, num_reevaluated=0, progress=False
    )
    records = []
    run_search(config, tmp_path / "out", reward=Constant(), on_trial=records.append)
    first, second, third = records
    assert [r.architecture.normal.blocks[0].left.operation for r in records] == ["conv_1x1"] * 3
    assert first.architecture != second.architecture
    assert third.same_as == first.number


def test_a_strategy_declares_whether_it_can_search_for_a_front(dummy):
    from search.rewards.config import CostConfig

    with pytest.raises(ValueError, match="strategy=first_option maximizes a single objective"):
        SearchConfig(strategy=dummy(), num_trials=3, cost=CostConfig(front=True))
    SearchConfig(strategy=RandomConfig(), num_trials=3, cost=CostConfig(front=True))


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_row_of_the_table_leads_to_a_sampler(name):
    row = STRATEGIES[name]
    assert issubclass(row.config, StrategyConfig)
    assert issubclass(row.load(), DecisionSampler)


@pytest.mark.parametrize(
    ("group", "table"),
    [("strategy", STRATEGIES), ("executor", EXECUTORS)],
    ids=lambda x: str(x)[:8],
)
def test_every_row_of_a_table_has_a_yaml_file(group, table):
    assert set(table) <= {path.stem for path in (ROOT / "search" / "conf" / group).glob("*.yaml")}


def test_the_configuration_of_a_search_is_imported_without_torch():
    code = (
        "import sys, search.study.config, search.strategies, search.execution; "
        "print([name for name in ('torch', 'ray', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "[]\n"
