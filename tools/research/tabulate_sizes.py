"""Tabulate parameters and multiply-adds of nasdet's networks beside the published values.

Prints the table and writes it between the marks of docs/backbones.md.

nasdet research tabulate-sizes
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).parents[1]))  # modules that all tools share

from _cli import Run, tool
from _output import print_line

if TYPE_CHECKING:
    from torch import nn

TABLE = re.compile(r"(?<=<!-- sizes -->\n).*(?=<!-- /sizes -->)", re.DOTALL)


@dataclass(kw_only=True, slots=True)
class Args:
    """Settings of ``tabulate_sizes``."""

    out: str
    """A Markdown file with the lines ``<!-- sizes -->`` and ``<!-- /sizes -->``; the text between
    them is replaced."""
    references: str
    """A YAML file with the published sizes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceSize:
    """A published network and its known size, with a classifier."""

    name: str
    """The network's name in its paper."""
    spec: str
    side_px: int
    num_classes: int = 1000
    stem: str = "imagenet"
    printed_parameters: str = ""
    printed_mult_adds: str = ""
    parameters: int | None = None
    with_statistics: int | None = None
    """Parameters and the running means and variances of batch normalization."""
    mult_adds: int | None = None
    auxiliary_parameters: int | None = None
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Size:
    """Measured size of a network with its classifier."""

    parameters: int
    with_statistics: int
    mult_adds: int
    auxiliary_parameters: int


@tool(Args)
def main(run: Run[Args]) -> None:
    from backbone.io.files import write_text

    path = run.out
    text = path.read_text(encoding="utf-8")
    if TABLE.search(text) is None:
        raise ValueError(f"{path} has no lines <!-- sizes --> and <!-- /sizes -->")
    references = read_references(Path(run.args.references))
    sizes = [measure_size(reference) for reference in references]
    table = tabulate_sizes(references, sizes)
    write_text(path, TABLE.sub(lambda _: f"\n{table}\n\n", text))
    run.report(
        sizes=[
            {"name": reference.name, "spec": reference.spec, **asdict(size)}
            for reference, size in zip(references, sizes, strict=True)
        ],
        table=path,
    )
    print(f"{table}\n")
    print_line("written", path)


def read_references(path: Path) -> list[ReferenceSize]:
    """Read published sizes from a YAML list of ``ReferenceSize``'s fields."""
    import yaml

    rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [ReferenceSize(**row) for row in rows]


def measure_size(reference: ReferenceSize) -> Size:
    """Build the reference's network on the meta device and count."""
    import torch

    from backbone.models.backbone import build_backbone
    from backbone.models.classifier import Classifier
    from backbone.profile.complexity import count_mult_adds

    with torch.device("meta"):
        backbone = build_backbone(reference.spec, stem=reference.stem)
        classifier = Classifier(
            backbone,
            num_classes=reference.num_classes,
            auxiliary_side_px=reference.side_px,
        ).eval()
        images = torch.empty(1, 3, reference.side_px, reference.side_px)
    assert classifier.auxiliary is not None
    auxiliary = _count(classifier.auxiliary)
    parameters = _count(classifier) - auxiliary
    statistics = sum(b.numel() for name, b in backbone.body.named_buffers() if "running_" in name)
    mult_adds = count_mult_adds(classifier, images)
    return Size(parameters, parameters + statistics, mult_adds, auxiliary)


def tabulate_sizes(references: Sequence[ReferenceSize], sizes: Sequence[Size]) -> str:
    """Return the table "ours / published" of all references as Markdown."""
    lines = [
        "| network | spec | px | parameters: ours | printed | mult-adds: ours | printed | source |",
        "|---|---|---|---|---|---|---|---|",
    ]
    notes: list[str] = []
    for reference, size in zip(references, sizes, strict=True):
        mark = ""
        if reference.note:
            if reference.note not in notes:
                notes.append(reference.note)
            mark = f" [{notes.index(reference.note) + 1}]"
        cells = (
            reference.name + mark,
            f"`{reference.spec}`",
            str(reference.side_px),
            f"{size.parameters:,}",
            reference.printed_parameters or "-",
            f"{size.mult_adds:,}",
            reference.printed_mult_adds or "-",
            reference.source,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"[{n}] {note}.  " for n, note in enumerate(notes, start=1))])


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


if __name__ == "__main__":
    main()
