"""Read the files of an evaluation and check them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from detection.data.coco import GroundTruth
from detection.data.columns import read_bytes
from detection.evaluation.metrics import FIGURES, TABLES, CocoMetrics
from detection.evaluation.report import (
    ReportOptions,
    analyze_detections,
    describe_settings,
    tallies,
)
from detection.evaluation.tables import DetectionTable


class ErrorRecord(msgspec.Struct):
    """``error_kinds.json``."""

    counts: dict[str, int]
    gains: dict[str, float]


class ImageTallies(msgspec.Struct):
    """``images.json``: columns with one row per image."""

    score_threshold: float
    ids: list[int]
    names: list[str]
    right: list[int]
    false: list[int]
    missed: list[int]

    def __post_init__(self) -> None:
        columns = (self.ids, self.names, self.right, self.false, self.missed)
        if len({len(column) for column in columns}) > 1:
            raise ValueError("its columns differ in length")


_Metrics = msgspec.defstruct(
    "_Metrics",
    [
        *((name, float | None) for name in FIGURES),
        *((name, dict[str, float | None], msgspec.field(default_factory=dict)) for name in TABLES),
        ("settings", dict[str, Any], msgspec.field(default_factory=dict)),
    ],
)
"""``metrics.json``; that of a training has no settings."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredEvaluation:
    """The metrics, settings and errors that an evaluation wrote."""

    path: Path
    """``metrics.json``."""
    metrics: CocoMetrics
    settings: Mapping[str, Any]
    errors: ErrorRecord | None
    images: ImageTallies | None

    @classmethod
    def load(cls, path: str | Path, *, truth: GroundTruth | None = None) -> StoredEvaluation:
        """Read the files of an evaluation.

        Args:
            path: folder of the evaluation, or its ``metrics.json``.
            truth: ground truth for its ``results.json``, to compute what it lacks: a training
                writes no ``error_kinds.json`` and ``images.json``.

        Raises:
            FileNotFoundError: if there is no evaluation.
            ValueError: if a file is damaged, has another form, or was scored on other
                annotations than ``truth``.
        """
        path = Path(path)
        path = path / "metrics.json" if path.is_dir() else path
        record = _read(path, _Metrics)
        scored_on = record.settings.get("annotations_sha256")
        if truth is not None and scored_on and scored_on != truth.fingerprint:
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
            return cls._computed(path, DetectionTable.load(results, truth), truth)
        return cls(path, metrics, record.settings, None, None)

    @classmethod
    def _computed(
        cls, path: Path, detections: DetectionTable, truth: GroundTruth
    ) -> StoredEvaluation:
        images, options = truth.indices_of(None), ReportOptions()
        result = analyze_detections(truth, detections, images=images, options=options)
        return cls(
            path,
            result.metrics,
            describe_settings(truth, detections, images, options),
            msgspec.convert(result.errors.to_dict(), ErrorRecord),
            msgspec.convert(tallies(truth, result.confusion), ImageTallies),
        )


def _read(path: Path, kind: type[Any]) -> Any:
    contents = read_bytes(path)
    try:
        return msgspec.json.decode(contents, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{path} is not a file of an evaluation of detections: {text}") from error
