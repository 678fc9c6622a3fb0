"""A table of every genotype of a small space and its reward: a search without any training.

Strategies are compared on it over many seeds, as on NAS-Bench-101 (Ying et al. 2019), which would
take too long by training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from backbone.cells.architecture import Architecture
from backbone.cells.genotype import Genotype
from search.rewards.base import ReportStep
from search.rewards.config import RewardConfig
from search.space import SpaceConfig, build_space

FORMAT = "nasdet-reward-table"


@dataclass(kw_only=True, slots=True)
class TableConfig(RewardConfig):
    """Look rewards up in a recorded table."""

    path: str
    """JSON lines file written by ``tabulate_rewards``; the search space has to be the table's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One genotype with its recorded reward."""

    genotype: Genotype
    reward: float
    seconds: float
    """Duration of the training."""
    cost: float | None
    """In the unit of the header's cost; None if no cost was recorded."""


@dataclass(frozen=True)
class TableReward:
    """Recorded reward of a genotype; satisfies ``search.rewards.base.Reward``.

    Raises:
        FileNotFoundError: when it is first used, if the file does not exist.
        ValueError: when it is first used, if the file is not a table or a line is damaged.
    """

    config: TableConfig

    @cached_property
    def _content(self) -> tuple[dict[str, Any], dict[str, TableRow]]:
        header, rows = read_table(Path(self.config.path))
        return header, {row.genotype.digest: row for row in rows}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the table out: another process reads it from the file."""
        return {"config": self.config}

    @property
    def rows(self) -> list[TableRow]:
        """All rows, in the file's order."""
        return list(self._content[1].values())

    @property
    def space(self) -> SpaceConfig:
        """Search space whose genotypes the table lists."""
        return SpaceConfig(**self._content[0]["space"])

    @property
    def arguments(self) -> Mapping[str, Any]:
        return {"reward": "table", "table": self._content[0]["reward"]}

    @property
    def data(self) -> Mapping[str, str]:
        return self._content[0]["data"]

    @property
    def test_reward(self) -> None:
        """None: a table has one reward per genotype."""

    def __call__(self, architecture: Architecture, *, seed: int, report: ReportStep) -> float:
        row = self._content[1].get(architecture.digest)
        if row is None:
            raise ValueError(
                f"architecture {architecture.digest} is not in the table {self.config.path}"
            )
        return row.reward


def read_table(path: Path) -> tuple[dict[str, Any], list[TableRow]]:
    """Read a table's header (see ``read_header``) and rows.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not a table, or a line is damaged; the message names the line.
    """
    header = read_header(path)
    try:
        space = build_space(SpaceConfig(**header["space"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}, line 1: {error}") from None
    rows = []
    with path.open(encoding="utf-8") as file:
        next(file)
        for number, line in enumerate(file, start=2):
            try:
                entry = json.loads(line)
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
    return header, rows


def read_header(path: Path) -> dict[str, Any]:
    """Read a table's first line: the recorded space, reward, data and cost.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not a table.
    """
    with path.open("rb") as file:
        line = file.readline()
    if not line:
        raise ValueError(f"{path} is empty; the first line of a reward table is its header")
    try:
        header = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line 1: {error}") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f'{path}, line 1: not a reward table: expected "format": "{FORMAT}"')
    if "made" in header:  # former name
        header["reward"] = header.pop("made")
    return header
