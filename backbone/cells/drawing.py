"""Draw genotypes: both cells as layered graphs, from the inputs upwards.

As in the paper's figure 4: inputs at the bottom, operations in boxes, combinations in circles, the
concatenation of the output at the top. All edges of one state have one color. An edge that passes
a layer has a column of its own in it, so that no edge is hidden behind a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path as Curve

from backbone.cells.genotype import NUM_INPUTS, CellSpec, Genotype
from backbone.io.files import replacing

# All lengths are in inches, so that text fits its box at any size of the picture.
BOX_WIDTH, BOX_HEIGHT = 0.86, 0.44
BOX_GAP = 0.12
NODE_WIDTH, NODE_HEIGHT = 0.62, 0.27
EDGE_COLUMN_WIDTH = 0.2
COLUMN_GAP = 0.34
INPUT_WIDTH = 0.95
BLOCK_HEIGHT = 1.22
"""Distance from the bottom of a block's boxes to the top of its combination."""
LAYER_GAP = 1.0
MARGIN = 0.3
FONT_PT = 9
COLORS = ("#4c4c4c", "#1f6fb4", "#d1661b", "#2b8a3e", "#b02a30", "#7a4fb3", "#8a5a2b", "#c2438f")
"""Colors of states 0, 1, ...; repeated for cells with more states."""
INPUT_LABELS = ("h[i-1]\n(older)", "h[i]\n(newer)")


@dataclass(slots=True)
class _Item:
    """Item of one column in a layer: an input, a block, or an edge that passes it."""

    state: int
    width: float
    is_edge: bool = False
    x: float = 0.0
    """Center."""


@dataclass(slots=True)
class _Layout:
    """Items of each layer, from the inputs (layer 0) upwards, and their coordinates."""

    cell: CellSpec
    layers: list[list[_Item]]
    depth: list[int]
    """Layer of each state."""
    width: float = 0.0
    centers: dict[tuple[int, int], float] = field(default_factory=dict)
    """(layer, state) -> center of its item in that layer."""

    @property
    def height(self) -> float:
        return (len(self.layers) - 1) * (BLOCK_HEIGHT + LAYER_GAP) + BOX_HEIGHT + LAYER_GAP + 0.4

    def bottom(self, layer: int) -> float:
        if layer == 0:
            return 0.0
        return BOX_HEIGHT + LAYER_GAP + (layer - 1) * (BLOCK_HEIGHT + LAYER_GAP)

    def top(self, layer: int) -> float:
        return self.bottom(layer) + (BOX_HEIGHT if layer == 0 else BLOCK_HEIGHT)

    @property
    def output_bottom(self) -> float:
        return self.bottom(len(self.layers))


def draw_genotype(genotype: Genotype, path: Path, *, title: str = "") -> None:
    """Draw the cells side by side.

    Args:
        genotype: the cells.
        path: the file; its suffix selects the format (``.png``, ``.svg``, ``.pdf``).
        title: a line above the cells.

    Raises:
        ValueError: if the format is unknown.
        OSError: if the file cannot be written.
    """
    path = Path(path)
    known = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix.lower().lstrip(".") not in known:
        raise ValueError(f"cannot draw {path}: choose a suffix of {sorted(known)}")
    layouts = {name: _lay_out(cell) for name, cell in genotype.cells.items()}
    head = 0.75 if title else 0.45
    height = max(layout.height for layout in layouts.values()) + 2 * MARGIN + head
    width = sum(layout.width for layout in layouts.values()) + 4 * MARGIN
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    if title:
        figure.text(0.5, 1 - 0.2 / height, title, ha="center", va="center", size=FONT_PT + 2)
    left = MARGIN
    for name, layout in layouts.items():
        box = (left / width, MARGIN / height, layout.width / width, layout.height / height)
        axes = figure.add_axes(box)
        axes.set_xlim(0, layout.width)
        axes.set_ylim(0, layout.height)
        axes.set_axis_off()
        _draw_cell(axes, layout)
        axes.text(
            layout.width / 2,
            layout.height + 0.2,
            f"{name} cell" if genotype.reduction else "cell",
            ha="center",
            size=FONT_PT + 3,
            weight="bold",
        )
        left += layout.width + 2 * MARGIN
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _lay_out(cell: CellSpec) -> _Layout:
    depth = [0] * NUM_INPUTS
    for block in cell.blocks:
        depth.append(1 + max(depth[block.left.source], depth[block.right.source]))
    num_layers = 1 + max(depth)
    last_read = list(depth)  # last layer that reads each state
    for state, block in enumerate(cell.blocks, start=NUM_INPUTS):
        for edge in (block.left, block.right):
            last_read[edge.source] = max(last_read[edge.source], depth[state])
    for state in cell.concat:
        last_read[state] = num_layers
    layers: list[list[_Item]] = [[] for _ in range(num_layers)]
    for state, first in enumerate(depth):
        width = INPUT_WIDTH if state < NUM_INPUTS else 2 * BOX_WIDTH + BOX_GAP
        layers[first].append(_Item(state, width))
        for layer in range(first + 1, last_read[state]):
            layers[layer].append(_Item(state, EDGE_COLUMN_WIDTH, is_edge=True))
    layout = _Layout(cell, layers, depth)
    layout.width = max(
        sum(item.width + COLUMN_GAP for item in layer) + COLUMN_GAP for layer in layers
    )
    for _ in range(4):  # a few sweeps settle graphs of this size
        _arrange(layout)
    return layout


def _arrange(layout: _Layout) -> None:
    """Order each layer by its items' inputs, and spread it over the width."""
    for layer, items in enumerate(layout.layers):
        if layer > 0:
            items.sort(key=lambda item: _mean_input(layout, layer, item))
        free = layout.width - sum(item.width for item in items)
        gap = free / (len(items) + 1)
        x = gap
        for item in items:
            item.x = x + item.width / 2
            layout.centers[layer, item.state] = item.x
            x += item.width + gap


def _mean_input(layout: _Layout, layer: int, item: _Item) -> float:
    if item.is_edge:
        return layout.centers[layer - 1, item.state]
    block = layout.cell.blocks[item.state - NUM_INPUTS]
    sources = (block.left.source, block.right.source)
    return sum(layout.centers[layer - 1, source] for source in sources) / 2


def _draw_cell(axes: Axes, layout: _Layout) -> None:
    for item in layout.layers[0]:
        center, size = (item.x, BOX_HEIGHT / 2), (INPUT_WIDTH, BOX_HEIGHT)
        _box(axes, center, INPUT_LABELS[item.state], _color(item.state), size=size)
    for layer, items in enumerate(layout.layers[1:], start=1):
        for item in items:
            if item.is_edge:
                bottom, top = layout.bottom(layer), layout.top(layer)
                _curve(axes, (layout.centers[layer - 1, item.state], layout.top(layer - 1)),
                       (item.x, bottom), _color(item.state))  # fmt: skip
                axes.plot([item.x, item.x], [bottom, top], color=_color(item.state), lw=1.4)
            else:
                _draw_block(axes, layout, layer, item)
    middle, y = layout.width / 2, layout.output_bottom
    span = min(layout.width - 0.4, max(1.8, 0.5 * len(layout.cell.concat)))
    order = sorted(
        layout.cell.concat, key=lambda state: layout.centers[len(layout.layers) - 1, state]
    )
    top_layer = len(layout.layers) - 1
    for index, state in enumerate(order):
        start = (layout.centers[top_layer, state], layout.top(top_layer))
        end = (middle + span * ((index + 0.5) / len(order) - 0.5), y)
        _curve(axes, start, end, _color(state), arrow=True)
    _box(axes, (middle, y + 0.16), "output: concat", "#222222", size=(span, 0.32))


def _draw_block(axes: Axes, layout: _Layout, layer: int, item: _Item) -> None:
    block = layout.cell.blocks[item.state - NUM_INPUTS]
    edges = [block.left, block.right]
    if block.combine == "add":  # its sides may be swapped, to uncross the edges
        edges.sort(key=lambda edge: layout.centers[layer - 1, edge.source])
    bottom, top = layout.bottom(layer), layout.top(layer)
    for side, edge in zip((-1, 1), edges, strict=True):
        x = item.x + side * (BOX_WIDTH + BOX_GAP) / 2
        start = (layout.centers[layer - 1, edge.source], layout.top(layer - 1))
        _curve(axes, start, (x, bottom), _color(edge.source), arrow=True)
        _curve(axes, (x, bottom + BOX_HEIGHT), (item.x + side * 0.12, top - NODE_HEIGHT), "#222222")
        _box(axes, (x, bottom + BOX_HEIGHT / 2), _label(edge.operation), _color(edge.source))
    center, size = (item.x, top - NODE_HEIGHT / 2), (NODE_WIDTH, NODE_HEIGHT)
    _box(axes, center, block.combine, _color(item.state), size=size, filled=True)


def _label(operation: str) -> str:
    """Return ``sep conv`` over ``3x3`` for ``sep_conv_3x3``."""
    words = operation.split("_")
    name = " ".join(word for word in words if not word[0].isdigit())
    size = " ".join(word for word in words if word[0].isdigit())
    return f"{name}\n{size}" if size else name


def _color(state: int) -> str:
    return COLORS[state % len(COLORS)]


def _box(
    axes: Axes,
    center: tuple[float, float],
    text: str,
    color: str,
    *,
    size: tuple[float, float] = (BOX_WIDTH, BOX_HEIGHT),
    filled: bool = False,
) -> None:
    (x, y), (width, height) = center, size
    rounding = height / 2 if filled else 0.06
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle=f"round,pad=0,rounding_size={rounding}",
            facecolor=color if filled else "white",
            edgecolor=color,
            linewidth=1.4,
            zorder=3,
            clip_on=False,
        )
    )
    style: dict[str, Any] = {
        "ha": "center",
        "va": "center",
        "size": FONT_PT,
        "zorder": 4,
        "linespacing": 0.95,
    }
    axes.text(x, y, text, color="white" if filled else "#111111", **style)


def _curve(
    axes: Axes, start: Sequence[float], end: Sequence[float], color: str, *, arrow: bool = False
) -> None:
    (x0, y0), (x1, y1) = start, end
    bend = 0.55 * (y1 - y0)
    curve = Curve(
        [(x0, y0), (x0, y0 + bend), (x1, y1 - bend), (x1, y1)],
        [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4],
    )
    axes.add_patch(PathPatch(curve, facecolor="none", edgecolor=color, linewidth=1.4, zorder=2))
    if arrow:
        axes.fill(
            [x1 - 0.05, x1 + 0.05, x1], [y1 - 0.1, y1 - 0.1, y1], color=color, linewidth=0, zorder=2
        )
