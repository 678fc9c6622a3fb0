"""Analyze detections and write the report: JSON files, plots and an HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbone.io.files import write_json
from backbone.io.html import Picture, Table, write_page
from detection.config import EVALUATION_BACKENDS
from detection.data.coco import GroundTruth
from detection.data.columns import Integers
from detection.evaluation.coco_eval import MAX_DETECTIONS, CocoArrays, compute_arrays
from detection.evaluation.confusion import Confusion, compute_confusion
from detection.evaluation.metrics import CocoMetrics, summarize
from detection.evaluation.plots import (
    draw_class_curves,
    draw_confusion,
    draw_curves,
    draw_tide,
)
from detection.evaluation.summary import format_percent
from detection.evaluation.tables import DetectionTable
from detection.evaluation.tide import ERROR_TYPES, TideErrors, compute_tide

PICTURES = {
    "precision_recall.png": "Precision by recall",
    "precision_recall_classes.png": "Precision by recall of each category",
    "error_kinds.png": "AP50 gained by fixing each type of error",
    "confusion.png": "Confusion matrix",
}
REPORT_NAME = "report.html"
LEAD = (
    "COCO metrics in percent. AP is the mean over IoU 0.50 to 0.95 and over categories; AP50 is AP "
    "at IoU 0.50; AR is recall with at most 100 detections per image. Errors are of the types that "
    "TIDE defines, at IoU 0.5."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """Settings of an evaluation report."""

    backend: str = EVALUATION_BACKENDS[0]
    """``hotcoco`` or ``pycocotools``; the metrics are equal."""
    score_threshold: float = 0.5
    """Minimum score for a detection to count in the confusion matrix and in the counts of each
    image, 0 to 1."""
    plots: bool = True
    """Whether to draw pictures and write ``report.html``."""


@dataclass(frozen=True, slots=True, eq=False)
class DetectionAnalysis:
    """Metrics, errors and confusion of detections on a ground truth."""

    metrics: CocoMetrics
    errors: TideErrors
    confusion: Confusion
    arrays: CocoArrays


def analyze_detections(
    truth: GroundTruth, detections: DetectionTable, *, images: Integers, options: ReportOptions
) -> DetectionAnalysis:
    """Compute COCO's metrics, TIDE's errors and the confusion matrix.

    Args:
        truth: the objects.
        detections: the detections.
        images: indices of the images to evaluate, ascending.
        options: backend and score threshold.

    Raises:
        ValueError: if there is no such backend.
    """
    arrays = compute_arrays(truth, detections, images=images, backend=options.backend)
    return DetectionAnalysis(
        metrics=summarize(arrays, truth),
        errors=compute_tide(truth, detections, images=images),
        confusion=compute_confusion(
            truth, detections, images=images, score_threshold=options.score_threshold
        ),
        arrays=arrays,
    )


def describe_settings(
    truth: GroundTruth, detections: DetectionTable, images: Integers, options: ReportOptions
) -> dict[str, Any]:
    """Return the settings that the metrics depend on, so that two evaluations can be compared."""
    return {
        "annotations": str(truth.path),
        "annotations_sha256": truth.fingerprint,
        "num_images": int(images.size),
        "num_categories": int(truth.category_ids.size),
        "num_detections": len(detections),
        "lowest_score": float(detections.scores.min()) if len(detections) else None,
        "max_detections": MAX_DETECTIONS[-1],
        "backend": options.backend,
        "score_threshold": options.score_threshold,
    }


def write_report(
    out_dir: Path,
    truth: GroundTruth,
    analysis: DetectionAnalysis,
    *,
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    plots: bool,
) -> None:
    """Write ``error_kinds.json``, ``confusion.json``, ``images.json`` and, last, ``metrics.json``.

    With ``plots`` also write the pictures and ``report.html``, which embeds them.
    """
    if not plots:
        for name in (*PICTURES, REPORT_NAME):  # left by an earlier evaluation
            (out_dir / name).unlink(missing_ok=True)
    write_json(out_dir / "error_kinds.json", analysis.errors.to_dict())
    write_json(out_dir / "confusion.json", analysis.confusion.to_dict(), indent=None)
    write_json(out_dir / "images.json", tallies(truth, analysis.confusion), indent=None)
    if plots:
        draw(out_dir, truth, analysis)
    write_json(
        out_dir / "metrics.json",
        {
            **analysis.metrics.to_dict(),
            "settings": dict(settings),
            "provenance": dict(provenance),
        },
    )


def tallies(truth: GroundTruth, confusion: Confusion) -> dict[str, Any]:
    """Return the true positives, false positives and misses of each image as JSON columns."""
    return {
        "score_threshold": confusion.score_threshold,
        "iou": confusion.iou,
        "ids": truth.image_ids[confusion.images].tolist(),
        "names": [truth.image_names[image] for image in confusion.images],
        "right": confusion.right.tolist(),
        "false": confusion.false.tolist(),
        "missed": confusion.missed.tolist(),
    }


def draw(out_dir: Path, truth: GroundTruth, analysis: DetectionAnalysis) -> None:
    """Draw the pictures and write the page that embeds them."""
    draw_curves(analysis.arrays, out_dir / "precision_recall.png")
    draw_class_curves(analysis.arrays, truth, out_dir / "precision_recall_classes.png")
    draw_tide(analysis.errors, out_dir / "error_kinds.png")
    draw_confusion(analysis.confusion, out_dir / "confusion.png")
    pictures = [Picture(title, out_dir / name) for name, title in PICTURES.items()]
    write_page(
        out_dir / REPORT_NAME,
        title=f"Evaluation on {truth.path.name}",
        lead=LEAD,
        parts=[
            _summary_table(analysis.metrics),
            _error_table(analysis.errors),
            *pictures,
            Table("Categories", *class_rows(analysis)),
        ],
    )


def _summary_table(metrics: CocoMetrics) -> Table:
    figures = {
        "AP": metrics.ap, "AP50": metrics.ap50, "AP75": metrics.ap75, "AP small": metrics.ap_small,
        "AP medium": metrics.ap_medium, "AP large": metrics.ap_large, "AR": metrics.ar_100,
    }  # fmt: skip
    return Table("Figures", list(figures), [[format_percent(value) for value in figures.values()]])


def _error_table(errors: TideErrors) -> Table:
    rows = [
        [name, meaning, str(errors.counts[name]), f"{errors.gains[name]:.2f}"]
        for name, meaning in ERROR_TYPES.items()
    ]
    rows += [
        [name.replace("_", " "), meaning, "", f"{errors.gains[name]:.2f}"]
        for name, meaning in {
            "false_positive": "if all wrong detections had the lowest scores",
            "false_negative": "if all objects without a detection were removed",
        }.items()
    ]
    return Table("Errors", ["type", "definition", "number", "AP50 gain"], rows)


def class_rows(analysis: DetectionAnalysis) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of a table with the metrics and errors of each category."""
    metrics, errors = analysis.metrics, analysis.errors
    head = ["category", "AP", "AP50", "AR", *ERROR_TYPES]
    rows = [
        [
            name,
            format_percent(ap),
            format_percent(metrics.per_class_ap50[name]),
            format_percent(metrics.per_class_ar[name]),
            *(str(errors.per_class[name][error]) for error in ERROR_TYPES),
        ]
        for name, ap in metrics.per_class.items()
    ]
    return head, rows


def describe_errors(errors: TideErrors) -> str:
    """Format the AP50 gained by fixing each type of error in one line."""
    gains = "  ".join(f"{name} {errors.gains[name]:.1f}" for name in ERROR_TYPES)
    return f"AP50 gained by fixing errors: {gains}"
