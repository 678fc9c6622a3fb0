import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from search.analysis.reward_table import record_table
from search.execution.base import ExecutorConfig
from search.randomness import stream
from search.rewards.config import CostConfig
from search.rewards.cost import genotype_cost
from search.rewards.tabular import TableConfig, TableReward, read_table
from search.space import SpaceConfig, build_space

SPACE = SpaceConfig(
    operations=["identity", "conv_1x1", "max_pool_3x3"], num_blocks=1, combinations=["add"],
    cells=["normal"], distinct_sources=True,
)  # fmt: skip
GENOTYPES = list(build_space(SPACE).enumerate())
SHIPPED = Path(__file__).parents[3] / "docs" / "data" / "cifar10_648.jsonl"


@dataclass
class Graded:
    """Rewards by the order of the space, and remembers what it was asked."""

    fail_at: tuple[int, ...] = ()
    asked: list = field(default_factory=list)
    arguments: dict = field(default_factory=lambda: {"reward": "graded"})
    data: dict = field(default_factory=lambda: {"train": "1234"})
    test_reward: None = None

    def __call__(self, genotype, *, seed, report):
        number = GENOTYPES.index(genotype)
        self.asked.append(number)
        if number in self.fail_at:
            raise FloatingPointError("the loss became nan in epoch 1")
        return number / 10


def record(path, reward, **changes):
    given = {"executor": ExecutorConfig(), "progress": False} | changes
    space = given.pop("space", SPACE)
    return record_table(path, space, reward, **given)


def test_every_genotype_is_rewarded_once(tmp_path):
    reward = Graded()
    assert record(tmp_path / "table.jsonl", reward) == 0
    assert sorted(reward.asked) == list(range(9))
    header, rows = read_table(tmp_path / "table.jsonl")
    assert header["data"] == {"train": "1234"}
    assert {row.genotype: row.reward for row in rows} == {
        genotype: number / 10 for number, genotype in enumerate(GENOTYPES)
    }
    assert {row.cost for row in rows} == {None}


def test_the_table_says_what_genotypes_cost_and_which_cost_that_is(tmp_path):
    cost = CostConfig(measure="parameters", first_filters=8)
    record(tmp_path / "table.jsonl", Graded(), cost=cost)
    header, rows = read_table(tmp_path / "table.jsonl")
    assert header["cost"]["measure"] == "parameters"
    assert all(row.cost == genotype_cost(row.genotype, cost).value for row in rows)


def test_a_table_rewards_as_the_training_did(tmp_path):
    record(tmp_path / "table.jsonl", Graded())
    table = TableReward(TableConfig(path=str(tmp_path / "table.jsonl")))
    assert [table(g, seed=5, report=None) for g in GENOTYPES] == [n / 10 for n in range(9)]
    assert table.space == SPACE
    assert table.arguments["table"] == {"reward": "graded", "seed": 0}
    paper = build_space(SpaceConfig())
    foreign = paper.to_genotype(paper.sample(stream("foreign")))
    with pytest.raises(ValueError, match=f"architecture {foreign.digest} is not in the table"):
        table(foreign, seed=0, report=None)


def test_another_process_is_sent_the_place_and_not_the_table(tmp_path):
    record(tmp_path / "table.jsonl", Graded())
    table = TableReward(TableConfig(path=str(tmp_path / "table.jsonl")))
    before = pickle.dumps(table)
    assert table.rows
    assert pickle.dumps(table) == before
    assert pickle.loads(before).rows == table.rows


def test_a_table_whose_last_line_a_kill_tore_is_completed(tmp_path):
    path = tmp_path / "table.jsonl"
    record(path, Graded())
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    path.write_text("".join(lines[:6]) + lines[6][:20])
    with pytest.raises(ValueError, match=r"table.jsonl, line 7: "):
        read_table(path)
    reward = Graded()
    record(path, reward)
    assert sorted(reward.asked) == [5, 6, 7, 8]
    assert sorted(row.reward for row in read_table(path)[1]) == [n / 10 for n in range(9)]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("nonsense", "line 3: Expecting value"),
        ('{"decisions": [0, 0], "reward": 1, "seconds": 1, "cost": null}', "line 3: a genotype of"),
        ('{"decisions": [0, 0, 7, 0, 0], "reward": 1, "seconds": 1, "cost": 1}', "must be 0 to 2"),
        ('{"decisions": [0, 0, 0, 0, 0], "seconds": 1, "cost": null}', "line 3: 'reward'"),
        ("[]", "line 3: "),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, problem):
    path = tmp_path / "table.jsonl"
    record(path, Graded())
    lines = path.read_text().splitlines()
    lines[2] = line
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=problem):
        read_table(path)


def test_what_fails_is_left_out_and_tried_again_next_time(tmp_path, caplog):
    path = tmp_path / "table.jsonl"
    assert record(path, Graded(fail_at=(2, 7))) == 2
    assert len(read_table(path)[1]) == 7
    assert "the loss became nan" in caplog.text
    reward = Graded()
    assert record(path, reward) == 0
    assert sorted(reward.asked) == [2, 7]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"seed": 1}, "reward"),
        ({"cost": CostConfig(measure="parameters")}, "cost"),
        ({"space": SpaceConfig(operations=["identity", "conv_1x1"], num_blocks=1)}, "space"),
    ],
)
def test_a_table_of_something_else_is_left_as_it_is(tmp_path, changes, what):
    path = tmp_path / "table.jsonl"
    record(path, Graded())
    path.write_text(path.read_text()[:-5])
    before = path.read_text()
    with pytest.raises(ValueError, match=f"holds a table of another {what}; give another file"):
        record(path, Graded(), **changes)
    assert path.read_text() == before


@pytest.mark.parametrize("content", ["any text, without an end", '{"format": "other"}\n', "[1]\n"])
def test_a_file_that_is_no_table_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "notes"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"notes, line 1: "):
        record(path, Graded())
    with pytest.raises(ValueError, match=r"notes, line 1: "):
        read_table(path)
    assert path.read_text() == content


def test_an_empty_and_a_missing_file_are_told_apart(tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="empty is empty"):
        read_table(tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "missing")


def test_a_space_that_is_too_large_to_list_is_refused_before_a_file_is_made(tmp_path):
    with pytest.raises(ValueError, match=re.escape("too many to list; the limit is 1000000")):
        record(tmp_path / "table.jsonl", Graded(), space=SpaceConfig())
    assert not list(tmp_path.iterdir())


def test_the_table_in_the_documentation_is_whole():
    header, rows = read_table(SHIPPED)
    space = build_space(SpaceConfig(**header["space"]))
    assert {row.genotype for row in rows} == set(space.enumerate())
    assert len(rows) == 648
    cost = CostConfig(**{k: v for k, v in header["cost"].items() if k != "type"})
    for row in rows[::100]:
        assert row.cost == genotype_cost(row.genotype, cost).value
