"""Candidates of shell completion: verbs, flags, settings, options and files.

``_completion.bash`` and ``_completion.zsh`` run it at each press of the Tab key. Verbs and flags
take milliseconds; settings and options come from the composed config, which takes as long as the
start of a tool.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from _verbs import BUILT_IN, FOLDER, GROUPS, find_tool, tool_files

SHELLS = ("bash", "zsh")
USAGE = """\
Print the completion script for a shell: bash or zsh.

eval "$(nasdet completion bash)"      or zsh, in a shell whose environment is active

In ~/.bashrc or ~/.zshrc the line needs the full path of the command."""
COMMAND_FLAGS = ("--help", "--version")
TOOL_FLAGS = ("--help", "--multirun", "--json")
DRY_RUN = "--dry-run"
SWEEP_FLAGS = ("--multirun", "-m")


class Completion(NamedTuple):
    """Candidates for the current word."""

    candidates: Sequence[str] = ()
    """Texts that may follow ``kept``; that of a finished word ends in a space."""
    kept: str = ""
    """Beginning of the current word that all candidates leave as it is, such as ``recipe=``."""
    files: bool = False
    """File names may follow ``kept``; there are no candidates."""


def script(shell: str) -> str:
    """Return the script that enables completion in a shell.

    Raises:
        ValueError: if there is none for that shell.
    """
    if shell not in SHELLS:
        raise ValueError(f"there is no completion for {shell!r}; choose from {list(SHELLS)}")
    return (FOLDER / f"_completion.{shell}").read_text(encoding="utf-8").rstrip()


def main(arguments: Sequence[str]) -> None:
    """Print the candidates for a shell, one a line; print nothing if anything fails.

    Args:
        arguments: ``bash``, its COMP_WORDBREAKS and the line up to the cursor, or ``zsh`` and the
            words of the line up to the cursor; the first word is the command's name.
    """
    reply: Sequence[str] = ()
    # A traceback would end up in the middle of the line that is being typed.
    with redirect_stdout(sys.stderr), suppress(Exception):
        shell, *rest = arguments
        reply = bash_reply(*rest) if shell == "bash" else zsh_reply(rest)
    print("\n".join(reply))


def bash_reply(word_breaks: str, line: str) -> list[str]:
    """Return ``words`` or ``files`` and the texts that replace the current word's last part.

    Readline replaces the part after the last of ``word_breaks``, or, within quotes, all.
    """
    (_, *words), current, quote = split_line(line)
    completion = complete(words, current)
    separators = [c for c in word_breaks if c not in " \t\n\"'"]
    start = 0 if quote else max(map(current.rfind, separators), default=-1) + 1
    if completion.files:
        names = files(current[len(completion.kept) :])
        # Readline adds the slash of a folder, unless the name is one of a list.
        in_list = completion.kept[start:] != ""
        kind = "words" if in_list else "files"
        candidates = names if in_list else [name.rstrip("/") for name in names]
    else:
        kind, candidates = "words", list(completion.candidates)
    texts = [(completion.kept + candidate)[start:] for candidate in candidates]
    if quote and kind == "words":
        texts = [text.rstrip() for text in texts]
        if len(texts) == 1 and (completion.files or texts[0].endswith(("=", "."))):
            texts.append(f"{texts[0]} ")  # Readline would end the quote after the only one
    return [kind, *texts]


def zsh_reply(words: Sequence[str]) -> list[str]:
    """Return ``words`` or ``files``, the length of what is kept, and the candidates."""
    _, *before, current = words
    completion = complete(before, current)
    kind = "files" if completion.files else "words"
    return [kind, str(len(completion.kept)), *completion.candidates]


def split_line(line: str) -> tuple[list[str], str, str]:
    """Return the words before the cursor, the current word, and the quote that is open in it."""
    words: list[str] = []
    word, quote = "", ""
    for match in re.finditer(r"\\(.)|(['\"])|(\s+)|(.)", line, flags=re.DOTALL):
        escaped, mark, space, plain = match.groups()
        if quote == "'" and mark != "'":
            word += match[0]
        elif mark and mark == quote:
            quote = ""
        elif mark and not quote:
            quote = mark
        elif space and not quote:
            words, word = [*words, word], ""
        else:
            word += escaped or mark or space or plain
    return words, word, quote


def complete(words: Sequence[str], current: str) -> Completion:
    """Return the candidates for the current word of a command line.

    Args:
        words: those between the command's name and the current word.
        current: the current word up to the cursor, without quotes.
    """
    first = words[0] if words else ""
    if not words:
        return _finished([*tool_files(), *GROUPS, *BUILT_IN, *COMMAND_FLAGS], current)
    if first in BUILT_IN:
        return _finished(SHELLS if len(words) == 1 else (), current)
    if first not in GROUPS:
        return complete_setting(find_tool(first), words[1:], current)
    if len(words) == 1:
        return _finished([*tool_files(first), "--help"], current)
    return complete_setting(find_tool(words[1], first), words[2:], current)


def complete_setting(path: Path, words: Sequence[str], current: str) -> Completion:
    """Return the candidates for a flag, a setting's name or its value.

    Args:
        path: the tool's file.
        words: those between the verb and the current word.
        current: the current word.
    """
    if current.startswith("-"):
        # The source answers this without loading the tool.
        has_dry_run = "dry_run: bool" in path.read_text(encoding="utf-8")
        return _finished([*TOOL_FLAGS, *([DRY_RUN] if has_dry_run else [])], current)
    sys.path.insert(0, str(path.parent))
    tool = import_module(path.stem).main
    from _options import chosen_options, fitting_options

    tool.register()
    with tool.config_dir():
        config = _composed(tool.compose, [word for word in words if "=" in word])
        name, equals, value = current.partition("=")
        groups = chosen_options(config)
        if not equals:
            given = {word.partition("=")[0] for word in words}
            names = [n for n in (*groups, *_setting_names(config)) if n not in given]
            matches = next_level(names, groups, current)
            return Completion(matches) if matches or not tool.unnamed else Completion(files=True)
        options = fitting_options(name, config) if name in groups else _values(config, name)
    sweep = any(flag in words for flag in SWEEP_FLAGS)
    if options is None:
        start = re.match(r".*[\[,\s'\"]", value) if value.startswith("[") or sweep else None
        return Completion(kept=f"{name}={start[0] if start else ''}", files=True)
    before, comma, last = value.rpartition(",") if sweep else ("", "", value)
    return Completion(
        [f"{option} " for option in options if option.startswith(last)],
        kept=f"{name}={before}{comma}",
    )


def next_level(names: Iterable[str], groups: Mapping[str, Any], current: str) -> list[str]:
    """Return the settings and groups that begin with the current word, each to its next dot.

    >>> next_level(["out", "recipe", "recipe.seed", "recipe.optimizer"], {"recipe": "smoke"}, "re")
    ['recipe=', 'recipe.']
    """
    matches: dict[str, None] = {}
    for name in names:
        if not name.startswith(current):
            continue
        end = -1 if name in groups else name.find(".", len(current))
        matches[f"{name}=" if end < 0 else name[: end + 1]] = None
    return list(matches)


def files(text: str) -> list[str]:
    """Return the names of files and folders that begin with a text, folders with a slash."""
    folder, name = os.path.split(text)
    place = Path(folder or ".").expanduser()
    return [
        os.path.join(folder, entry.name) + ("/" if entry.is_dir() else "")  # noqa: PTH118
        for entry in sorted(os.scandir(place), key=lambda entry: entry.name)
        if entry.name.startswith(name) and (name or not entry.name.startswith("."))
    ]


def _finished(words: Iterable[str], current: str) -> Completion:
    shown = (word for word in words if current or not word.startswith("-"))
    return Completion([f"{word} " for word in shown if word.startswith(current)])


def _composed(compose: Callable[[Sequence[str]], Any], overrides: Sequence[str]) -> Any:
    """Return the config with those settings of the line that the tool takes."""
    try:
        return compose(overrides)
    except ValueError:
        taken: list[str] = []
        for override in overrides:
            with suppress(ValueError):
                compose([*taken, override])
                taken.append(override)
        return compose(taken)


def _setting_names(config: Any) -> Iterator[str]:
    from _help import setting_names

    return setting_names(config)


def _values(config: Any, name: str) -> Sequence[str] | None:
    """Return the values that a setting may have; None if they are not limited."""
    from omegaconf import BooleanNode, EnumNode

    parent, _, key = name.rpartition(".")
    for part in filter(None, parent.split(".")):
        config = config[part]
    node = config._get_node(key)
    if isinstance(node, BooleanNode):
        return ("true", "false")
    if isinstance(node, EnumNode):
        kind: type[Enum] = node.enum_type
        return list(kind.__members__)
    return None
