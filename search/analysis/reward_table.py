"""Record the reward of every genotype of a small space in a table."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backbone.io.files import write_text
from backbone.io.progress import progress_bar
from backbone.io.provenance import to_builtins
from search.execution import running_executor
from search.execution.base import ExecutorConfig, run_tasks
from search.execution.worker import Evaluator, Task
from search.rewards.base import Reward
from search.rewards.config import CostConfig
from search.rewards.tabular import FORMAT, read_header, read_table
from search.space import SpaceConfig, build_space

logger = logging.getLogger(__name__)


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
    """Reward every genotype of a space once, and append each row when it is measured.

    An existing table of the same space and reward is completed.

    Args:
        path: the table, JSON lines.
        space: a small space; see ``SearchSpace.enumerate``.
        reward: reward of each genotype.
        executor: where trainings run.
        cost: cost of each genotype, recorded too; None or measure ``none`` for no cost.
        seed: seed of every training.
        progress: show a progress bar.

    Returns:
        Number of genotypes whose reward failed. They are left out, and tried again by the next
        call.

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
        "reward": to_builtins(reward.arguments) | {"seed": seed},
        "data": dict(reward.data),
        "cost": to_builtins(cost),
    }
    known = _start_or_resume(path, header)
    missing = [g for g in genotypes if g.digest not in known]
    tasks = (Task(number=n, architecture=g, seed=seed) for n, g in enumerate(missing))
    best, num_failed = max(known.values(), default=0.0), 0
    with (
        path.open("a", encoding="utf-8") as file,
        running_executor(executor, Evaluator(reward, cost=cost)) as workers,
        progress_bar(
            total=len(genotypes), initial=len(known), desc="table", unit="cell",
            shown=progress,
        ) as bar,
    ):  # fmt: skip
        for outcome in run_tasks(workers, tasks):
            bar.update()
            genotype = missing[outcome.number]
            if outcome.reward is None:
                num_failed += 1
                logger.warning("left out, %s: %s", outcome.failure, genotype.digest)
                continue
            row = {
                "decisions": built.to_decisions(genotype),
                "reward": round(outcome.reward, 5),
                "seconds": round(outcome.seconds, 2),
                "cost": outcome.cost,
            }
            file.write(json.dumps(row) + "\n")
            file.flush()
            best = max(best, outcome.reward)
            bar.set_postfix_str(f"best reward {best:.4f}", refresh=False)
    return num_failed


def _start_or_resume(path: Path, header: Mapping[str, Any]) -> dict[str, float]:
    """Return digest -> reward of an existing table, or write the header of a new one."""
    if not path.exists() or not path.stat().st_size:
        write_text(path, json.dumps(header) + "\n")
        return {}
    recorded = read_header(path)
    different = [name for name in header if recorded.get(name) != header[name]]
    if different:
        raise ValueError(
            f"{path} holds a table of another {' and '.join(different)}; give another file"
        )
    with path.open("rb+") as file:
        file.truncate(file.read().rfind(b"\n") + 1)  # an interrupted write leaves part of a line
    return {row.genotype.digest: row.reward for row in read_table(path)[1]}
