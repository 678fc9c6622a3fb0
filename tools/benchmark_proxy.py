r"""Measure how fast proxy trainings are, against a plain PyTorch loop that does the same.

Writes benchmark.json. Everything is measured in one run, in turns; nothing else should be running.

python tools/benchmark_proxy.py                                     # demonstration data
python tools/benchmark_proxy.py reward=proxy_paper reward.data_root=/data/cifar10 \
    reward.epochs=1 reward.max_train_images=10000
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from _entry import start_tool
from _run import plain_errors, start_run
from _search_schemas import BenchmarkProxy

if TYPE_CHECKING:
    from backbone.cells.genotype import Genotype
    from search.execution.base import Executor

Measure = Callable[[], tuple[float, float]]
"""Does all trainings once; returns seconds and mean accuracy."""


@hydra.main(version_base=None, config_path="../conf", config_name="benchmark_proxy")
def main(config: DictConfig) -> None:
    with plain_errors():
        run = start_run(config)
        settings: BenchmarkProxy = run.settings
        from backbone.io.files import write_text
        from backbone.io.text_tables import text_table

        with Contenders(settings) as contenders:
            rounds = measure(contenders.measures, settings.rounds)
        num = settings.num_genotypes
        figures = summarize(rounds, num)
        fastest_plain = max(f["trials_per_hour"] for n, f in figures.items() if "loader" in n)
        rows = [
            (
                name,
                f"{f['trials_per_hour']:.0f}",
                f"{f['trials_per_hour'] / fastest_plain:.2f}",
                f"{f['accuracy']:.3f}",
            )
            for name, f in figures.items()
        ]
        path = run.out / "benchmark.json"
        write_text(path, json.dumps(machine() | {"figures": figures}, indent=1) + "\n")
        run.finish()
        print(f"\n{text_table(('training', 'trials/h', 'ratio', 'accuracy'), rows)}\n")
        print(f"ratio: to the faster plain loop; {num} genotypes, median of {settings.rounds}")
        print(f"figures: {path}")


class Contenders:
    """The ways to do the same trainings; workers are started, and data decoded, beforehand."""

    def __init__(self, settings: BenchmarkProxy) -> None:
        from contextlib import ExitStack

        from search.randomness import stream
        from search.rewards.proxy import ProxyReward
        from search.space import build_space

        self._settings = settings
        self._stack = ExitStack()
        self._reward = ProxyReward(settings.reward)
        space, random = build_space(settings.space), stream("benchmark", settings.seed)
        self._genotypes = [
            space.to_genotype(space.sample(random)) for _ in range(settings.num_genotypes)
        ]
        self.measures: dict[str, Measure] = {}

    def __enter__(self) -> Contenders:
        for workers in self._settings.loader_workers:
            self.measures[f"plain loop, {workers} loader workers"] = self._plain(workers)
        for workers in self._settings.workers:
            self.measures[f"proxy, {workers} at a time"] = self._proxies(workers)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _plain(self, num_workers: int) -> Measure:
        from _plain_loop import train_plainly

        settings, sample = self._settings, self._reward.tensors[0]

        def run() -> tuple[float, float]:
            start = time.perf_counter()
            accuracies = [
                train_plainly(
                    genotype, settings.reward, sample=sample, num_workers=num_workers,
                    seed=settings.seed,
                )
                for genotype in self._genotypes
            ]  # fmt: skip
            return time.perf_counter() - start, statistics.fmean(accuracies)

        return run

    def _proxies(self, num_workers: int) -> Measure:
        from search.execution import running_executor
        from search.execution.local import LocalConfig
        from search.execution.worker import Evaluator

        on_gpu = self._reward.tensors[0].images.is_cuda
        executor = self._stack.enter_context(
            running_executor(
                LocalConfig(num_workers=num_workers, workers_per_gpu=num_workers * on_gpu),
                Evaluator(self._reward),
            )
        )
        self._do(executor, self._genotypes[:1] * num_workers)  # decodes each worker's images

        def run() -> tuple[float, float]:
            start = time.perf_counter()
            accuracies = self._do(executor, self._genotypes)
            return time.perf_counter() - start, statistics.fmean(accuracies)

        return run

    def _do(self, executor: Executor, genotypes: list[Genotype]) -> list[float]:
        from search.execution.base import run_tasks
        from search.execution.worker import Task

        tasks = [
            Task(number=number, genotype=genotype, seed=self._settings.seed)
            for number, genotype in enumerate(genotypes)
        ]
        outcomes = list(run_tasks(executor, tasks))
        for outcome in outcomes:
            if outcome.reward is None:
                raise ValueError(f"a training failed: {outcome.failure}")
        return [outcome.reward for outcome in outcomes if outcome.reward is not None]


def measure(contenders: dict[str, Measure], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Run all contenders in turns, so that a machine that changes its speed changes it for all."""
    from tqdm import tqdm

    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    with tqdm(total=rounds * len(contenders), desc="benchmark", unit="run") as bar:
        for _ in range(rounds):
            for name, run in contenders.items():
                measured[name].append(run())
                bar.set_postfix_str(f"{name}: {measured[name][-1][0]:.1f} s")
                bar.update()
    return measured


def summarize(
    rounds: dict[str, list[tuple[float, float]]], num_genotypes: int
) -> dict[str, dict[str, Any]]:
    """Return trials per hour by the median round, and the mean accuracy."""
    return {
        name: {
            "seconds": [round(seconds, 3) for seconds, _ in measured],
            "trials_per_hour": 3600 * num_genotypes / statistics.median(s for s, _ in measured),
            "accuracy": statistics.fmean(accuracy for _, accuracy in measured),
        }
        for name, measured in rounds.items()
    }


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    import torch

    return {
        "torch": torch.__version__,
        "cpus": len(os.sched_getaffinity(0)),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


if __name__ == "__main__":
    start_tool(main, about=__doc__)
