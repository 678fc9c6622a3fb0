"""Plots of an evaluation: precision-recall curves, confusion matrix, and TIDE errors."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from backbone.io.files import replacing
from detection.data.coco import GroundTruth
from detection.data.columns import Integers, Numbers
from detection.evaluation.coco_eval import IOU_THRESHOLDS, RECALLS, CocoArrays
from detection.evaluation.confusion import BACKGROUND, Confusion
from detection.evaluation.tide import TideErrors

CURVES = {"IoU 0.50": "#1f6fb4", "IoU 0.75": "#d9822b", "IoU 0.50:0.95": "#3d8f4f"}
MAX_CLASSES = 100
"""Maximum number of categories in a plot; those with the most objects are drawn."""
DPI = 110


def draw_curves(arrays: CocoArrays, path: Path) -> None:
    """Draw the precision-recall curves averaged over the categories with objects."""
    figure = Figure(figsize=(6.2, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    with_objects = arrays.precision[0, 0, :, 0] > -1
    if with_objects.any():
        _plot(axis, arrays.precision[:, :, with_objects, 0].mean(axis=2), labeled=True)
        axis.legend(loc="best")
    axis.set(xlabel="recall", ylabel="precision", title="Mean of all categories")
    _frame(axis, num_ticks=6)
    axis.grid(alpha=0.25)
    _save(figure, path)


def draw_class_curves(arrays: CocoArrays, truth: GroundTruth, path: Path) -> None:
    """Draw the precision-recall curves of each category in a plot of its own, with its AP."""
    chosen = _most_frequent(truth)
    columns = min(max(round(np.sqrt(1.4 * chosen.size)), 2), 10)
    rows = -(-chosen.size // columns)
    width, height = 1.75 * columns + 0.5, 1.65 * rows + 1.1
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    # Explicit margins: constrained layout takes ten seconds for eighty plots.
    margins = {"left": 0.35 / width, "right": 1 - 0.15 / width}
    margins |= {"bottom": 0.65 / height, "top": 1 - 0.7 / height}
    grid = figure.subplots(
        rows, columns, squeeze=False, sharex=True, sharey=True,
        gridspec_kw={"wspace": 0.12, "hspace": 0.25, **margins},
    ).ravel()  # fmt: skip
    for axis, label in zip(grid, chosen, strict=False):
        precision = arrays.precision[:, :, label, 0]
        known = precision[0, 0] > -1
        if known:
            _plot(axis, precision, labeled=axis is grid[0])
        ap = f"{100 * precision.mean():.1f}" if known else "no objects"
        axis.set_title(
            f"{_short(truth.class_names[label], 18)}  {ap}", fontsize=8, pad=3, parse_math=False
        )
        axis.tick_params(labelsize=6, length=2)
        _frame(axis, num_ticks=3)
    for axis in grid[chosen.size :]:
        axis.axis("off")
    handles, names = grid[0].get_legend_handles_labels()
    title = "Precision by recall, AP beside the name"
    if chosen.size < len(truth.class_names):
        title += f"; the {chosen.size} of {len(truth.class_names)} categories with most objects"
    figure.suptitle(title, fontsize=10, y=1 - 0.15 / height, va="top")
    if handles:
        figure.legend(handles, names, loc="lower center", ncols=3, fontsize=8)
    _save(figure, path)


def _most_frequent(truth: GroundTruth) -> Integers:
    """Return the labels of the most frequent categories, in ascending order."""
    num_objects = np.bincount(truth.labels, minlength=len(truth.class_names))
    return np.sort(np.argsort(-num_objects, kind="stable")[:MAX_CLASSES])


def _plot(axis: Axes, precision_TR: Numbers, *, labeled: bool) -> None:  # noqa: N803
    """Draw the three curves of precision at T IoU thresholds and R recalls."""
    at_50, at_75 = (int(np.abs(IOU_THRESHOLDS - iou).argmin()) for iou in (0.5, 0.75))
    curves = (precision_TR[at_50], precision_TR[at_75], precision_TR.mean(axis=0))
    for (name, color), curve in zip(CURVES.items(), curves, strict=True):
        label = f"{name}: {100 * curve.mean():.1f}" if labeled and _is_large(axis) else name
        axis.plot(RECALLS, curve, color=color, linewidth=1.3, label=label)


def _is_large(axis: Axes) -> bool:
    return len(axis.figure.axes) == 1


def _frame(axis: Axes, *, num_ticks: int) -> None:
    ticks = np.linspace(0, 1, num_ticks)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1.03)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])


def draw_confusion(confusion: Confusion, path: Path) -> None:
    """Draw the fraction of each category's objects that was detected as each category.

    The last row holds the fractions of each category among the detections without an object.
    """
    names, matrix = _confusion_of_most(confusion)
    num = len(names)
    size = 9 if num <= 25 else 7
    labels = [_short(name, 20) for name in names]
    side, room = max(0.21 * num, 3.6), max(map(len, labels)) * size * 0.0095
    figure = Figure(figsize=(side + room + 1.6, side + room + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    totals = matrix.sum(axis=1, keepdims=True)
    fractions = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    # A linear scale would show rare confusions as white.
    image = axis.imshow(fractions, norm=PowerNorm(0.5, vmin=0, vmax=1), cmap="Blues")
    axis.set_xticks(range(num), labels, rotation=90, fontsize=size, parse_math=False)
    axis.set_yticks(range(num), labels, fontsize=size, parse_math=False)
    axis.set_xticks(np.arange(num + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(num + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="#d5d5d5", linewidth=0.4)
    axis.tick_params(which="minor", length=0)
    if num <= 25:
        _write_numbers(axis, matrix, fractions)
    axis.axhline(num - 1.5, color="#444", linewidth=1)
    axis.axvline(num - 1.5, color="#444", linewidth=1)
    axis.set(xlabel="detected as", ylabel="object")
    axis.set_title(
        f"Score of at least {confusion.score_threshold:g}, IoU of at least {confusion.iou:g}",
        fontsize=10,
    )
    bar = figure.colorbar(image, ax=axis, shrink=0.5, pad=0.01)
    bar.set_label("fraction of the row")
    _save(figure, path)


def _confusion_of_most(confusion: Confusion) -> tuple[list[str], Numbers]:
    """Return names and counts of the most frequent categories, background last."""
    order = np.argsort(-confusion.counts[:-1].sum(axis=1), kind="stable")[:MAX_CLASSES]
    chosen = [*np.sort(order).tolist(), len(confusion.class_names)]
    names = [*confusion.class_names, BACKGROUND]
    matrix = confusion.counts[np.ix_(chosen, chosen)].astype(np.float64)
    return [names[i] for i in chosen], matrix


def _write_numbers(axis: Axes, matrix: Numbers, fractions: Numbers) -> None:
    for row, column in zip(*np.nonzero(matrix), strict=True):
        axis.text(
            column, row, f"{matrix[row, column]:.0f}",
            ha="center", va="center", fontsize=6.5,
            color="white" if fractions[row, column] > 0.35 else "#222",
        )  # fmt: skip


def draw_tide(errors: TideErrors, path: Path) -> None:
    """Draw the points of AP50 gained by fixing each type of error."""
    figure = Figure(figsize=(7.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    names = [name.replace("_", " ") for name in errors.gains][::-1]
    gains = list(errors.gains.values())[::-1]
    counts = [errors.counts.get(name) for name in errors.gains][::-1]
    colors = ["#1f6fb4" if count is not None else "#a8a8a8" for count in counts]
    bars = axis.barh(names, gains, color=colors)
    texts = [
        f"{gain:.1f}" + ("" if count is None else f"  ({count})")
        for gain, count in zip(gains, counts, strict=True)
    ]
    axis.bar_label(bars, texts, padding=4, fontsize=9)
    axis.set_xlim(0, max(*gains, 1) * 1.18)
    axis.set_xlabel("points of AP50 gained by fixing this type alone (number of errors)")
    axis.set_title(f"Error types at AP50 {errors.ap50:.1f}", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _short(name: str, limit: int) -> str:
    name = " ".join(name.split())
    return name if len(name) <= limit else name[: limit - 1] + "…"


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary, warnings.catch_warnings():
        # Characters that the font lacks are drawn as boxes; the HTML page has the full names.
        warnings.filterwarnings("ignore", message=".*missing from font", category=UserWarning)
        figure.savefig(temporary, dpi=DPI, format="png")
