"""What an evaluation wrote, read back and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from backbone.io.provenance import fingerprint_file
from detection.data.columns import read_bytes
from detection.evaluation.metrics import FIGURES, TABLES, CocoMetrics
from detection.evaluation.report import ReportOptions, describe_settings, evaluate, tallies
from detection.evaluation.tables import CocoTruth, FoundTable


class ErrorRecord(msgspec.Struct):
    """``error_kinds.json``."""

    counts: dict[str, int]
    gains: dict[str, float]


class ImageTallies(msgspec.Struct):
    """``images.json``: columns with a row per image."""

    score_threshold: float
    ids: list[int]
    names: list[str]
    right: list[int]
    false: list[int]
    missed: list[int]

    def __post_init__(self) -> None:
        columns = (self.ids, self.names, self.right, self.false, self.missed)
        if len({len(column) for column in columns}) > 1:
            raise ValueError("its columns are not equally long")


_Metrics = msgspec.defstruct(
    "_Metrics",
    [
        *((name, float | None) for name in FIGURES),
        *((name, dict[str, float | None], msgspec.field(default_factory=dict)) for name in TABLES),
        ("settings", dict[str, Any], msgspec.field(default_factory=dict)),
    ],
)
"""``metrics.json``; a training's has no settings."""


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """An evaluation as its files tell it."""

    path: Path
    """``metrics.json``."""
    metrics: CocoMetrics
    settings: Mapping[str, Any]
    errors: ErrorRecord | None
    images: ImageTallies | None

    @classmethod
    def load(cls, path: str | Path, *, truth: CocoTruth | None = None) -> Recorded:
        """Read what an evaluation wrote.

        Args:
            path: its folder, or the ``metrics.json`` in it.
            truth: what its ``results.json`` is to be compared with, if it has no
                ``error_kinds.json``, as a training's has not.

        Raises:
            FileNotFoundError: if there is no evaluation.
            ValueError: if a file is damaged, of something else, or of other annotations than
                ``truth``.
        """
        path = Path(path)
        path = path / "metrics.json" if path.is_dir() else path
        record = _read(path, _Metrics)
        scored_on = record.settings.get("annotations_sha256")
        if truth is not None and scored_on and scored_on != fingerprint_file(truth.path):
            raise ValueError(f"{path} was scored on other annotations than {truth.path}")
        metrics = CocoMetrics.from_dict(msgspec.structs.asdict(record))
        errors, images = path.with_name("error_kinds.json"), path.with_name("images.json")
        results = path.with_name("results.json")
        if errors.is_file() and images.is_file():
            return cls(
                path,
                metrics,
                record.settings,
                _read(errors, ErrorRecord),
                _read(images, ImageTallies),
            )
        if truth is not None and results.is_file():
            return cls._computed(path, FoundTable.load(results, truth=truth), truth)
        return cls(path, metrics, record.settings, None, None)

    @classmethod
    def _computed(cls, path: Path, found: FoundTable, truth: CocoTruth) -> Recorded:
        images, options = truth.places_of(None), ReportOptions()
        result = evaluate(truth, found, images=images, options=options)
        return cls(
            path,
            result.metrics,
            describe_settings(truth, found, images, options),
            msgspec.convert(result.errors.to_dict(), ErrorRecord),
            msgspec.convert(tallies(truth, result.confusion), ImageTallies),
        )


def _read(path: Path, kind: type[Any]) -> Any:
    contents = read_bytes(path)
    try:
        return msgspec.json.decode(contents, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise ValueError(
            f"{path} is not what an evaluation of detections writes: {text}"
        ) from error
