"""JSON from anybody, read as columns and checked.

Every check is made on a whole column at once, and only a failed one looks for the record at fault,
so that a million records take a second and a mistake is still named exactly.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
"""(N,) int64."""
Numbers = NDArray[np.float64]
"""(N,) or (N, 4) float64."""
_HALVES = re.compile("[\ud800-\udfff]")
REAL_TYPES = frozenset({int, float})
"""What ``json`` makes of a number; ``bool`` is none."""


def read_json(path: str | Path) -> tuple[Any, bytes]:
    """Read a JSON file.

    Returns:
        What the file holds, and its bytes.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read or is not JSON.
    """
    contents = read_bytes(path)
    return parse_json(path, contents), contents


def read_bytes(path: str | Path) -> bytes:
    """Return what a file holds.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"file {path} does not exist") from error
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error


def parse_json(path: str | Path, contents: bytes) -> Any:
    """Return what JSON says; raise a ValueError that names ``path`` if it is none."""
    try:
        return json.loads(contents)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


class Records:
    """A list of JSON objects of one kind.

    Args:
        source: the file that they come from, for messages.
        kind: what one of them is, for messages: ``annotation``, ``image``, ...
        rows: the list, as read.

    Raises:
        ValueError: if ``rows`` is not a list of objects.
    """

    def __init__(self, source: str | Path, kind: str, rows: object) -> None:
        self.source, self.kind = source, kind
        self._plural = kind[:-1] + "ies" if kind.endswith("y") else kind + "s"
        if not isinstance(rows, list):
            raise ValueError(
                f"{source}: the {self._plural} must be a JSON list, not {_shown(rows)}"
            )
        self.rows: list[dict[str, Any]] = rows
        if not set(map(type, rows)) <= {dict}:
            position = next(i for i, row in enumerate(rows) if not isinstance(row, dict))
            raise ValueError(
                f"{source}: {kind} number {position + 1} must be a JSON object, "
                f"not {_shown(rows[position])}"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def values(self, key: str) -> list[Any]:
        """Return every record's ``key``.

        Raises:
            ValueError: if a record lacks it; likewise in the methods below.
        """
        try:
            return [row[key] for row in self.rows]
        except KeyError:
            position = next(i for i, row in enumerate(self.rows) if key not in row)
            self.refuse(position, f"lacks {key!r}")

    def integers(self, key: str) -> Integers:
        """Return every record's ``key`` as int64; 3.0 counts as 3."""
        values = self.values(key)
        integers = _as_integers(values)
        if integers is None:
            self._refuse_first(values, _is_integer, f"has {key}", "a whole number")
        return integers

    def numbers(self, key: str, *, otherwise: Numbers | None = None) -> Numbers:
        """Return every record's ``key`` as float64; all are finite.

        Args:
            key: holds a number.
            otherwise: (N,) stands for those that lack it; without it every record must have it.
        """
        if otherwise is None:
            values = self.values(key)
        else:
            pairs = zip(self.rows, otherwise.tolist(), strict=True)
            values = [row.get(key, other) for row, other in pairs]
        numbers = _as_finite(values)
        if numbers is None:
            self._refuse_first(values, _is_finite, f"has {key}", "a finite number")
        return numbers

    def texts(self, key: str) -> list[str]:
        """Return every record's ``key``; none is empty, and all can be written as UTF-8."""
        values = self.values(key)
        if not all(map(_is_text, values)):
            self._refuse_first(values, _is_text, f"has {key}", "a text that is not empty")
        return values

    def distinct_texts(self, key: str) -> list[str]:
        """Return every record's ``key``; none is empty, no two are equal."""
        values = self.texts(key)
        if len(set(values)) < len(values):
            value, count = Counter(values).most_common(1)[0]
            raise ValueError(
                f"{self.source}: {count} {self._plural} are called {value!r}; "
                f"every {self.kind} needs its own {key}"
            )
        return values

    def boxes(self, key: str) -> Numbers:
        """Return every record's ``key``, four finite numbers, as (N, 4) float64."""
        values = self.values(key)
        lists = set(map(type, values)) <= {list} and set(map(len, values)) <= {4}
        numbers = _as_finite(list(chain.from_iterable(values))) if lists else None
        if numbers is None:
            self._refuse_first(values, _is_box, f"has {key}", "four finite numbers")
        return numbers.reshape(-1, 4)

    def flags(self, key: str) -> NDArray[np.bool_]:
        """Return every record's ``key``, 0 or 1, as bool; a record without it counts as 0."""
        values = [row.get(key, 0) for row in self.rows]
        # A list among the values cannot be hashed, so that a set of them will not do.
        if not all(value in (0, 1) for value in values):
            self._refuse_first(values, lambda value: value in (0, 1), f"has {key}", "0 or 1")
        return np.array(values, dtype=np.bool_)

    def unique(self, key: str) -> Integers:
        """Return every record's ``key`` as int64; no two are equal."""
        values = self.integers(key)
        distinct, counts = np.unique(values, return_counts=True)
        if distinct.size < values.size:
            raise ValueError(
                f"{self.source}: {counts.max()} {self._plural} have {key} "
                f"{distinct[counts.argmax()]}; every {self.kind} needs its own"
            )
        return values

    def places(self, key: str, known: Integers) -> Integers:
        """Return where every record's ``key`` stands in ``known``.

        Args:
            key: holds an id.
            known: (M,) ids in ascending order.
        """
        values = self.integers(key)
        places = np.searchsorted(known, values)
        missing = np.ones(values.shape, dtype=np.bool_)
        inside = places < known.size
        missing[inside] = known[places[inside]] != values[inside]
        if missing.any():
            position = int(missing.argmax())
            thing = key.removesuffix("_id")
            self.refuse(position, f"has {key} {values[position]}, but there is no such {thing}")
        return places.astype(np.int64)

    def refuse(self, position: int, fault: str) -> NoReturn:
        """Raise a ValueError that names the file, the record and its fault."""
        row = self.rows[position]
        number = row.get("id")
        name = f"{number}" if _is_integer(number) else f"number {position + 1}"
        raise ValueError(f"{self.source}: {self.kind} {name} {fault}")

    def _refuse_first(
        self, values: Sequence[Any], right: Callable[[Any], bool], has: str, expected: str
    ) -> NoReturn:
        position = next(i for i, value in enumerate(values) if not right(value))
        self.refuse(position, f"{has} {_shown(values[position])}; it must be {expected}")


def _shown(value: object) -> str:
    """Return a value in few characters."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


def _as_finite(values: list[Any]) -> Numbers | None:
    """Return numbers as float64, or None if they are not all finite numbers."""
    # The types say it at once; only for others, numpy's for one, is each value looked at.
    if not set(map(type, values)) <= REAL_TYPES and not all(map(_is_finite, values)):
        return None
    try:
        numbers = np.array(values, dtype=np.float64)
    except OverflowError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def _as_integers(values: list[Any]) -> Integers | None:
    """Return numbers as int64, or None if they are not all whole numbers of that range."""
    types = set(map(type, values))
    if not types <= REAL_TYPES or (float in types and not all(map(_is_integer, values))):
        return None
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError:
        return None


def _is_finite(value: object) -> bool:
    try:
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(float(value))
        )
    except OverflowError:
        return False


def _is_integer(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and _is_finite(value)
        and value == int(value)
        and -(2**63) <= value < 2**63
    )


def _is_text(value: object) -> bool:
    # JSON can spell halves of characters, which nothing can write or draw.
    return isinstance(value, str) and value != "" and not _HALVES.search(value)


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_finite, value))
