"""Compare genotypes by the same training at the same cost, with several seeds, on test images.

A search maximizes a proxy, and the best of many trials is partly luck. Here the winner is compared
with other genotypes in larger networks, with other seeds, on images that no trial was scored on.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from backbone.cells.architecture import Architecture
from backbone.cells.genotype import Genotype, require_cells
from backbone.io.files import write_text
from backbone.io.progress import progress_bar
from backbone.profile.complexity import count_mult_adds, nearest_width
from search.analysis.config import CellComparisonConfig
from search.analysis.reward_log import LOG_NAME, LoggedReward, RewardLog
from search.execution import running_executor
from search.execution.base import run_tasks
from search.execution.worker import Evaluator, Task
from search.rewards.base import ReportStep
from search.rewards.config import ProxyConfig
from search.rewards.fit import ProxyNetwork, train_proxy
from search.rewards.image_tensors import ImageTensors
from search.rewards.proxy import ProxyReward


@dataclass(frozen=True)
class ScaledAccuracy:
    """Accuracy, 0 to 1, of a proxy training of the network whose cost is nearest to a given one."""

    base: ProxyReward
    """Training and images; its ``first_filters`` is ignored."""
    mult_adds: float
    """Multiply-adds of each network for one image, approximated by a whole number of filters."""

    @property
    def test_reward(self) -> None:
        """None: the base decides on which images this reward is measured."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        proxy = dict(self.base.arguments["proxy"])
        del proxy["first_filters"]
        return {
            "reward": "scaled_accuracy",
            "mult_adds": self.mult_adds,
            "is_test": self.base.is_test,
            "proxy": proxy,
        }

    @property
    def data(self) -> Mapping[str, str]:
        return self.base.data

    def __call__(self, architecture: Architecture, *, seed: int, report: ReportStep) -> float:
        genotype = require_cells(architecture)
        train, val = self.base.tensors
        config, _ = scaled(genotype, self.base.config, train, mult_adds=self.mult_adds)
        return train_proxy(genotype, train, val, config=config, seed=seed, report=report)


def scaled(
    genotype: Genotype, config: ProxyConfig, images: ImageTensors, *, mult_adds: float
) -> tuple[ProxyConfig, NetworkSize]:
    """Return the config whose network is nearest to a number of multiply-adds, and its size.

    Raises:
        ValueError: if even the narrowest network has more than twice as many.
    """

    @cache
    def size(width: int) -> NetworkSize:
        with torch.random.fork_rng(devices=[]):
            network = ProxyNetwork(genotype, replace(config, first_filters=width), images)
        network = network.to(images.images.device).eval()
        with torch.no_grad():
            counted = count_mult_adds(network, images.images[:1])
        return NetworkSize(width, counted, sum(p.numel() for p in network.parameters()))

    width = nearest_width(
        lambda width: size(width).mult_adds,
        mult_adds=mult_adds,
        subject=f"cells {genotype.digest}",
    )
    return replace(config, first_filters=width), size(width)


@dataclass(frozen=True, slots=True)
class NetworkSize:
    """Size of the network of a genotype."""

    first_filters: int
    mult_adds: int
    """Multiply-adds for one image."""
    parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """Result for one genotype."""

    name: str
    size: NetworkSize
    errors: tuple[float, ...]
    """Test error of each seed, 0 to 1."""
    seconds: float
    """Total duration of the trainings."""

    @property
    def mean(self) -> float:
        """Mean error over seeds."""
        return statistics.fmean(self.errors)

    @property
    def deviation(self) -> float:
        """Sample standard deviation over seeds; 0 for a single one."""
        return statistics.stdev(self.errors) if len(self.errors) > 1 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, the mean and the standard deviation as JSON types."""
        return asdict(self) | {"mean": self.mean, "standard_deviation": self.deviation}


def compare_cells(
    config: CellComparisonConfig,
    proxy: ProxyConfig,
    cells: Mapping[str, Genotype],
    out_dir: Path,
) -> list[CellResult]:
    """Train all genotypes alike, and write ``cells_compared.json`` into ``out_dir``.

    Each training is appended to ``measurements.jsonl`` when it is finished; a later run resumes
    from there.

    Args:
        config: cost, seeds and executor.
        proxy: the training, without the ``held_out_images``; scored on the ``val`` split.
        cells: name -> genotype.
        out_dir: output folder.

    Returns:
        One result per genotype, the best first.

    Raises:
        BlockingIOError: if another process measures in ``out_dir``.
        FileNotFoundError: if the data are missing.
        FloatingPointError: if a training fails; the others are logged.
        ValueError: if a genotype cannot be scaled to the cost.
    """
    reward = ScaledAccuracy(ProxyReward(proxy, is_test=True), config.mult_adds * 1e6)
    images = reward.base.tensors[0]
    sizes = {
        name: scaled(genotype, proxy, images, mult_adds=reward.mult_adds)[1]
        for name, genotype in cells.items()
    }
    seeds = range(config.seed, config.seed + config.num_seeds)
    runs = [(name, genotype, seed) for seed in seeds for name, genotype in cells.items()]
    with RewardLog.open(out_dir / LOG_NAME) as log:
        missing = [run for run in runs if log.find(reward, run[1], seed=run[2]) is None]
        _train(missing, reward, log, config, num_runs=len(runs))
        results = []
        for name, size in sizes.items():
            logged = [log.find(reward, cells[name], seed=seed) for seed in seeds]
            results.append(_result(name, [entry for entry in logged if entry], size))
    results.sort(key=lambda r: r.mean)
    _write(results, reward, out_dir / "cells_compared.json", num_seeds=config.num_seeds)
    return results


def _train(
    missing: list[tuple[str, Genotype, int]],
    reward: ScaledAccuracy,
    log: RewardLog,
    config: CellComparisonConfig,
    *,
    num_runs: int,
) -> None:
    if not missing:
        return
    tasks = [Task(number=n, architecture=g, seed=seed) for n, (_, g, seed) in enumerate(missing)]
    bar = progress_bar(
        total=num_runs, initial=num_runs - len(missing), desc="cells", unit="training",
        shown=config.progress,
    )  # fmt: skip
    failures = []
    with bar, running_executor(config.executor, Evaluator(reward)) as executor:
        for outcome in run_tasks(executor, tasks):
            name, genotype, seed = missing[outcome.number]
            if outcome.reward is None:
                failures.append(f"{name} with seed {seed}: {outcome.failure}")
                continue
            log.record(
                name, reward, genotype, seed=seed, value=outcome.reward, seconds=outcome.seconds
            )
            bar.set_postfix_str(f"{name}: error {1 - outcome.reward:.4f}", refresh=False)
            bar.update()
    if failures:
        raise FloatingPointError(f"{len(failures)} trainings failed; the first, {failures[0]}")


def _result(name: str, logged: list[LoggedReward], size: NetworkSize) -> CellResult:
    return CellResult(
        name=name,
        size=size,
        errors=tuple(1 - reward.value for reward in logged if reward.value is not None),
        seconds=sum(reward.seconds for reward in logged),
    )


def _write(
    results: list[CellResult], reward: ScaledAccuracy, path: Path, *, num_seeds: int
) -> None:
    rows = [result.to_dict() for result in results]
    record = {"reward": reward.arguments, "data": reward.data, "seeds": num_seeds, "cells": rows}
    write_text(path, json.dumps(record, indent=1) + "\n")
