"""Metrics as text, and the comparison table of backbones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from detection.evaluation.metrics import CocoMetrics


@dataclass(frozen=True, slots=True)
class BackboneResult:
    """Cost and metrics of one backbone in a comparison."""

    name: str
    parameters: int
    """Number of parameters of the backbone."""
    mult_adds: int
    """Multiply-adds of the backbone for one image of the size compared."""
    metrics: CocoMetrics
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds by stage."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {
            "name": self.name,
            "parameters": self.parameters,
            "mult_adds": self.mult_adds,
            "metrics": self.metrics.to_dict(),
            "seconds": self.seconds,
        }


def comparison_rows(results: Sequence[BackboneResult]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the comparison table: cost, AP, and seconds per stage."""
    stages = list(dict.fromkeys(stage for c in results for stage in c.seconds))
    head = ["backbone", "params", "mult-adds", "AP", "AP50", "AP75", *(f"{s} s" for s in stages)]
    rows = [
        [
            c.name,
            f"{c.parameters / 1e6:.2f} M",
            f"{c.mult_adds / 1e6:.1f} M",
            *(f"{value:.1f}" for value in (c.metrics.ap, c.metrics.ap50, c.metrics.ap75)),
            *(f"{c.seconds[s]:.0f}" if s in c.seconds else "" for s in stages),
        ]
        for c in results
    ]
    return head, rows


def headline(metrics: CocoMetrics) -> dict[str, float]:
    """Return AP, AP50 and AP75 in percent under the names that loggers show."""
    return {"AP": metrics.ap, "AP50": metrics.ap50, "AP75": metrics.ap75}


def describe_metrics(metrics: CocoMetrics) -> str:
    """Format the twelve COCO metrics in percent; n/a where one is undefined."""
    values = asdict(metrics)
    lines = [
        "AP {}  AP50 {}  AP75 {}".format(
            *(format_percent(values[name]) for name in ("ap", "ap50", "ap75"))
        ),
        "AP small {}  medium {}  large {}".format(
            *(format_percent(values[f"ap_{size}"]) for size in ("small", "medium", "large"))
        ),
        "AR at 1 {}  10 {}  100 {}".format(
            *(format_percent(values[f"ar_{count}"]) for count in (1, 10, 100))
        ),
    ]
    return "\n".join(lines)


def format_percent(value: float) -> str:
    """Return a number with one decimal, or n/a for NaN."""
    return "n/a" if value != value else f"{value:.1f}"  # noqa: PLR0124  # only NaN differs from itself
