"""Validation of untrusted JSON records: typed by msgspec, then checked column by column.

A record is a ``msgspec.Struct`` whose fields have the types below. msgspec checks types while it
decodes; ids, references and finiteness are checked on whole columns with NumPy, so that a million
records take seconds. A failed check names the file, the record and the value.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, NoReturn, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, Meta
from numpy.typing import NDArray

Integers = NDArray[np.int64]
"""(N,) int64."""
Numbers = NDArray[np.float64]
"""(N,) or (N, 4) float64."""
Flags = NDArray[np.bool_]
"""(N,) bool."""

T = TypeVar("T")
Row = TypeVar("Row", bound=msgspec.Struct)
Whole = int | float
"""Field type of ids and sizes; some programs write 3 as 3.0. ``Records.integers`` checks it."""
Box = tuple[float, float, float, float]
Text = Annotated[str, Meta(pattern=r"\A[^\ud800-\udfff]+\Z")]
"""Field type of names: not empty, and without the lone surrogates that JSON can spell but nothing
can write or draw."""
Flag = bool | int | float
"""Field type of 0 or 1; ``Records.flags`` checks the value."""
EXPECTED = {
    "bbox": "four finite numbers",
    "score": "a finite number",
    "area": "a finite number",
    "file_name": "a text that is not empty",
    "name": "a text that is not empty",
    "category": "a text that is not empty",
    "iscrowd": "0 or 1",
}
"""Field name -> what its value must be, for messages; all others must be whole numbers."""
_PATH = re.compile(r"\$(?:\.(\w+))?\[(\d+)\](?:\.(\w+))?")
_MISSING = re.compile(r"missing required field `(\w+)`")


def read_bytes(path: str | Path) -> bytes:
    """Return the contents of a file.

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
    """Decode JSON; raise a ValueError that names ``path`` if it is malformed."""
    try:
        return json.loads(contents)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def read_json(path: str | Path) -> Any:
    """Return the decoded JSON of a file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read or is not JSON.
    """
    return parse_json(path, read_bytes(path))


def convert(data: object, kind: type[T], *, source: str | Path, name: str = "") -> T:
    """Convert decoded JSON to a type made of lists of Structs.

    Args:
        data: the JSON; numbers may be NumPy's.
        kind: a list of Structs, or a Struct whose fields are lists of Structs.
        source: file name for messages.
        name: name of one record for messages, such as ``detection``, if ``kind`` is a list; a
            Struct's lists are named by its fields.

    Raises:
        ValueError: if a value has another type; the message names the record and shows the value.
    """
    try:
        return msgspec.convert(data, kind)
    except (msgspec.ValidationError, RecursionError):
        data = _without_numpy(data)
    try:
        return msgspec.convert(data, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ValueError(f"{source}: {_explain(str(error), data, name)}") from error


def _without_numpy(data: object) -> Any:
    """Return data with Python numbers instead of NumPy's, which msgspec does not take."""
    try:
        return json.loads(json.dumps(data, default=lambda value: value.item()))
    except (AttributeError, TypeError, ValueError, RecursionError):
        return data


def _explain(error: str, data: Any, name: str) -> str:
    """Translate a msgspec error to a sentence with the record and its value."""
    match = _PATH.search(error)
    if match is None:
        field = next((key for key in data if f"$.{key}" in error), "") if not name else ""
        rows = data[field] if field else data
        return f"the {field or _plural(name)} must be a JSON list, not {shown(rows)}"
    table, index, field = match[1], int(match[2]), match[3]
    row = (data[table] if table else data)[index]
    name = name or _singular(table)
    if not isinstance(row, Mapping):
        return f"{name} number {index + 1} must be a JSON object, not {shown(row)}"
    label = _label(name, index, row.get("id"))
    if missing := _MISSING.search(error):
        return f"{label} lacks {missing[1]!r}"
    return f"{label} has {field} {shown(row[field])}; it must be {expected(field)}"


class Records(Generic[Row]):
    """Records of one kind, with checks of whole columns.

    Args:
        source: the file that they come from, for messages.
        name: name of one record, for messages: ``annotation``, ``image``, ...
        rows: the records.
    """

    def __init__(self, source: str | Path, name: str, rows: Sequence[Row]) -> None:
        self.source, self.name, self.rows = source, name, rows

    def __len__(self) -> int:
        return len(self.rows)

    def values(self, key: str, kind: Any = None, *, otherwise: Numbers | None = None) -> list[Any]:
        """Return one field of all records.

        Args:
            key: the field.
            kind: type to check here, for a field that is decoded as ``Any``.
            otherwise: (N,) values for records that lack the field; without it none may lack it.

        Raises:
            ValueError: if a record lacks the field or has another type of value; likewise below.
        """
        values = [getattr(row, key) for row in self.rows]
        if otherwise is not None:
            pairs = zip(values, otherwise.tolist(), strict=True)
            values = [other if value is UNSET else value for value, other in pairs]
        if kind is None:
            return values
        try:
            return msgspec.convert(values, list[kind])
        except (msgspec.ValidationError, RecursionError) as error:
            match = _PATH.search(str(error))
            assert match is not None
            index = int(match[2])
            if values[index] is UNSET:
                self.refuse(index, f"lacks {key!r}")
            self._refuse_value(index, key, values[index])

    def integers(self, key: str, kind: Any = None) -> Integers:
        """Return one field of all records as int64; 3.0 counts as 3."""
        values = self.values(key, kind)
        with np.errstate(invalid="ignore"):
            try:
                integers = np.array(values, dtype=np.int64)
            except (OverflowError, ValueError):  # infinite, NaN or beyond int64
                integers = None
        if integers is None or integers.tolist() != values:
            index = next(i for i, value in enumerate(values) if not _is_int64(value))
            self._refuse_value(index, key, values[index])
        return integers

    def numbers(self, key: str, kind: Any = None, *, otherwise: Numbers | None = None) -> Numbers:
        """Return one field of all records, a number or a box, as float64; all are finite."""
        values = self.values(key, kind, otherwise=otherwise)
        numbers = np.array(values, dtype=np.float64)
        finite = np.isfinite(numbers)
        if not finite.all():
            index = int(np.argwhere(~finite)[0, 0])
            self._refuse_value(index, key, values[index])
        return numbers

    def boxes(self, key: str) -> Numbers:
        """Return one field of all records, four finite numbers, as (N, 4) float64."""
        return self.numbers(key).reshape(-1, 4)

    def flags(self, key: str) -> Flags:
        """Return one field of all records, 0 or 1, as bool."""
        values = self.values(key)
        flags = np.array(values, dtype=np.bool_)
        if flags.tolist() != values:
            index = next(i for i, value in enumerate(values) if value not in (0, 1))
            self._refuse_value(index, key, values[index])
        return flags

    def unique(self, key: str, kind: Any = None) -> Integers:
        """Return one field of all records as int64; no two are equal."""
        values = self.integers(key, kind)
        distinct, counts = np.unique(values, return_counts=True)
        if distinct.size < values.size:
            raise ValueError(
                f"{self.source}: {counts.max()} {_plural(self.name)} have {key} "
                f"{distinct[counts.argmax()]}; every {self.name} needs its own"
            )
        return values

    def distinct_texts(self, key: str, kind: Any = None) -> list[str]:
        """Return one field of all records; no two are equal."""
        values: list[str] = self.values(key, kind)
        if len(set(values)) < len(values):
            value, count = Counter(values).most_common(1)[0]
            raise ValueError(
                f"{self.source}: {count} {_plural(self.name)} are called {value!r}; "
                f"every {self.name} needs its own {key}"
            )
        return values

    def indices(self, key: str, known: Integers) -> Integers:
        """Return the index in ``known`` of one field of all records.

        Args:
            key: the field; it holds an id.
            known: (M,) ids in ascending order.
        """
        values = self.integers(key)
        indices = np.searchsorted(known, values)
        missing = np.ones(values.shape, dtype=np.bool_)
        inside = indices < known.size
        missing[inside] = known[indices[inside]] != values[inside]
        if missing.any():
            index = int(missing.argmax())
            thing = key.removesuffix("_id")
            self.refuse(index, f"has {key} {values[index]}, but there is no such {thing}")
        return indices.astype(np.int64)

    def refuse(self, index: int, fault: str) -> NoReturn:
        """Raise a ValueError that names the file, the record and its fault."""
        label = _label(self.name, index, getattr(self.rows[index], "id", None))
        raise ValueError(f"{self.source}: {label} {fault}")

    def _refuse_value(self, index: int, key: str, value: object) -> NoReturn:
        self.refuse(index, f"has {key} {shown(value)}; it must be {expected(key)}")


def expected(field: str) -> str:
    """Return what a field's value must be, for messages."""
    return EXPECTED.get(field, "a whole number")


def shown(value: object) -> str:
    """Return a value as JSON of at most 60 characters."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


def _label(name: str, index: int, number: object) -> str:
    """Return ``annotation 7``, or ``annotation number 3`` for the third if it has no id."""
    return f"{name} {number}" if _is_int64(number) else f"{name} number {index + 1}"


def _is_int64(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    whole = isinstance(value, int) or (math.isfinite(value) and value.is_integer())
    return whole and -(2**63) <= value < 2**63


def _plural(name: str) -> str:
    return name[:-1] + "ies" if name.endswith("y") else name + "s"


def _singular(plural: str) -> str:
    return plural[:-3] + "y" if plural.endswith("ies") else plural.removesuffix("s")
