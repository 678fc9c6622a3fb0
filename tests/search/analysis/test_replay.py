import math
import statistics
from pathlib import Path

import optuna
import pytest
from matplotlib.image import imread

from search.analysis.replay import Replay, draw_replays, replay, summarize, top_fraction_threshold
from search.analysis.reward_table import record_table
from search.execution.base import ExecutorConfig
from search.rewards.tabular import TableConfig, TableReward
from search.space import SpaceConfig, build_space
from search.strategies.config import (
    ControllerConfig,
    EvolutionConfig,
    NsgaConfig,
    RandomConfig,
    TpeConfig,
)

OPERATIONS = ["identity", "conv_1x1", "max_pool_3x3", "avg_pool_3x3"]
# One block whose inputs differ: each genotype has two sequences of decisions, so that random ones
# are uniform over genotypes.
SPACE = SpaceConfig(
    operations=OPERATIONS, num_blocks=1, combinations=["add"], cells=["normal"],
    distinct_sources=True,
)  # fmt: skip
TWO_BLOCKS = SpaceConfig(
    operations=OPERATIONS, num_blocks=2, combinations=["add"], cells=["normal"],
    distinct_sources=True,
)  # fmt: skip
STRATEGIES = [
    RandomConfig(),
    ControllerConfig(batch_size=4, num_units=8, learning_rate=0.05),
    EvolutionConfig(population_size=5, sample_size=3),
    TpeConfig(num_startup_trials=4),
    NsgaConfig(population_size=4),
]


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


class Graded:
    """Rewards by place in the space: n of n is the best."""

    arguments = {"reward": "graded"}  # noqa: RUF012
    data = {}  # noqa: RUF012
    test_reward = None

    def __init__(self, space):
        order = [genotype.digest for genotype in build_space(space).enumerate()]
        self._places = {digest: place for place, digest in enumerate(order, 1)}

    def __call__(self, genotype, *, seed, report):
        return self._places[genotype.digest] / len(self._places)


class CountsConvolutions(Graded):
    """Learnable rewards: the more convolutions, the better; ties are broken by index."""

    def __call__(self, genotype, *, seed, report):
        edges = [e for block in genotype.normal.blocks for e in (block.left, block.right)]
        found = sum(edge.operation == "conv_1x1" for edge in edges)
        return found + super().__call__(genotype, seed=seed, report=report) / 10


def table_of(reward, space, folder):
    path = folder / "table.jsonl"
    record_table(path, space, reward, executor=ExecutorConfig(), progress=False)
    return TableReward(TableConfig(path=str(path)))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return table_of(Graded(SPACE), SPACE, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def learnable(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learnable")
    return table_of(CountsConvolutions(TWO_BLOCKS), TWO_BLOCKS, folder)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)
def test_a_replay_is_decided_by_its_seed(learnable, strategy):
    one, same, other = (replay(learnable, strategy, seed=seed, num_trials=30) for seed in (3, 3, 4))
    assert one == same
    assert one != other


def test_known_genotypes_cost_no_training(small):
    found = replay(small, RandomConfig(), seed=0, num_trials=200)
    assert len(found.rewards) == len(small.rows) == 16  # all of them, each once
    assert list(found.rewards) == sorted(found.rewards)
    assert found.rewards[-1] == 1.0


def test_random_search_needs_as_many_trainings_as_drawing_without_replacement(small):
    # The first of the best k of n, drawn without replacement, comes at (n + 1) / (k + 1) on the
    # average.
    target = top_fraction_threshold(small, 2 / 16)
    needed = [
        replay(small, RandomConfig(), seed=seed, num_trials=80).trainings_to(target)
        for seed in range(100)
    ]
    error = statistics.stdev(needed) / math.sqrt(len(needed))
    assert abs(statistics.fmean(needed) - 17 / 3) < 4 * error
    assert 0.2 < error < 0.6  # else the line above says little


@pytest.mark.parametrize(
    "strategy",
    [
        ControllerConfig(num_units=32, learning_rate=0.03, batch_size=10),
        EvolutionConfig(population_size=15, sample_size=5),
    ],
    ids=lambda s: type(s).__name__,
)
def test_strategies_that_learn_need_fewer_trainings_than_random_ones(learnable, strategy):
    target = top_fraction_threshold(learnable, 0.005)

    def mean(strategy):
        runs = [replay(learnable, strategy, seed=s, num_trials=250) for s in range(4)]
        found = summarize("any", runs, target=target, table_size=len(learnable.rows))
        return found.mean

    assert mean(strategy) < 0.7 * mean(RandomConfig())


def test_the_best_share_is_at_least_one_genotype(small):
    assert top_fraction_threshold(small, 0.001) == 1.0
    assert top_fraction_threshold(small, 0.25) == 13 / 16
    assert top_fraction_threshold(small, 1.0) == 1 / 16


def test_trainings_are_counted_from_one_and_infinite_where_they_do_not_suffice():
    found = Replay((0.2, 0.5, 0.5, 0.9))
    assert [found.trainings_to(r) for r in (0.1, 0.5, 0.6, 0.95)] == [1, 2, 4, math.inf]


def test_a_seed_that_does_not_arrive_counts_as_the_whole_table():
    runs = [Replay((0.1, 0.9)), Replay((0.9,)), Replay((0.3, 0.3, 0.9)), Replay((0.1,) * 9)]
    found = summarize("any", runs, target=0.9, table_size=50)
    assert found.reached == 0.75
    assert found.quartiles == (2, 3, math.inf)
    assert found.mean == (2 + 1 + 3 + 50) / 4
    assert 1 <= found.mean_interval[0] < found.mean < found.mean_interval[1] <= 50
    assert found.trained == (2 + 1 + 3 + 9) / 4


def test_seeds_that_agree_leave_no_room_for_the_mean():
    found = summarize("any", [Replay((0.1, 0.9))] * 5, target=0.9, table_size=50)
    assert found.mean_interval == (2, 2)


def test_replays_are_drawn_where_some_never_arrive(tmp_path):
    path = tmp_path / "new" / "replays.png"
    runs = {"random": [Replay((0.1, 0.9)), Replay((0.2,))], "none": [Replay((0.1,))] * 2}
    draw_replays(runs, path, target=0.9, best=0.95)
    assert imread(path).shape[1] > 1000
    assert [p.name for p in path.parent.iterdir()] == [Path(path).name]
