"""The verbs of the command ``nasdet``: the files of the tools by name.

Imports the standard library only, and no tool: the command starts in milliseconds.
"""

from __future__ import annotations

import ast
import difflib
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

FOLDER = Path(__file__).parent
GROUPS: Mapping[str, tuple[str, str]] = {
    "research": ("research", "Measure and compare the searches themselves."),
    "benchmark": ("benchmarks", "Measure speed, most of it against other implementations."),
}
"""First word of two-word verbs -> folder below ``tools/`` and description."""
BUILT_IN = {"completion": "Print the completion script for a shell: bash or zsh."}
"""Verbs without a tool -> description."""
FOREIGN_VERBS = {"val": "evaluate-detector", "eval": "evaluate-detector", "detect": "predict"}
"""Verb of other programs -> the closest one here."""
LINE_WIDTH = 100


def tool_files(group: str = "") -> dict[str, Path]:
    """Return the verbs of a group, the tools' own by default, and their files.

    The former paths of tools are no verbs.
    """
    folder = FOLDER / GROUPS[group][0] if group else FOLDER
    return {
        path.stem.removeprefix(f"{group}_").replace("_", "-"): path
        for path in sorted(folder.glob("[a-z]*.py"))
        if "@tool(" in path.read_text(encoding="utf-8")
    }


def find_tool(verb: str, group: str = "") -> Path:
    """Return the file of a verb, written with hyphens or underscores.

    Raises:
        ValueError: if there is none; the message has the closest verb.
    """
    path = tool_files(group).get(verb.replace("_", "-"))
    if path is None:
        command = f"nasdet {group}" if group else "nasdet"
        near = _closest(verb.replace("_", "-"), group)
        hint = f"did you mean {near!r}?" if near else f"{command} --help lists the verbs"
        raise ValueError(f"{command} has no verb {verb!r}; {hint}")
    return path


def overview(group: str = "") -> str:
    """Return the help of the command or of one group of verbs."""
    command = f"nasdet {group}" if group else "nasdet"
    title = GROUPS[group][1] if group else "Detect objects with searched backbones."
    verbs = {verb: _first_line(path) for verb, path in tool_files(group).items()}
    if not group:
        verbs |= {name: description for name, (_, description) in GROUPS.items()} | BUILT_IN
    listed = "\n".join(_verb_lines(verbs))
    others = (
        ""
        if group
        else f"{command} VERB --help      describe a verb, its choices and all settings\n"
        f"{command} --version        print the version\n"
    )
    return f"""{title}

{command} VERB name=value ...
{others}
Verbs:
{listed}"""


def _verb_lines(verbs: Mapping[str, str]) -> Iterator[str]:
    width = max(map(len, verbs)) + 4
    for verb, description in verbs.items():
        yield textwrap.fill(
            description,
            LINE_WIDTH,
            initial_indent=f"  {verb}".ljust(width),
            subsequent_indent=" " * width,
        )


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def _closest(verb: str, group: str) -> str | None:
    """Return the closest verb as it is typed after ``nasdet GROUP``; None if none is close."""
    offered = [*tool_files(group)]
    if not group:
        offered += [*GROUPS, *BUILT_IN]
        for name in GROUPS:  # a verb of a group may be typed without it
            offered += [f"{name} {other}" for other in tool_files(name)]
    if not group and verb in FOREIGN_VERBS:
        return FOREIGN_VERBS[verb]
    forms = {word: command for command in offered for word in (command, command.split()[-1])}
    longer = [word for word in forms if word.startswith(verb)]
    near = longer or difflib.get_close_matches(verb, forms, n=1)
    return forms[near[0]] if near else None
