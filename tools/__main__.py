"""The command ``nasdet``, which starts a tool: ``nasdet train-detector`` is train_detector.py.

Runs as ``nasdet VERB`` and ``python -m nasdet VERB`` when installed, as ``python tools VERB`` in
a checkout. Imports the standard library only.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).parent))  # `python -m nasdet` does not

from _verbs import GROUPS, find_tool, overview

HELP_FLAGS = ("--help", "-h", "help")


def main(arguments: Sequence[str]) -> None:
    """Run the command with these arguments."""
    word, *rest = arguments or HELP_FLAGS
    if word in HELP_FLAGS:
        print(overview())
    elif word == "--version":
        print(f"nasdet {version()}")
    elif word == "completion":
        import _completion

        has_shell = rest and rest[0] not in HELP_FLAGS
        print(_completion.script(rest[0]) if has_shell else _completion.USAGE)
    elif word == "_complete":
        import _completion

        _completion.main(rest)
    elif word not in GROUPS:
        start(find_tool(word), rest)
    elif not rest or rest[0] in HELP_FLAGS:
        print(overview(word))
    else:
        start(find_tool(rest[0], word), rest[1:])


def start(tool: Path, arguments: Sequence[str]) -> NoReturn:
    """Replace the process by a new interpreter that runs a tool.

    Signals and the exit status are the tool's own.
    """
    os.execv(sys.executable, [sys.executable, str(tool), *arguments])


def version() -> str:
    """Return the installed version.

    Raises:
        ValueError: if nasdet is not installed.
    """
    from importlib import metadata

    try:
        return metadata.version("nasdet")
    except metadata.PackageNotFoundError:
        raise ValueError("nasdet is not installed; pip install -e . installs it") from None


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `nasdet | head` ends without a traceback
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
