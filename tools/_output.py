"""Output of the tools: one line per stage, errors, warnings, and the JSON object of ``--json``.

Results are printed on standard output; errors, warnings and progress bars on standard error. Lines
have colors on a terminal only, and none with ``NO_COLOR`` (https://no-color.org).
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any, TextIO

from tqdm import tqdm

LABEL_STYLE = "bold"
PATH_STYLE = "cyan"
NOTE_STYLE = "green"
LEVEL_STYLES = {"error": "bold red", "critical": "bold red", "warning": "bold yellow"}
"""Level of a message -> style of its label."""


def print_stage(stage: str, outcome: object, seconds: float, *, skipped: bool) -> None:
    """Print the line of a finished stage with its duration.

    Args:
        stage: name of the stage.
        outcome: its figure.
        seconds: duration of the stage.
        skipped: whether its files were already there.
    """
    print_line(stage, outcome, note="already there" if skipped else f"{seconds:.0f} s")


def print_line(label: str, outcome: object, *, note: str = "") -> None:
    """Print ``label: outcome  (note)`` on standard output.

    Args:
        label: name of the outcome.
        outcome: a figure, a sentence or a path.
        note: addition such as a duration.
    """
    style = PATH_STYLE if isinstance(outcome, PurePath) else ""
    parts = [(f"{label}:", LABEL_STYLE), (" ", ""), (str(outcome), style)]
    if note:
        parts += [("  ", ""), (f"({note})", NOTE_STYLE)]
    _write(parts, sys.stdout)


def print_error(sentence: str) -> None:
    """Print ``error: sentence`` on standard error, below the progress bars."""
    for bar in list(getattr(tqdm, "_instances", [])):
        bar.close()  # or the message follows it on its line, and it is drawn again below
    _print_message("error", " ".join(sentence.split()))


def log_to_stderr() -> None:
    """Log the warnings of all libraries to standard error, one line each."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    if not any(isinstance(handler, _LineHandler) for handler in root.handlers):
        root.addHandler(_LineHandler())


class _LineHandler(logging.Handler):
    """Handler that prints a record's level and message above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            with tqdm.external_write_mode(file=sys.stderr, nolock=True):
                _print_message(record.levelname.lower(), self.format(record))
        except Exception:  # as the handlers of the standard library do
            self.handleError(record)


def _print_message(level: str, text: str) -> None:
    _write([(f"{level}:", LEVEL_STYLES.get(level, LABEL_STYLE)), (f" {text}", "")], sys.stderr)


def _write(parts: Sequence[tuple[str, str]], stream: TextIO) -> None:
    """Write a line of (text, style) as it is: without markup, wrapping or truncation."""
    if not has_colors(stream):
        print("".join(text for text, _ in parts), file=stream, flush=True)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, markup=False, highlight=False, emoji=False)
    console.print(Text.assemble(*parts), soft_wrap=True)


def has_colors(stream: TextIO) -> bool:
    """Return whether a stream is a terminal on which colors are wanted."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


@contextmanager
def stdout_as_stderr() -> Iterator[None]:
    """Redirect standard output to standard error, also that of libraries and child processes."""
    sys.stdout.flush()
    original = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(original, 1)
        os.close(original)


def print_json(figures: Mapping[str, Any]) -> None:
    """Print figures as one line of JSON on standard output; see ``to_json``."""
    print(json.dumps(to_json(figures), allow_nan=False), flush=True)


def to_json(value: Any) -> Any:
    """Return a value as JSON types; None stands for NaN and infinity.

    Args:
        value: a number, text, path or None, or a mapping, sequence or dataclass of these.

    Raises:
        TypeError: if it is anything else.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): to_json(member) for name, member in value.items()}
    if isinstance(value, Sequence):
        return [to_json(member) for member in value]
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r}")
