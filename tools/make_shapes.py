"""Generate the demonstration data: search, pretraining and detection sets of textured shapes.

Writes image folders for search and pretraining and a COCO data set; conf/ reads them by default.

nasdet make-shapes                             # the default, into data/shapes
nasdet make-shapes out=elsewhere shapes.seed=1
"""

from __future__ import annotations

from dataclasses import dataclass, field

from _cli import Run, tool
from _output import print_line, to_json
from detection.data.shapes.config import ShapesConfig


@dataclass(kw_only=True, slots=True)
class Args:
    """Settings of ``make_shapes``."""

    out: str
    """The folder to write; it becomes the data root of the other tools."""
    shapes: ShapesConfig = field(default_factory=ShapesConfig)
    """Amount of data to generate."""


@tool(Args)
def main(run: Run[Args]) -> None:
    from detection.data.shapes.dataset import make_shapes_with_bar

    make_shapes_with_bar(run.args.shapes, run.out)
    run.report(**to_json(run.args.shapes), detection=run.out / "detection")
    print_line("demonstration data", run.out)
    print_line("for detectors", f"data.root={run.out}/detection")


if __name__ == "__main__":
    main()
