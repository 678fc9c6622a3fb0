"""Everything that one evaluation says, as files in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbone.io.files import write_json
from backbone.io.html import Picture, Table, write_page
from backbone.io.provenance import fingerprint_file
from detection.config import EVALUATION_BACKENDS
from detection.data.columns import Integers
from detection.evaluation.coco_eval import MAX_DETECTIONS, CocoArrays, compute_arrays
from detection.evaluation.confusion import Confusion, confuse
from detection.evaluation.metrics import CocoMetrics, summarize
from detection.evaluation.plots import (
    draw_class_curves,
    draw_confusion,
    draw_curves,
    draw_error_kinds,
)
from detection.evaluation.summary import format_percent
from detection.evaluation.tables import CocoTruth, FoundTable
from detection.evaluation.tide import KINDS, ErrorKinds, measure_errors

PICTURES = {
    "precision_recall.png": "Precision by recall",
    "precision_recall_classes.png": "Precision by recall of each category",
    "error_kinds.png": "What errors cost",
    "confusion.png": "What is taken for what",
}
REPORT_NAME = "report.html"
LEAD = (
    "COCO's figures in percent. AP is the mean over IoU 0.50 to 0.95 and over categories; AP50 at "
    "IoU 0.50; AR the recall with at most 100 detections per image. Errors are of the kinds that "
    "TIDE defines, at IoU 0.5."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """What an evaluation looks at beside COCO's figures."""

    backend: str = EVALUATION_BACKENDS[0]
    """``faster-coco-eval`` or ``pycocotools``; the figures are the same."""
    score_threshold: float = 0.5
    """From which on a detection counts in the confusion matrix and in the images' tallies."""
    plots: bool = True
    """Whether to draw."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What came out of comparing detections with the truth."""

    metrics: CocoMetrics
    errors: ErrorKinds
    confusion: Confusion
    arrays: CocoArrays


def evaluate(
    truth: CocoTruth, found: FoundTable, *, images: Integers, options: ReportOptions
) -> Evaluation:
    """Compare detections with the truth in every respect.

    Args:
        truth: the objects.
        found: the detections.
        images: places of the images to evaluate, ascending.
        options: what to look at.

    Raises:
        ValueError: if there is no such backend.
    """
    arrays = compute_arrays(truth, found, images=images, backend=options.backend)
    return Evaluation(
        metrics=summarize(arrays, truth),
        errors=measure_errors(truth, found, images=images),
        confusion=confuse(truth, found, images=images, score_threshold=options.score_threshold),
        arrays=arrays,
    )


def describe_settings(
    truth: CocoTruth, found: FoundTable, images: Integers, options: ReportOptions
) -> dict[str, Any]:
    """Return what the figures depend on beside the detections, for two to be compared."""
    return {
        "annotations": str(truth.path),
        "annotations_sha256": fingerprint_file(truth.path),
        "num_images": int(images.size),
        "num_categories": int(truth.category_ids.size),
        "num_detections": len(found),
        "lowest_score": float(found.scores.min()) if len(found) else None,
        "max_detections": MAX_DETECTIONS[-1],
        "backend": options.backend,
        "score_threshold": options.score_threshold,
    }


def write_report(
    out_dir: Path,
    truth: CocoTruth,
    evaluation: Evaluation,
    *,
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    plots: bool,
) -> None:
    """Write ``error_kinds.json``, ``confusion.json``, ``images.json``, and last ``metrics.json``.

    With ``plots`` also pictures and ``report.html``, which holds them.
    """
    if not plots:
        for name in (*PICTURES, REPORT_NAME):  # of an earlier evaluation
            (out_dir / name).unlink(missing_ok=True)
    write_json(out_dir / "error_kinds.json", evaluation.errors.to_dict())
    write_json(out_dir / "confusion.json", evaluation.confusion.to_dict(), indent=None)
    write_json(out_dir / "images.json", tallies(truth, evaluation.confusion), indent=None)
    if plots:
        draw(out_dir, truth, evaluation)
    write_json(
        out_dir / "metrics.json",
        {
            **evaluation.metrics.to_dict(),
            "settings": dict(settings),
            "provenance": dict(provenance),
        },
    )


def tallies(truth: CocoTruth, confusion: Confusion) -> dict[str, Any]:
    """Return image by image what was right, false and missed, as JSON's columns."""
    return {
        "score_threshold": confusion.score_threshold,
        "iou": confusion.iou,
        "ids": truth.image_ids[confusion.images].tolist(),
        "names": [truth.image_names[image] for image in confusion.images],
        "right": confusion.right.tolist(),
        "false": confusion.false.tolist(),
        "missed": confusion.missed.tolist(),
    }


def draw(out_dir: Path, truth: CocoTruth, evaluation: Evaluation) -> None:
    """Draw the pictures and put them on a page."""
    draw_curves(evaluation.arrays, out_dir / "precision_recall.png")
    draw_class_curves(evaluation.arrays, truth, out_dir / "precision_recall_classes.png")
    draw_error_kinds(evaluation.errors, out_dir / "error_kinds.png")
    draw_confusion(evaluation.confusion, out_dir / "confusion.png")
    pictures = [Picture(title, out_dir / name) for name, title in PICTURES.items()]
    write_page(
        out_dir / REPORT_NAME,
        title=f"Evaluation on {truth.path.name}",
        lead=LEAD,
        parts=[
            _summary_table(evaluation.metrics),
            _error_table(evaluation.errors),
            *pictures,
            Table("Categories", *class_rows(evaluation)),
        ],
    )


def _summary_table(metrics: CocoMetrics) -> Table:
    figures = {
        "AP": metrics.ap, "AP50": metrics.ap50, "AP75": metrics.ap75, "AP small": metrics.ap_small,
        "AP medium": metrics.ap_medium, "AP large": metrics.ap_large, "AR": metrics.ar_100,
    }  # fmt: skip
    return Table("Figures", list(figures), [[format_percent(value) for value in figures.values()]])


def _error_table(errors: ErrorKinds) -> Table:
    rows = [
        [kind, meaning, str(errors.counts[kind]), f"{errors.gains[kind]:.2f}"]
        for kind, meaning in KINDS.items()
    ]
    rows += [
        [name.replace("_", " "), meaning, "", f"{errors.gains[name]:.2f}"]
        for name, meaning in {
            "false_positive": "if all wrong detections came last",
            "false_negative": "if only what was found had been there to find",
        }.items()
    ]
    return Table("Errors", ["kind", "what it is", "number", "AP50 to gain"], rows)


def class_rows(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Return a table's head and rows: figures and errors of each category."""
    metrics, errors = evaluation.metrics, evaluation.errors
    head = ["category", "AP", "AP50", "AR", *KINDS]
    rows = [
        [
            name,
            format_percent(ap),
            format_percent(metrics.per_class_ap50[name]),
            format_percent(metrics.per_class_ar[name]),
            *(str(errors.per_class[name][kind]) for kind in KINDS),
        ]
        for name, ap in metrics.per_class.items()
    ]
    return head, rows


def describe_errors(errors: ErrorKinds) -> str:
    """Say in a line what mending each kind of error would bring."""
    gains = "  ".join(f"{kind} {errors.gains[kind]:.1f}" for kind in KINDS)
    return f"AP50 to gain by kind of error: {gains}"
