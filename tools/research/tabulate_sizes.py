"""Tabulate parameters and multiply-adds of nasdet's networks beside the published values.

Prints the table and writes it between the marks of docs/backbones.md.

python tools/research/tabulate_sizes.py
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # modules that all tools share

from _cli import Run, tool

TABLE = re.compile(r"(?<=<!-- sizes -->\n).*(?=<!-- /sizes -->)", re.DOTALL)


@dataclass(kw_only=True, slots=True)
class Args:
    """Settings of ``tabulate_sizes``."""

    out: str
    """A Markdown file with the lines ``<!-- sizes -->`` and ``<!-- /sizes -->``; the text between
    them is replaced."""


@tool(Args)
def main(run: Run[Args]) -> None:
    from backbone.io.files import write_text
    from backbone.profile.published_sizes import tabulate_sizes

    path = run.out
    text = path.read_text(encoding="utf-8")
    if TABLE.search(text) is None:
        raise ValueError(f"{path} has no lines <!-- sizes --> and <!-- /sizes -->")
    table = tabulate_sizes()
    write_text(path, TABLE.sub(lambda _: f"\n{table}\n\n", text))
    print(f"{table}\n\nwritten: {path}")


if __name__ == "__main__":
    main()
