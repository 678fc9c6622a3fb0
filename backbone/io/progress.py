"""Progress bars on standard error, which are shown on a terminal and in a notebook only.

A bar that is redirected to a file is a long line of carriage returns.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

ItemT = TypeVar("ItemT")


def shows_bars() -> bool:
    """Return whether standard error can show a progress bar."""
    # A notebook's stream is no terminal, but can show bars.
    is_notebook = type(sys.stderr).__module__.startswith("ipykernel.")
    return is_notebook or (sys.stderr is not None and sys.stderr.isatty())


def progress_bar(
    items: Iterable[ItemT] | None = None, *, shown: bool = True, **options: Any
) -> tqdm[ItemT]:
    """Return a ``tqdm`` bar, which is hidden where ``shows_bars`` is false.

    Args:
        items: what to iterate over; None for a bar that is updated by hand.
        shown: false hides the bar on a terminal as well.
        options: those of ``tqdm``.
    """
    return tqdm(items, disable=not (shown and shows_bars()), **options)
