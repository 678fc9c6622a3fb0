r"""Measure the speed of proxy trainings, against a reference PyTorch loop that does the same.

Writes benchmark.json. Everything is measured in one run, in turns; nothing else should be running.

nasdet benchmark proxy                              # demonstration data
nasdet benchmark proxy reward=proxy_paper reward.data_root=/data/cifar10 \
    reward.epochs=1 reward.max_train_images=10000
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.append(str(Path(__file__).parents[1]))  # modules that all tools share

from _cli import Run, tool
from _output import print_line
from backbone.config import require_at_least
from search.rewards.config import ProxyConfig
from search.space import SpaceConfig

if TYPE_CHECKING:
    from backbone.cells.genotype import Genotype
    from search.execution.base import Executor

Entry = Callable[[], tuple[float, float]]
"""Does all trainings once; returns seconds and mean accuracy."""


@dataclass(kw_only=True, slots=True)
class Args:
    """Settings of ``benchmark_proxy``."""

    out: str
    """The run's folder."""
    reward: ProxyConfig
    """The training that is timed."""
    space: SpaceConfig = field(default_factory=SpaceConfig)
    """The space that the genotypes are drawn from."""
    num_genotypes: int = 4
    """Random genotypes; all entries train the same ones."""
    rounds: int = 3
    """Runs of each entry; the median counts."""
    loader_workers: list[int] = field(default_factory=lambda: [0, 2])
    """Numbers of worker processes in the reference loops' data loaders; the fastest loop is the
    baseline."""
    workers: list[int] = field(default_factory=lambda: [1, 2])
    """Numbers of proxy trainings at the same time, each in a process of its own."""
    seed: int = 0
    """Seed of the genotypes and of every training."""

    def __post_init__(self) -> None:
        require_at_least(1, num_genotypes=self.num_genotypes, rounds=self.rounds)
        if not self.loader_workers or min(self.loader_workers) < 0:
            raise ValueError(
                f"loader_workers needs numbers of at least 0, not {self.loader_workers}"
            )
        if not self.workers or min(self.workers) < 1:
            raise ValueError(f"workers needs numbers of at least 1, not {self.workers}")


@tool(Args)
def main(run: Run[Args]) -> None:
    from _harness import machine, measure
    from backbone.io.files import write_json
    from backbone.io.text_tables import text_table

    args = run.args
    with Entries(args) as entries:
        rounds = measure(entries.by_name, rounds=args.rounds)
    figures = summarize(rounds, args.num_genotypes)
    fastest = max(f["trials_per_hour"] for n, f in figures.items() if n.startswith("reference"))
    rows = [
        (
            name,
            f"{f['trials_per_hour']:.0f}",
            f"{f['trials_per_hour'] / fastest:.2f}",
            f"{f['accuracy']:.3f}",
        )
        for name, f in figures.items()
    ]
    path = run.out / "benchmark.json"
    record = machine() | {"figures": figures}
    write_json(path, record)
    run.report(**record, benchmark=path)
    run.finish()
    print(f"\n{text_table(('training', 'trials/h', 'ratio', 'accuracy'), rows)}\n")
    print(
        f"ratio: to the fastest reference loop; {args.num_genotypes} genotypes, median of "
        f"{args.rounds}"
    )
    print_line("figures", path)


class Entries:
    """The ways to do the same trainings; workers are started, and data decoded, beforehand."""

    def __init__(self, args: Args) -> None:
        from contextlib import ExitStack

        from search.randomness import stream
        from search.rewards.proxy import ProxyReward
        from search.space import build_space

        self._args = args
        self._stack = ExitStack()
        self._reward = ProxyReward(args.reward)
        space, random = build_space(args.space), stream("benchmark", args.seed)
        self._genotypes = [
            space.to_genotype(space.sample(random)) for _ in range(args.num_genotypes)
        ]
        self.by_name: dict[str, Entry] = {}

    def __enter__(self) -> Entries:
        for workers in self._args.loader_workers:
            self.by_name[f"reference loop, {workers} loader workers"] = self._reference(workers)
        for workers in self._args.workers:
            self.by_name[f"proxy, {workers} at a time"] = self._proxies(workers)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _reference(self, num_workers: int) -> Entry:
        from _reference_proxy import train_reference

        args, sample = self._args, self._reward.tensors[0]

        def run() -> tuple[float, float]:
            start = time.perf_counter()
            accuracies = [
                train_reference(
                    genotype, args.reward, sample=sample, num_workers=num_workers,
                    seed=args.seed,
                )
                for genotype in self._genotypes
            ]  # fmt: skip
            return time.perf_counter() - start, statistics.fmean(accuracies)

        return run

    def _proxies(self, num_workers: int) -> Entry:
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
            Task(number=number, architecture=genotype, seed=self._args.seed)
            for number, genotype in enumerate(genotypes)
        ]
        outcomes = list(run_tasks(executor, tasks))
        for outcome in outcomes:
            if outcome.reward is None:
                raise ValueError(f"a training failed: {outcome.failure}")
        return [outcome.reward for outcome in outcomes if outcome.reward is not None]


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


if __name__ == "__main__":
    main()
