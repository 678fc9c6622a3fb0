"""What a search leaves in its folder: cells, their drawing, a table of trials, the Pareto front."""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import dataclass
from pathlib import Path

from backbone.cells.drawing import draw_genotype
from backbone.cells.genotype import Genotype
from backbone.io.files import write_json, write_text
from backbone.io.provenance import Provenance
from search.rewards.cost import pareto_front
from search.study.driver import TrialRecord, known_reward

COLUMNS = [
    "trial", "reward", "fresh_reward", "seconds", "digest", "same_as", "failure", "pruned", "cost",
    "steps",
]  # fmt: skip
"""Of ``trials.csv``. ``steps`` are pairs ``step:value`` as reported on the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """One line of ``trials.csv``."""

    number: int
    reward: float | None
    seconds: float
    cost: float | None
    digest: str
    is_repeated: bool
    """Whether an earlier trial's reward was taken."""
    is_pruned: bool
    failure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search found."""

    path: Path
    """``cells.json``."""
    genotype: Genotype
    reward: float
    """The winner's in the search."""
    fresh_reward: float | None
    """Its mean reward with fresh seeds; None if none of the best was rewarded again."""
    unseen_reward: float | None
    """The same on data that the search never saw; None without such data."""
    trial: int
    """The winner's number."""
    num_trials: int
    num_failed: int
    seconds: float
    """Spent on rewards, over all runs of this search."""
    skipped: bool
    """Whether the file was already there, made from the same things."""

    def describe(self) -> str:
        """Return one line on the winner, and on why it need not be the trial rewarded best."""
        line = f"trial {self.trial} with reward {self.reward:.3f}"
        if self.fresh_reward is None:
            return line
        return f"{line}; best of those tried again with fresh seeds, {self.fresh_reward:.3f}"


def write_results(
    result: SearchResult,
    records: list[TrialRecord],
    fresh: dict[int, float],
    provenance: Provenance,
) -> None:
    """Write all artifacts, ``cells.json`` last: with it the stage is finished."""
    folder = result.path.parent
    write_text(folder / "trials.csv", _as_csv(records, fresh))
    if any(record.cost is not None for record in records):
        _write_front(records, folder / "front", provenance)
    title = f"trial {result.trial}, reward {result.reward:.4f}"
    draw_genotype(result.genotype, folder / "cells.png", title=title)
    about = {
        "reward": result.reward,
        "fresh_reward": result.fresh_reward,
        "unseen_reward": result.unseen_reward,
        "trial": result.trial,
        "num_trials": result.num_trials,
        "num_failed": result.num_failed,
        "seconds": result.seconds,
        "provenance": provenance.to_dict(),
    }
    write_json(result.path, result.genotype.to_dict() | about)


def _write_front(records: list[TrialRecord], folder: Path, provenance: Provenance) -> None:
    """Write a file of cells for every genotype that no other beats in reward and cost."""
    complete = [r for r in records if r.complete and r.same_as is None]
    points = [(known_reward(r.reward), r.cost or 0.0) for r in complete]
    if folder.exists():  # of a shorter search
        shutil.rmtree(folder)
    for record in (complete[i] for i in pareto_front(points)):
        about = {
            "reward": record.reward, "cost": record.cost, "trial": record.number,
            "provenance": provenance.to_dict(),
        }  # fmt: skip
        path = folder / f"trial_{record.number}.json"
        write_json(path, record.genotype.to_dict() | about)


def read_trials(folder: Path) -> list[TrialRow]:
    """Read a search's ``trials.csv``.

    Raises:
        FileNotFoundError: if the search is not finished, or there is none.
        ValueError: if the file has other columns.
    """
    path = folder / "trials.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if rows.fieldnames != COLUMNS:
            raise ValueError(f"{path} has the columns {rows.fieldnames}, not {COLUMNS}")
        return [
            TrialRow(
                number=int(row["trial"]),
                reward=float(row["reward"]) if row["reward"] else None,
                seconds=float(row["seconds"]),
                cost=float(row["cost"]) if row["cost"] else None,
                digest=row["digest"],
                is_repeated=bool(row["same_as"]),
                is_pruned=bool(row["pruned"]),
                failure=row["failure"],
            )
            for row in rows
        ]


def _as_csv(records: list[TrialRecord], fresh: dict[int, float]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for r in records:
        steps = " ".join(f"{step}:{value:.6g}" for step, value in r.steps.items())
        row = (
            r.number, r.reward, fresh.get(r.number), round(r.seconds, 3), r.genotype.digest,
            r.same_as, r.failure, r.pruned or None, r.cost, steps,
        )  # fmt: skip
        rows.writerow(["" if cell is None else cell for cell in row])
    return text.getvalue()
