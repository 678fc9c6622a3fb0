"""Artifacts of a search: cells, their drawing, a table of trials, and the Pareto front."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbone.cells.drawing import draw_genotype
from backbone.cells.genotype import Genotype
from backbone.io.files import write_json, write_text
from backbone.io.provenance import Provenance, read_record
from search.execution.worker import Outcome
from search.rewards.cost import pareto_front
from search.study.trials import TrialRecord

COLUMNS = [
    "trial", "reward", "reevaluated_reward", "seconds", "digest", "same_as", "failure", "pruned",
    "cost", "steps",
]  # fmt: skip
"""Columns of ``trials.csv``. ``steps`` are pairs ``step:value`` as reported by the reward."""
FORMER_NAMES = {"fresh_reward": "reevaluated_reward", "unseen_reward": "test_reward"}
"""Name in files of earlier versions -> name now."""
RESULT_KEYS = (
    "reward", "reevaluated_reward", "test_reward", "trial", "num_trials", "num_failed", "seconds",
)  # fmt: skip
"""Members of ``cells.json`` that are fields of ``SearchResult``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow(Outcome):
    """One line of ``trials.csv``."""

    digest: str
    """Digest of the genotype."""
    same_as: int | None = None
    """Number of the earlier trial of an equal genotype whose outcome was taken."""
    reevaluated_reward: float | None = None
    """Mean reward with new seeds, if the trial was reevaluated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The winner of a search and its budget."""

    path: Path
    """Path of ``cells.json``."""
    genotype: Genotype
    reward: float
    """The winner's reward in the search."""
    reevaluated_reward: float | None
    """Its mean reward with new seeds; None if no trial was reevaluated."""
    test_reward: float | None
    """The same on data that no trial was scored on; None without such data."""
    trial: int
    """Number of the winning trial."""
    num_trials: int
    num_failed: int
    seconds: float
    """Time spent on rewards, over all runs of this search and all workers."""
    skipped: bool
    """Whether the file already existed, made from the same things."""

    @classmethod
    def load(cls, path: Path) -> SearchResult:
        """Read a finished search from ``cells.json``."""
        record = read_result(path)
        return cls(
            path=path,
            genotype=Genotype.from_dict(record),
            skipped=True,
            **{name: record[name] for name in RESULT_KEYS},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the figures under their names in ``cells.json``, and ``skipped``."""
        names = (*RESULT_KEYS, "skipped")
        return {name: getattr(self, name) for name in names} | {"digest": self.genotype.digest}

    def describe(self) -> str:
        """Return one line on the winner, which need not be the trial with the highest reward."""
        line = f"trial {self.trial} with reward {self.reward:.3f}"
        if self.reevaluated_reward is None:
            return line
        return f"{line}; best of the reevaluated trials, {self.reevaluated_reward:.3f}"


def read_result(path: Path) -> dict[str, Any]:
    """Read ``cells.json``, also of earlier versions, under the current names."""
    record: dict[str, Any] = read_record(path)
    return {FORMER_NAMES.get(name, name): value for name, value in record.items()}


def write_results(
    result: SearchResult,
    records: Sequence[TrialRecord],
    reevaluated_rewards: Mapping[int, float],
    provenance: Provenance,
) -> None:
    """Write all artifacts, ``cells.json`` last: it marks the search as finished."""
    folder = result.path.parent
    write_text(folder / "trials.csv", _to_csv(records, reevaluated_rewards))
    if any(record.cost is not None for record in records):
        _write_front(records, folder / "front", provenance)
    title = f"trial {result.trial}, reward {result.reward:.4f}"
    draw_genotype(result.genotype, folder / "cells.png", title=title)
    metadata = {name: getattr(result, name) for name in RESULT_KEYS}
    metadata["provenance"] = provenance.to_dict()
    write_json(result.path, result.genotype.to_dict() | metadata)


def _write_front(records: Sequence[TrialRecord], folder: Path, provenance: Provenance) -> None:
    """Write a file of cells for every genotype of the Pareto front of reward and cost."""
    complete = [r for r in records if r.is_complete and r.same_as is None]
    points = [(r.complete_reward, r.cost or 0.0) for r in complete]
    if folder.exists():  # written by a shorter search
        shutil.rmtree(folder)
    for record in (complete[i] for i in pareto_front(points)):
        metadata = {
            "reward": record.reward, "cost": record.cost, "trial": record.number,
            "provenance": provenance.to_dict(),
        }  # fmt: skip
        path = folder / f"trial_{record.number}.json"
        write_json(path, record.architecture.to_dict() | metadata)


def read_trials(folder: Path) -> list[TrialRow]:
    """Read a search's ``trials.csv``, also of earlier versions.

    Raises:
        FileNotFoundError: if the search is not finished, or there is none.
        ValueError: if the file has other columns.
    """
    path = folder / "trials.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        columns = [FORMER_NAMES.get(name, name) for name in rows.fieldnames or []]
        if columns != COLUMNS:
            raise ValueError(f"{path} has the columns {rows.fieldnames}, not {COLUMNS}")
        rows.fieldnames = columns
        return [_to_row(row) for row in rows]


def _to_row(cells: Mapping[str, str]) -> TrialRow:
    def number(name: str) -> float | None:
        return float(cells[name]) if cells[name] else None

    pairs = (pair.split(":") for pair in cells["steps"].split())
    return TrialRow(
        number=int(cells["trial"]),
        reward=number("reward"),
        reevaluated_reward=number("reevaluated_reward"),
        seconds=float(cells["seconds"]),
        digest=cells["digest"],
        same_as=int(cells["same_as"]) if cells["same_as"] else None,
        failure=cells["failure"],
        pruned=bool(cells["pruned"]),
        cost=number("cost"),
        steps={int(step): float(value) for step, value in pairs},
    )


def _to_csv(records: Sequence[TrialRecord], reevaluated_rewards: Mapping[int, float]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for r in records:
        steps = " ".join(f"{step}:{value:.6g}" for step, value in r.steps.items())
        row = (
            r.number, r.reward, reevaluated_rewards.get(r.number), round(r.seconds, 3),
            r.architecture.digest, r.same_as, r.failure, r.pruned or None, r.cost, steps,
        )  # fmt: skip
        rows.writerow(["" if cell is None else cell for cell in row])
    return text.getvalue()
