"""Replay strategies on a recorded table of rewards, and count the trainings that each needs.

Driver and samplers are those of a search; only the training is replaced by a look-up. So strategies
can be compared over many seeds.
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
from search.strategies.config import StrategyConfig
from search.study.config import SearchConfig
from search.study.driver import TrialDriver

COLORS = ("#1f6fb4", "#d9822b", "#3d8f4f", "#a0408f", "#7a6a58", "#c23b3b")
NUM_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Replay:
    """Replay of one strategy with one seed."""

    rewards: tuple[float, ...]
    """Best reward so far after each training; a trial of a known genotype needs no training."""

    def trainings_to(self, reward: float) -> float:
        """Return the number of trainings until a reward is reached; infinity if it never is."""
        return next((n for n, best in enumerate(self.rewards, 1) if best >= reward), math.inf)


def replay(table: TableReward, strategy: StrategyConfig, *, seed: int, num_trials: int) -> Replay:
    """Search a table once.

    Args:
        table: rewards of the whole space.
        strategy: the strategy.
        seed: seed of the strategy.
        num_trials: number of proposals, including those of known genotypes.
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


def top_fraction_threshold(table: TableReward, fraction: float) -> float:
    """Return the lowest reward in the top fraction of a table, which holds at least one genotype.

    Args:
        table: rewards of the whole space.
        fraction: above 0, at most 1.
    """
    rewards = sorted((row.reward for row in table.rows), reverse=True)
    return rewards[max(round(fraction * len(rewards)), 1) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """Number of trainings that a strategy needs to reach a target, over its seeds."""

    name: str
    """Name of the strategy."""
    reached: float
    """Fraction of the seeds that reach the target within their trials."""
    quartiles: tuple[float, float, float]
    """Quartiles of the trainings needed; infinity for seeds that do not reach the target."""
    mean: float
    """Mean of the trainings needed. A seed that does not reach the target counts as the whole
    table, which always contains it; counting what it spent would favor a strategy that keeps
    proposing the same genotypes."""
    mean_interval: tuple[float, float]
    """95 % interval of the mean: percentile bootstrap over seeds."""
    trained: float
    """Mean number of different genotypes that a seed trains."""


def summarize(
    name: str, replays: Sequence[Replay], *, target: float, table_size: int
) -> Efficiency:
    """Summarize the replays of one strategy.

    Args:
        name: name of the strategy.
        replays: one per seed.
        target: reward to reach.
        table_size: number of genotypes in the table.
    """
    needed = [r.trainings_to(target) for r in replays]
    bounded = torch.tensor(needed, dtype=torch.float64).clamp(max=table_size)
    draws = torch.randint(
        len(bounded), (NUM_RESAMPLES, len(bounded)), generator=stream("bootstrap", name)
    )
    means = bounded[draws].mean(dim=1).sort().values
    ordered = sorted(needed)
    quartiles = [ordered[min(int(q * len(ordered)), len(ordered) - 1)] for q in (0.25, 0.5, 0.75)]
    return Efficiency(
        name=name,
        reached=sum(math.isfinite(n) for n in needed) / len(needed),
        quartiles=(quartiles[0], quartiles[1], quartiles[2]),
        mean=float(bounded.mean()),
        mean_interval=(
            float(means[int(0.025 * NUM_RESAMPLES)]), float(means[int(0.975 * NUM_RESAMPLES)]),
        ),
        trained=statistics.fmean(len(r.rewards) for r in replays),
    )  # fmt: skip


def draw_replays(
    replays: Mapping[str, Sequence[Replay]], path: Path, *, target: float, best: float
) -> None:
    """Plot each strategy's mean best reward over trainings with its quartiles, and its success."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for (name, runs), color in zip(replays.items(), COLORS * len(replays), strict=False):
        length = min(len(run.rewards) for run in runs)
        trainings = list(range(1, length + 1))
        columns = [sorted(run.rewards[n] for run in runs) for n in range(length)]
        left.plot(trainings, [statistics.fmean(c) for c in columns], color=color, label=name)
        left.fill_between(
            trainings, [c[len(c) // 4] for c in columns], [c[3 * len(c) // 4] for c in columns],
            color=color, alpha=0.15, linewidth=0,
        )  # fmt: skip
        needed = sorted(run.trainings_to(target) for run in runs)
        finite = [n for n in needed if math.isfinite(n)]
        percents = [100 * (i + 1) / len(runs) for i in range(len(finite))]
        right.step([0, *finite], [0, *percents], where="post", color=color, label=name)
    left.axhline(best, color="#888", linewidth=0.8, linestyle=":")
    left.set(xlabel="trainings", ylabel="best reward so far", title="Mean and quartiles of seeds")
    right.set(
        xlabel="trainings", ylabel="% of seeds", ylim=(0, 101),
        title="Seeds that have reached the target",
    )  # fmt: skip
    for axis in (left, right):
        axis.grid(alpha=0.25)
    right.legend(loc="lower right")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
