"""A table of every genotype of a small space and its reward: a search that costs nothing to repeat.

Strategies are compared on it over many seeds, as on NAS-Bench-101 (Ying et al. 2019), which a
laptop cannot do by training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from backbone.cells.genotype import Genotype
from search.rewards.base import ReportStep
from search.rewards.config import TableConfig
from search.space import SpaceConfig, build_space

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
    """Looks rewards up in a table instead of training; fits ``search.rewards.base.Reward``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a table, or a line of it is damaged.
    """

    config: TableConfig

    @cached_property
    def _content(self) -> tuple[dict[str, Any], dict[str, TableRow]]:
        header, rows = read_table(Path(self.config.path))
        return header, {row.genotype.digest: row for row in rows}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the table behind: another process reads its own."""
        return {"config": self.config}

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
    def test_reward(self) -> None:
        """A table has one reward per genotype."""

    def __call__(self, genotype: Genotype, *, seed: int, report: ReportStep) -> float:
        row = self._content[1].get(genotype.digest)
        if row is None:
            raise ValueError(f"genotype {genotype.digest} is not in the table {self.config.path}")
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
