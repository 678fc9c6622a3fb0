"""An honest account of searches: what was found, at what cost, and against which control."""

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
    "Best so far is the highest reward of a whole training, on the images that the search scored "
    "on: being the best of many, it is partly luck. The fresh reward is the winner's with other "
    "seeds; the unseen one is on images that no trial was scored on. Device time is the sum over "
    "all workers."
)


@dataclass(frozen=True)
class FinishedSearch:
    """One search's folder."""

    folder: Path
    trials: Sequence[TrialRow]
    record: Mapping[str, Any]
    """``cells.json``."""

    @classmethod
    def load(cls, folder: Path) -> FinishedSearch:
        """Read what a search wrote.

        Raises:
            FileNotFoundError: if the search is not finished, or there is none.
            ValueError: if a file is damaged, or of something else.
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
        """All that its trials depend on, beside its data."""
        return self.record["provenance"]["arguments"]

    def best_so_far(self, *, by_time: bool) -> tuple[list[float], list[float]]:
        """Return where the curve stands and how high: steps of trials, or of device hours."""
        across, up, hours, best = [], [], 0.0, math.nan
        for trial in self.trials:
            hours += trial.seconds / 3600
            if trial.reward is not None and not trial.pruned:
                best = trial.reward if math.isnan(best) else max(best, trial.reward)
            across.append(hours if by_time else trial.number + 1.0)
            up.append(best)
        return across, up


def write_report(searches: Mapping[str, Sequence[Path]], path: Path) -> Path:
    """Write a page on one or more searches, and its plots beside it.

    Args:
        searches: label -> folders; several folders of one label are seeds of one search, over
            which curves show mean and range.
        path: the page.

    Raises:
        FileNotFoundError: if one of the searches is not finished.
        ValueError: if a file of theirs is damaged, their rewards are not of one kind, or those of
            one label differ by more or less than their seeds.
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
    measures = {s.settings["cost"]["measure"] for found in loaded.values() for s in found}
    has_costs = any(t.cost is not None for f in loaded.values() for s in f for t in s.trials)
    if has_costs and len(measures) == 1:
        _draw_costs(loaded, costs, *measures)
        note = "Crosses were stopped early; the line is the Pareto front of all."
        parts.append(Picture("Reward and cost", costs, note))
    for label, found in loaded.items():
        best = max(found, key=_winning_reward)
        parts.append(Picture(f"Best cells: {label}", best.folder / "cells.png"))
    write_page(path, title="Search for cells", lead=LEAD, parts=parts)
    return path


def _winning_reward(search: FinishedSearch) -> float:
    """Return the reward by which a search chose its winner; 0 if its reevaluation failed."""
    reevaluated: float | None = search.record["reevaluated_reward"]
    return search.record["reward"] if reevaluated is None else reevaluated


def _check_comparable(loaded: Mapping[str, Sequence[FinishedSearch]]) -> None:
    """Refuse curves that would not belong on one plot, or bands that would not be of seeds."""
    for label, found in loaded.items():
        seeds: dict[int, Path] = {}
        for search in found:
            names = (search.settings.keys() | found[0].settings.keys()) - {"seed"}
            different = sorted(
                n for n in names if search.settings.get(n) != found[0].settings.get(n)
            )
            if different:
                raise ValueError(
                    f"{found[0].folder} and {search.folder}, both {label!r}, differ in "
                    f"{', '.join(different)}; searches of one name differ by their seeds only"
                )
            seed = search.settings["seed"]
            if seed in seeds:
                raise ValueError(
                    f"{seeds[seed]} and {search.folder}, both {label!r}, have the same seed {seed}"
                )
            seeds[seed] = search.folder
    first, *others = (search for found in loaded.values() for search in found)
    for search in others:
        same_data = search.record["provenance"]["data"] == first.record["provenance"]["data"]
        if search.settings["reward"] != first.settings["reward"] or not same_data:
            raise ValueError(
                f"the rewards of {first.folder} and {search.folder} are not comparable: they were "
                "made by other settings or of other data"
            )


def _table(loaded: Mapping[str, Sequence[FinishedSearch]]) -> Table:
    head = (
        "search", "trials", "trained", "stopped early", "failed", "best reward", "winner, fresh",
        "winner, unseen", "device hours",
    )  # fmt: skip
    rows = []
    for label, found in loaded.items():
        for search in found:
            trials, record = search.trials, search.record
            name = label if len(found) == 1 else f"{label}, {search.folder.name}"
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
                    _rounded(record["reevaluated_reward"]),
                    _rounded(record["test_reward"]),
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
        for (label, found), color in zip(loaded.items(), _colors(loaded), strict=True):
            _draw_band(axis, [s.best_so_far(by_time=by_time) for s in found], label, color)
        axis.set_xlabel("device hours" if by_time else "trials")
        axis.grid(alpha=0.25)
    figure.axes[0].set_ylabel("best reward so far")
    figure.axes[0].legend(loc="lower right")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _draw_band(
    axis: Axes, curves: Sequence[tuple[list[float], list[float]]], label: str, color: str
) -> None:
    """Draw the mean of stepped curves, up to where the shortest ends, and their range."""
    places = sorted({x for across, _ in curves for x in across})
    places = [x for x in places if max(c[0][0] for c in curves) <= x]
    places = [x for x in places if x <= min(c[0][-1] for c in curves)]
    heights = [[_height(curve, x) for curve in curves] for x in places]
    mean = [sum(h) / len(h) for h in heights]
    axis.step(places, mean, where="post", color=color, label=label)
    if len(curves) > 1:
        low, high = [min(h) for h in heights], [max(h) for h in heights]
        axis.fill_between(places, low, high, step="post", color=color, alpha=0.18, linewidth=0)


def _height(curve: tuple[list[float], list[float]], x: float) -> float:
    across, up = curve
    return up[bisect_right(across, x) - 1]


def _draw_costs(loaded: Mapping[str, Sequence[FinishedSearch]], path: Path, measure: str) -> None:
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    points = []
    for (label, found), color in zip(loaded.items(), _colors(loaded), strict=True):
        for marker, pruned in (("o", False), ("x", True)):
            drawn = [
                (t.reward, t.cost)
                for search in found
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
