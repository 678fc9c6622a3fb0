"""Backbones side by side: what they cost and what they find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from detection.evaluation.metrics import CocoMetrics


@dataclass(frozen=True, slots=True)
class Contestant:
    """One backbone in a comparison."""

    name: str
    parameters: int
    """Of the backbone."""
    mult_adds: int
    """Of the backbone, for one image of the comparison's size."""
    metrics: CocoMetrics
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage -> wall-clock time."""

    def to_dict(self) -> dict[str, Any]:
        """Return the members as JSON's types."""
        return {
            "name": self.name,
            "parameters": self.parameters,
            "mult_adds": self.mult_adds,
            "metrics": self.metrics.to_dict(),
            "seconds": self.seconds,
        }


def comparison_rows(contestants: Sequence[Contestant]) -> tuple[list[str], list[list[str]]]:
    """Return a table's head and rows: cost, AP, and seconds per stage."""
    stages = list(dict.fromkeys(stage for c in contestants for stage in c.seconds))
    head = ["backbone", "params", "mult-adds", "AP", "AP50", "AP75", *(f"{s} s" for s in stages)]
    rows = [
        [
            c.name,
            f"{c.parameters / 1e6:.2f} M",
            f"{c.mult_adds / 1e6:.1f} M",
            *(f"{value:.1f}" for value in (c.metrics.ap, c.metrics.ap50, c.metrics.ap75)),
            *(f"{c.seconds[s]:.0f}" if s in c.seconds else "" for s in stages),
        ]
        for c in contestants
    ]
    return head, rows


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay a table out for a terminal: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def headline(metrics: CocoMetrics) -> dict[str, float]:
    """Return AP, AP50 and AP75 in percent, under the names that loggers show."""
    return {"AP": metrics.ap, "AP50": metrics.ap50, "AP75": metrics.ap75}


def describe_metrics(metrics: CocoMetrics) -> str:
    """Say COCO's figures in a few lines, in percent; n/a where there is nothing to measure."""
    values = asdict(metrics)
    lines = [
        "AP {}  AP50 {}  AP75 {}".format(*(say(values[name]) for name in ("ap", "ap50", "ap75"))),
        "AP small {}  medium {}  large {}".format(
            *(say(values[f"ap_{size}"]) for size in ("small", "medium", "large"))
        ),
        "AR at 1 {}  10 {}  100 {}".format(*(say(values[f"ar_{count}"]) for count in (1, 10, 100))),
    ]
    return "\n".join(lines)


def say(value: float) -> str:
    """Return a figure to one decimal; n/a where there is none."""
    return "n/a" if value != value else f"{value:.1f}"  # noqa: PLR0124  # NaN alone differs
