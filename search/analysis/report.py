"""HTML report on searches: results, curves of the best reward, reward and cost, best cells."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from backbone.io.files import replacing
from backbone.io.html import Picture, Table, write_page
from backbone.io.provenance import read_record, recorded_key
from search.rewards.cost import pareto_front
from search.study.results import TrialRow, read_result, read_trials

COLORS = ("#1f6fb4", "#d9822b", "#3d8f4f", "#a0408f", "#7a6a58", "#c23b3b")
LEAD = (
    "The best reward is the highest of all complete trainings, on the images that trials were "
    "scored on: as the best of many, it is partly luck. The reevaluated reward is the winner's "
    "with other seeds; the test reward is measured on images that no trial was scored on. Device "
    "hours are summed over all workers."
)


@dataclass(frozen=True)
class FinishedSearch:
    """Output folder of one search."""

    folder: Path
    trials: Sequence[TrialRow]
    record: Mapping[str, Any]
    """``cells.json``."""

    @classmethod
    def load(cls, folder: Path) -> FinishedSearch:
        """Read the output folder of a search.

        Raises:
            FileNotFoundError: if the folder holds no search, or an unfinished one.
            ValueError: if a file is damaged, or was not written by a search.
        """
        path = folder / "cells.json"
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no finished search: it has no {path.name}")
        record = read_record(path)
        if recorded_key(record) is None or record["provenance"].get("stage") != "search":
            raise ValueError(f"{path} was not written by a search, or is damaged")
        return cls(folder, read_trials(folder), read_result(path))

    @property
    def settings(self) -> Mapping[str, Any]:
        """Recorded settings of the search, which with its data determine its trials."""
        return self.record["provenance"]["arguments"]

    def best_so_far(self, *, by_time: bool) -> tuple[list[float], list[float]]:
        """Return x, trial numbers or device hours, and y, the best reward so far."""
        x, y, hours, best = [], [], 0.0, math.nan
        for trial in self.trials:
            hours += trial.seconds / 3600
            if trial.reward is not None and not trial.pruned:
                best = trial.reward if math.isnan(best) else max(best, trial.reward)
            x.append(hours if by_time else trial.number + 1.0)
            y.append(best)
        return x, y

    @property
    def winner_reward(self) -> float:
        """The winner's reevaluated reward, 0 if it failed; its search reward if it has none."""
        reevaluated: float | None = self.record["reevaluated_reward"]
        return self.record["reward"] if reevaluated is None else reevaluated


def write_report(searches: Mapping[str, Sequence[Path]], path: Path) -> Path:
    """Write an HTML report on one or more searches, and its plots beside it.

    Args:
        searches: label -> folders; several folders of one label are seeds of one search, whose
            curves are drawn as mean and range.
        path: the HTML file.

    Raises:
        FileNotFoundError: if a search is not finished.
        ValueError: if a file is damaged, the rewards are not of one kind, or the searches of one
            label do not differ by exactly their seeds.
    """
    loaded = {
        label: [FinishedSearch.load(folder) for folder in folders]
        for label, folders in searches.items()
    }
    _check_comparable(loaded)
    curves, costs = (path.with_name(f"{path.stem}_{name}.png") for name in ("curves", "costs"))
    _draw_curves(loaded, curves)
    parts: list[Table | Picture] = [
        _table(loaded),
        Picture("Best so far", curves, "Bands: the range over seeds."),
    ]
    every = [search for group in loaded.values() for search in group]
    measures = {search.settings["cost"]["measure"] for search in every}
    has_costs = any(trial.cost is not None for search in every for trial in search.trials)
    if has_costs and len(measures) == 1:
        _draw_costs(loaded, costs, *measures)
        note = "Crosses: trials stopped early. Line: Pareto front of all searches."
        parts.append(Picture("Reward and cost", costs, note))
    for label, group in loaded.items():
        best = max(group, key=lambda s: s.winner_reward)
        parts.append(Picture(f"Best cells: {label}", best.folder / "cells.png"))
    write_page(path, title="Search for cells", lead=LEAD, parts=parts)
    return path


def _check_comparable(loaded: Mapping[str, Sequence[FinishedSearch]]) -> None:
    """Refuse searches whose curves are not comparable, or groups that differ by more than seeds."""
    for label, group in loaded.items():
        seeds: dict[int, Path] = {}
        for search in group:
            names = (search.settings.keys() | group[0].settings.keys()) - {"seed"}
            different = sorted(
                n for n in names if search.settings.get(n) != group[0].settings.get(n)
            )
            if different:
                raise ValueError(
                    f"{group[0].folder} and {search.folder}, both {label!r}, differ in "
                    f"{', '.join(different)}; searches of one label differ by their seeds only"
                )
            seed = search.settings["seed"]
            if seed in seeds:
                raise ValueError(
                    f"{seeds[seed]} and {search.folder}, both {label!r}, have the same seed {seed}"
                )
            seeds[seed] = search.folder
    first, *others = (search for group in loaded.values() for search in group)
    for search in others:
        same_data = search.record["provenance"]["data"] == first.record["provenance"]["data"]
        if search.settings["reward"] != first.settings["reward"] or not same_data:
            raise ValueError(
                f"the rewards of {first.folder} and {search.folder} are not comparable: their "
                "settings or data differ"
            )


def _table(loaded: Mapping[str, Sequence[FinishedSearch]]) -> Table:
    head = (
        "search", "trials", "trained", "stopped early", "failed", "best reward",
        "winner, reevaluated", "winner, test", "device hours",
    )  # fmt: skip
    rows = []
    for label, group in loaded.items():
        for search in group:
            trials = search.trials
            name = label if len(group) == 1 else f"{label}, {search.folder.name}"
            best = max(
                (t.reward for t in trials if t.reward is not None and not t.pruned),
                default=math.nan,
            )
            rows.append(
                (
                    name,
                    str(len(trials)),
                    str(sum(t.same_as is None for t in trials)),
                    str(sum(t.pruned for t in trials)),
                    str(sum(bool(t.failure) for t in trials)),
                    f"{best:.4f}",
                    _rounded(search.record["reevaluated_reward"]),
                    _rounded(search.record["test_reward"]),
                    f"{sum(t.seconds for t in trials) / 3600:.3f}",
                )
            )
    return Table("Result", head, rows)


def _rounded(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"


def _draw_curves(loaded: Mapping[str, Sequence[FinishedSearch]], path: Path) -> None:
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, by_time in zip(figure.subplots(1, 2, sharey=True), (False, True), strict=True):
        for (label, group), color in zip(loaded.items(), _colors(loaded), strict=True):
            _draw_band(axis, [s.best_so_far(by_time=by_time) for s in group], label, color)
        axis.set_xlabel("device hours" if by_time else "trials")
        axis.grid(alpha=0.25)
    figure.axes[0].set_ylabel("best reward so far")
    figure.axes[0].legend(loc="lower right")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _draw_band(
    axis: Axes, curves: Sequence[tuple[list[float], list[float]]], label: str, color: str
) -> None:
    """Draw mean and range of stepped curves over the interval that all of them cover."""
    start, end = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    steps = sorted({step for x, _ in curves for step in x if start <= step <= end})
    values = [[y[bisect_right(x, step) - 1] for x, y in curves] for step in steps]
    mean = [sum(column) / len(column) for column in values]
    axis.step(steps, mean, where="post", color=color, label=label)
    if len(curves) > 1:
        low, high = [min(column) for column in values], [max(column) for column in values]
        axis.fill_between(steps, low, high, step="post", color=color, alpha=0.18, linewidth=0)


def _draw_costs(loaded: Mapping[str, Sequence[FinishedSearch]], path: Path, measure: str) -> None:
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    points = []
    for (label, group), color in zip(loaded.items(), _colors(loaded), strict=True):
        for marker, pruned in (("o", False), ("x", True)):
            drawn = [
                (t.reward, t.cost)
                for search in group
                for t in search.trials
                if t.reward is not None and t.cost is not None and t.pruned == pruned
            ]
            axis.scatter(
                [cost for _, cost in drawn], [reward for reward, _ in drawn], s=16,
                marker=marker, color=color, alpha=0.7, linewidths=0.8 if pruned else 0,
                label=None if pruned else label,
            )  # fmt: skip
            points += [] if pruned else drawn
    front = [points[i] for i in pareto_front(points)]
    axis.step([c for _, c in front], [r for r, _ in front], where="post", color="#888", zorder=0)
    names = {"mult_adds": "multiply-adds", "latency_ms": "latency in ms"}
    axis.set(xlabel=names.get(measure, measure), ylabel="reward")
    axis.set_xscale("log")
    axis.grid(alpha=0.25, which="both")
    axis.legend(loc="lower right")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _colors(loaded: Mapping[str, Any]) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(len(loaded))]
