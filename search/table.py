"""A table of every genotype of a small space and its reward: a search that costs nothing to repeat.

Strategies are compared on it over many seeds, as on NAS-Bench-101 (Ying et al. 2019), which a
laptop cannot do by training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm import tqdm

from backbone.artifacts import write_text
from backbone.genotype import Genotype
from backbone.provenance import plain
from search.config import CostConfig, ExecutorConfig, SpaceConfig
from search.evaluation import Evaluator, Task
from search.executors import running_executor
from search.reward import ReportStep, Reward
from search.space import build_space

FORMAT = "nasdet-reward-table"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One genotype and what its training gave."""

    genotype: Genotype
    reward: float
    seconds: float
    cost: float | None


@dataclass(frozen=True)
class TableReward:
    """Looks rewards up in a table instead of training; fits ``search.reward.Reward``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a table, or a line of it is damaged.
    """

    path: str

    @cached_property
    def _content(self) -> tuple[dict[str, Any], dict[str, TableRow]]:
        header, rows = read_table(Path(self.path))
        return header, {row.genotype.digest: row for row in rows}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the table behind: another process reads its own."""
        return {"path": self.path}

    @property
    def rows(self) -> list[TableRow]:
        """All rows, in the file's order."""
        return list(self._content[1].values())

    @property
    def space(self) -> SpaceConfig:
        """The space whose genotypes it lists."""
        return SpaceConfig(**self._content[0]["space"])

    @property
    def arguments(self) -> Mapping[str, Any]:
        return {"reward": "table", "table": self._content[0]["made"]}

    @property
    def data(self) -> Mapping[str, str]:
        return self._content[0]["data"]

    @property
    def unseen(self) -> None:
        """A table has one reward per genotype."""

    def __call__(self, genotype: Genotype, *, seed: int, report: ReportStep) -> float:
        row = self._content[1].get(genotype.digest)
        if row is None:
            raise ValueError(f"genotype {genotype.digest} is not in the table {self.path}")
        return row.reward


def read_table(path: Path) -> tuple[dict[str, Any], list[TableRow]]:
    """Read a table's header and rows.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a table, or a line of it is damaged; the message names the line.
    """
    header: dict[str, Any] | None = None
    rows = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                entry = json.loads(line)
                if header is None:
                    header = _checked_header(entry)
                    space = build_space(SpaceConfig(**header["space"]))
                    continue
                rows.append(
                    TableRow(
                        genotype=space.to_genotype(entry["decisions"]).canonical(),
                        reward=float(entry["reward"]),
                        seconds=float(entry["seconds"]),
                        cost=entry["cost"],
                    )
                )
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    if header is None:
        raise ValueError(f"{path} is empty; a table of rewards has a first line that describes it")
    return header, rows


def _checked_header(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict) or entry.get("format") != FORMAT:
        raise ValueError(f'not a table of rewards: expected "format": "{FORMAT}"')
    return entry


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
        "made": plain(reward.arguments) | {"seed": seed},
        "data": dict(reward.data),
        "cost": plain(cost),
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
