"""One static HTML page that opens without a server: tables and pictures, all inside the file."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backbone.io.files import write_text

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; height: auto; background: white; }
figure { margin: 1rem 0; overflow-x: auto; } figcaption { color: #888; }
div.table { overflow-x: auto; }
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A table under a heading."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG under a heading."""

    title: str
    path: Path
    note: str = ""


def write_page(path: Path, *, title: str, lead: str, parts: Sequence[Table | Picture]) -> None:
    """Write the page, whole or not at all; pictures are copied into it.

    Raises:
        FileNotFoundError: if a picture is missing.
    """
    body = "\n".join(_table(p) if isinstance(p, Table) else _picture(p) for p in parts)
    write_text(
        path,
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n"
        f"<h1>{html.escape(title)}</h1>\n<p>{html.escape(lead)}</p>\n{body}\n</html>\n",
    )


def _table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    rows = "\n".join(row(cells, "td") for cells in table.rows)
    return (
        f'<h2>{html.escape(table.title)}</h2>\n<div class="table"><table>\n'
        f"{row(table.head, 'th')}\n{rows}\n</table></div>\n<p>{html.escape(table.note)}</p>"
    )


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.path.read_bytes()).decode()
    title = html.escape(picture.title)
    return (
        f'<h2>{title}</h2>\n<figure><img alt="{title}" src="data:image/png;base64,{data}">'
        f"<figcaption>{html.escape(picture.note)}</figcaption></figure>"
    )
