"""Convert cells between notations and draw them.

Reads nasdet's JSON, DARTS's tuples, ENAS's integers and NNI's JSON, or published cells by name;
writes one of these notations, cells.png and cells.svg. Cells that the target notation cannot
express are refused.

nasdet convert-cells cells=darts_v2 to=nni
nasdet convert-cells cells=their_genotype.txt      # to cells.json, a backbone spec's part
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from _cli import Run, tool
from _output import print_line

FILE_NAMES = {"json": "cells.json", "darts": "darts.txt", "enas": "enas.txt", "nni": "nni.json"}


@dataclass(kw_only=True, slots=True)
class Args:
    """Settings of ``convert_cells``."""

    out: str
    """The folder for the converted file and the drawings."""
    cells: str
    """Published cells by name, such as ``nasnet_a``, or a file in any of the notations: nasdet's
    JSON, DARTS's tuples, ENAS's integers, NNI's JSON."""
    to: str = "json"
    """Notation to write: ``json`` (nasdet's), ``darts``, ``enas`` or ``nni``."""
    merge: str = "all"
    """Blocks that NNI's space concatenates: ``all``, or ``loose_end`` (those that no block
    reads)."""


@tool(Args)
def main(run: Run[Args]) -> None:
    from backbone.cells.drawing import draw_genotype
    from backbone.cells.notations import format_genotype, parse_genotype
    from backbone.cells.published import PUBLISHED
    from backbone.io.files import write_text

    args = run.args
    genotype = PUBLISHED.get(args.cells)
    if genotype is None:
        text = Path(args.cells).read_text(encoding="utf-8")
        try:
            genotype = parse_genotype(text, merge=args.merge)
        except ValueError as error:
            raise ValueError(f"{args.cells}: {error}") from None
    converted = format_genotype(genotype, args.to, merge=args.merge)
    path = run.out / FILE_NAMES[args.to]
    write_text(path, converted)
    drawings = [run.out / f"cells.{suffix}" for suffix in ("png", "svg")]
    for drawing in drawings:
        draw_genotype(genotype, drawing, title=Path(args.cells).name)
    run.finish()
    run.report(cells=path, drawings=drawings, digest=genotype.digest)
    print_line("cells", path)
    print_line("drawings", ", ".join(map(str, drawings)))


if __name__ == "__main__":
    main()
