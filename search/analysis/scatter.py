"""Scatter plots of several rewards against one, side by side in one file."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from backbone.io.files import replacing

COLUMNS = 4
PANEL_INCHES = (3.2, 3.1)
COLOR = "#1f6fb4"
TITLE_CHARACTERS, CAPTION_CHARACTERS = 32, 48
"""Characters that fit across a panel. Titles are wrapped, captions are cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One plot: a point per genotype."""

    title: str
    caption: str
    """One line below the title; cut off if it is too long."""
    x: Sequence[float]
    y: Sequence[float]


def draw_scatter(panels: Sequence[Panel], path: Path, *, y_label: str) -> None:
    """Draw the panels row by row; they share the y axis, each has an x axis of its own."""
    columns = min(len(panels), COLUMNS)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(
        figsize=(columns * PANEL_INCHES[0], rows * PANEL_INCHES[1]), layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for number, (axis, panel) in enumerate(zip(axes.flat, panels, strict=False)):
        axis.scatter(panel.x, panel.y, s=22, color=COLOR, alpha=0.8, linewidths=0)
        title = textwrap.fill(panel.title, TITLE_CHARACTERS)
        caption = textwrap.shorten(panel.caption, CAPTION_CHARACTERS, placeholder=" ...")
        axis.set_title(f"{title}\n", fontsize=10, fontweight="bold")
        axis.text(0.5, 1.02, caption, transform=axis.transAxes, ha="center", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        if number % columns == 0:
            axis.set_ylabel(y_label)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
