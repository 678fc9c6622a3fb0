"""Static HTML reports: one self-contained page of tables and figures from one Jinja template."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from backbone.io.files import write_text

TEMPLATE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; height: auto; background: white; }
figure { margin: 1rem 0; overflow-x: auto; } figcaption { color: #888; }
div.table { overflow-x: auto; }
</style>
<h1>{{ title }}</h1>
<p>{{ lead }}</p>
{%- for part in parts %}
<h2>{{ part.title }}</h2>
{%- if part.kind == "table" %}
<div class="table"><table>
<tr>{% for cell in part.head %}<th>{{ cell }}</th>{% endfor %}</tr>
{%- for row in part.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{%- endfor %}
</table></div>
<p>{{ part.note }}</p>
{%- else %}
<figure><img alt="{{ part.title }}" src="data:image/png;base64,{{ part.base64() }}">
{#- #}<figcaption>{{ part.note }}</figcaption></figure>
{%- endif %}
{%- endfor %}
</html>
"""
"""The base of every report. Values are escaped; pictures are embedded."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table under a heading."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    """Sentence below the table."""

    @property
    def kind(self) -> str:
        """Name of the part in the template."""
        return "table"


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG file under a heading."""

    title: str
    path: Path
    note: str = ""
    """Caption."""

    @property
    def kind(self) -> str:
        """Name of the part in the template."""
        return "picture"

    def base64(self) -> str:
        """Return the file's contents, base64-encoded.

        Raises:
            FileNotFoundError: if the file is missing.
        """
        return base64.b64encode(self.path.read_bytes()).decode()


def render_page(*, title: str, lead: str, parts: Sequence[Table | Picture]) -> str:
    """Return a self-contained page.

    Args:
        title: page title and top heading.
        lead: introductory paragraph.
        parts: tables and pictures, in this order.

    Raises:
        FileNotFoundError: if a picture is missing.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(TEMPLATE).render(title=title, lead=lead, parts=parts)


def write_page(path: Path, *, title: str, lead: str, parts: Sequence[Table | Picture]) -> None:
    """Write a page atomically; see ``render_page``.

    Raises:
        FileNotFoundError: if a picture is missing.
    """
    write_text(path, render_page(title=title, lead=lead, parts=parts))
