"""Strategies on a recorded table of rewards: how many trainings each would have needed.

The real driver and samplers run; only the training is a look-up. So differences between strategies
can be shown over many seeds, which single searches cannot.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from backbone.io.files import replacing
from search.execution.inline import InlineExecutor
from search.execution.worker import Evaluator
from search.randomness import stream
from search.rewards.config import CostConfig
from search.rewards.tabular import TableReward
from search.space import build_space
from search.strategies import build_sampler
from search.strategies.base import StrategyConfig
from search.study.config import SearchConfig
from search.study.driver import TrialDriver

COLORS = ("#1f6fb4", "#d9822b", "#3d8f4f", "#a0408f", "#7a6a58", "#c23b3b")
NUM_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Replay:
    """One strategy with one seed."""

    rewards: tuple[float, ...]
    """Best reward so far after each training; trials of a known genotype cost none."""

    def trainings_to(self, reward: float) -> float:
        """Return how many trainings it took to reach a reward; infinity if it was not."""
        return next((n for n, best in enumerate(self.rewards, 1) if best >= reward), math.inf)


def replay(table: TableReward, strategy: StrategyConfig, *, seed: int, num_trials: int) -> Replay:
    """Search a table once.

    Args:
        table: of the whole space.
        strategy: what proposes.
        seed: of the strategy.
        num_trials: proposals, those of known genotypes included.
    """
    space = build_space(table.space)
    config = SearchConfig(
        strategy=strategy, num_trials=num_trials, space=table.space, seed=seed, progress=False,
        cost=CostConfig(measure="none"),
    )  # fmt: skip
    study = optuna.create_study(
        direction="maximize", sampler=build_sampler(strategy, space, seed=seed)
    )
    driver = TrialDriver(study, config, InlineExecutor(Evaluator(table)))
    driver.run()
    best, curve = 0.0, []
    for record in driver.records:
        if record.same_as is None and record.reward is not None:
            best = max(best, record.reward)
            curve.append(best)
    return Replay(tuple(curve))


def top_fraction_threshold(table: TableReward, share: float) -> float:
    """Return the least reward of a table's best share, at least one genotype."""
    rewards = sorted((row.reward for row in table.rows), reverse=True)
    return rewards[max(round(share * len(rewards)), 1) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """How fast a strategy reaches the best share of a table, over its seeds."""

    name: str
    reached: float
    """Share of the seeds that did within their trials."""
    quartiles: tuple[float, float, float]
    """Trainings needed; infinity beyond the trials given."""
    mean: float
    """Trainings needed. A seed that did not arrive counts as all of the table, which surely does:
    what it had spent would make a strategy look fast that keeps proposing the same genotypes."""
    mean_interval: tuple[float, float]
    """Percentile bootstrap over seeds, 95 %."""
    trained: float
    """Different genotypes that a seed trained in all, on average."""


def summarize(
    name: str, replays: Sequence[Replay], *, target: float, table_size: int
) -> Efficiency:
    """Summarize one strategy's seeds.

    Args:
        name: of the strategy.
        replays: one per seed.
        target: the reward that is to be reached.
        table_size: genotypes of the table.
    """
    needed = [r.trainings_to(target) for r in replays]
    paid = torch.tensor(needed, dtype=torch.float64).clamp(max=table_size)
    draws = torch.randint(
        len(paid), (NUM_RESAMPLES, len(paid)), generator=stream("bootstrap", name)
    )
    means = paid[draws].mean(dim=1).sort().values
    ordered = sorted(needed)
    at = [ordered[min(int(q * len(ordered)), len(ordered) - 1)] for q in (0.25, 0.5, 0.75)]
    return Efficiency(
        name=name,
        reached=sum(math.isfinite(n) for n in needed) / len(needed),
        quartiles=(at[0], at[1], at[2]),
        mean=float(paid.mean()),
        mean_interval=(
            float(means[int(0.025 * NUM_RESAMPLES)]), float(means[int(0.975 * NUM_RESAMPLES)]),
        ),
        trained=statistics.fmean(len(r.rewards) for r in replays),
    )  # fmt: skip


def draw_replays(
    replays: Mapping[str, Sequence[Replay]], path: Path, *, target: float, best: float
) -> None:
    """Draw each strategy's mean best reward against trainings, with the band of its quartiles."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for (name, runs), color in zip(replays.items(), COLORS * len(replays), strict=False):
        length = min(len(run.rewards) for run in runs)
        places = list(range(1, length + 1))
        columns = [sorted(run.rewards[n] for run in runs) for n in range(length)]
        left.plot(places, [statistics.fmean(c) for c in columns], color=color, label=name)
        left.fill_between(
            places, [c[len(c) // 4] for c in columns], [c[3 * len(c) // 4] for c in columns],
            color=color, alpha=0.15, linewidth=0,
        )  # fmt: skip
        needed = sorted(run.trainings_to(target) for run in runs)
        arrived = [n for n in needed if math.isfinite(n)]
        shares = [100 * (i + 1) / len(runs) for i in range(len(arrived))]
        right.step([0, *arrived], [0, *shares], where="post", color=color, label=name)
    left.axhline(best, color="#888", linewidth=0.8, linestyle=":")
    left.set(xlabel="trainings", ylabel="best reward so far", title="Mean and quartiles of seeds")
    right.set(
        xlabel="trainings", ylabel="% of seeds", ylim=(0, 101),
        title="Seeds that have reached the table's best share",
    )  # fmt: skip
    for axis in (left, right):
        axis.grid(alpha=0.25)
    right.legend(loc="lower right")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
