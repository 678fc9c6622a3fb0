"""Record a table of the rewards of every genotype of a small space."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from backbone.io.files import write_text
from backbone.io.provenance import to_builtins
from search.execution import running_executor
from search.execution.base import ExecutorConfig
from search.execution.worker import Evaluator, Task
from search.rewards.base import Reward
from search.rewards.config import CostConfig
from search.rewards.tabular import FORMAT, _checked_header, read_table
from search.space import SpaceConfig, build_space


def record_table(
    path: Path,
    space: SpaceConfig,
    reward: Reward,
    *,
    executor: ExecutorConfig,
    cost: CostConfig | None = None,
    seed: int = 0,
    progress: bool = True,
) -> int:
    """Reward every genotype of a space once, and write each as it is done.

    A table that is there already, of the same space and reward, is completed.

    Args:
        path: the file.
        space: must be small; see ``SearchSpace.enumerate``.
        reward: of each genotype.
        executor: where trainings run.
        cost: what the column of that name holds, as the header says too; None or ``none``: nothing.
        seed: of every training.
        progress: whether a progress bar is shown.

    Returns:
        How many genotypes could not be rewarded; they are left out, and tried again next time.

    Raises:
        ValueError: if the space is too large, or ``path`` holds another table.
    """
    built = build_space(space)
    genotypes = list(built.enumerate())
    if cost is not None and cost.measure == "none":
        cost = None
    header = {
        "format": FORMAT,
        "space": asdict(space),
        "made": to_builtins(reward.arguments) | {"seed": seed},
        "data": dict(reward.data),
        "cost": to_builtins(cost),
    }
    known = _started(path, header)
    missing = [g for g in genotypes if g.digest not in known]
    best, failed = max(known.values(), default=0.0), 0
    with (
        path.open("a", encoding="utf-8") as file,
        running_executor(executor, Evaluator(reward, cost=cost)) as workers,
        tqdm(
            total=len(genotypes), initial=len(known), desc="table", unit="cell",
            disable=not progress,
        ) as bar,
    ):  # fmt: skip
        waiting, under_way = iter(enumerate(missing)), 0
        while True:
            while under_way < workers.num_slots and (item := next(waiting, None)) is not None:
                workers.submit(Task(number=item[0], genotype=item[1], seed=seed))
                under_way += 1
            if not under_way:
                return failed
            for outcome in workers.wait():
                under_way -= 1
                bar.update()
                if outcome.reward is None:
                    failed += 1
                    tqdm.write(f"left out, {outcome.failure}: {missing[outcome.number].digest}")
                    continue
                row = {
                    "decisions": built.to_decisions(missing[outcome.number]),
                    "reward": round(outcome.reward, 5),
                    "seconds": round(outcome.seconds, 2),
                    "cost": outcome.cost,
                }
                file.write(json.dumps(row) + "\n")
                file.flush()
                best = max(best, outcome.reward)
                bar.set_postfix_str(f"best reward {best:.4f}", refresh=False)


def _started(path: Path, header: Mapping[str, Any]) -> dict[str, float]:
    """Return digest -> reward of what a table holds already; start it if there is none."""
    if not path.exists() or not path.stat().st_size:
        write_text(path, json.dumps(header) + "\n")
        return {}
    there = _read_header(path)
    different = [name for name in header if there.get(name) != header[name]]
    if different:
        raise ValueError(
            f"{path} holds a table of another {' and '.join(different)}; give another file"
        )
    with path.open("rb+") as file:
        file.truncate(file.read().rfind(b"\n") + 1)  # a line that a kill tore
    return {row.genotype.digest: row.reward for row in read_table(path)[1]}


def _read_header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        try:
            return _checked_header(json.loads(file.readline()))
        except ValueError as error:
            raise ValueError(f"{path}, line 1: {error}") from None
