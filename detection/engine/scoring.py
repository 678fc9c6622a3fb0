"""Detections of a trained detector, or of a file that any program wrote, against a COCO JSON."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backbone.io.files import write_json
from backbone.io.provenance import Provenance, fingerprint_file, fingerprint_folder
from detection.config import InferenceConfig
from detection.data.coco import EDGE_PX, CocoTable, GroundTruth, require_categories
from detection.data.dataset import CocoDataset
from detection.data.transforms import Augmentation
from detection.engine.evaluate import detect_in_dataset
from detection.engine.tta import Vision
from detection.evaluation.localization import LocalizationMetrics, measure_localization
from detection.evaluation.report import (
    DetectionAnalysis,
    ReportOptions,
    analyze_detections,
    describe_settings,
    write_report,
)
from detection.evaluation.tables import DetectionTable, as_detection_table
from detection.models.checkpoint import load_detector

logger = logging.getLogger(__name__)

MAX_OUTSIDE = 0.05
"""More boxes than this share do not leave their images by a detector's fault alone."""


def detect_with_file(
    path: Path,
    annotations: CocoTable,
    image_root: Path,
    *,
    batch_size: int,
    inference: InferenceConfig | None = None,
) -> list[dict[str, Any]]:
    """Run a trained detector over a data set; under ``torch.distributed`` all processes share it.

    Returns:
        Detections in COCO's results format, in every process those of all.

    Raises:
        FileNotFoundError: if the detector or the images are missing.
        ValueError: if the detector was trained for other categories, or an image is damaged.
    """
    detector, info = load_detector(path, inference=inference)
    require_categories(info.categories, path, annotations)
    dataset = CocoDataset(
        annotations,
        image_root,
        augmentation=Augmentation(
            shortest_sides_px=(info.shortest_side_px,), longest_side_px=info.longest_side_px
        ),
    )
    return detect_in_dataset(
        detector,
        dataset,
        category_ids=info.category_ids,
        batch_size=batch_size,
        device="cuda" if torch.cuda.is_available() else "cpu",
        vision=Vision.of(info, inference) if inference else None,
    )


@dataclass(frozen=True, slots=True, eq=False)
class DetectionsWithTruth:
    """Detections and ground truth with their provenance."""

    truth: GroundTruth
    detections: DetectionTable
    inputs: Mapping[str, str]
    """``detector`` or ``results`` -> fingerprint of the file."""
    data: Mapping[str, str]
    """``annotations``, ``images`` -> fingerprint."""

    def report(self, out_dir: Path, options: ReportOptions) -> DetectionAnalysis:
        """Compute and write COCO metrics, TIDE errors and confusion; see ``write_report``."""
        images = self.truth.indices_of(None)
        analysis = analyze_detections(self.truth, self.detections, images=images, options=options)
        write_report(
            out_dir,
            self.truth,
            analysis,
            settings=self._settings(options),
            provenance=self._provenance(backend=options.backend),
            plots=options.plots,
        )
        return analysis

    def localize(self, out_dir: Path, options: ReportOptions) -> LocalizationMetrics:
        """Compute the figures of single-object localization; write ``metrics.json``."""
        images = self.truth.indices_of(None)
        metrics = measure_localization(self.truth, self.detections, images=images)
        write_json(
            out_dir / "metrics.json",
            {
                "task": "localization",
                **metrics.to_dict(),
                "settings": self._settings(options),
                "provenance": self._provenance(task="localization"),
            },
        )
        return metrics

    def _settings(self, options: ReportOptions) -> dict[str, Any]:
        return describe_settings(self.truth, self.detections, self.truth.indices_of(None), options)

    def _provenance(self, **arguments: Any) -> dict[str, Any]:
        return Provenance(
            stage="evaluation", arguments=arguments, inputs=self.inputs, data=self.data
        ).to_dict()


def load_results_file(path: Path, annotations: CocoTable) -> DetectionsWithTruth:
    """Read detections that any program wrote in COCO's results format.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not in that format or does not fit the annotations.
    """
    truth = annotations.ground_truth
    detections = DetectionTable.load(path, truth)
    _warn_of_another_convention(path, detections, annotations)
    return DetectionsWithTruth(
        truth,
        detections,
        inputs={"results": fingerprint_file(path)},
        data={"annotations": annotations.fingerprint},
    )


def _warn_of_another_convention(
    path: Path, detections: DetectionTable, annotations: CocoTable
) -> None:
    """Say so if boxes look like corners, or scores like percent; COCO's format allows both."""
    if not len(detections):
        return
    sizes = np.array([(image.width, image.height) for image in annotations.images])
    ends = detections.boxes[:, :2] + detections.boxes[:, 2:]
    outside = np.any(ends > sizes[detections.image_indices] + EDGE_PX, axis=1)
    if outside.mean() > MAX_OUTSIDE:
        logger.warning(
            "%d of %d boxes of %s reach out of their images; COCO's are [left, top, width, height]",
            outside.sum(),
            len(detections),
            path,
        )
    if detections.scores.max() > 1:
        logger.warning(
            "scores of %s go up to %g; score_threshold is meant for 0 to 1",
            path,
            detections.scores.max(),
        )


def save_results_file(
    path: Path,
    results: list[dict[str, Any]],
    annotations: CocoTable,
    image_root: Path,
    out_dir: Path,
) -> DetectionsWithTruth:
    """Take what a detector found; write ``results.json``.

    Args:
        path: the detector.
        results: its detections; see ``detect_with_file``.
        annotations: the truth.
        image_root: folder of the images.
        out_dir: where to write.
    """
    write_json(out_dir / "results.json", results, indent=None)
    truth = annotations.ground_truth
    return DetectionsWithTruth(
        truth,
        as_detection_table(results, truth, source=out_dir / "results.json"),
        inputs={"detector": fingerprint_file(path)},
        data={
            "annotations": annotations.fingerprint,
            "images": fingerprint_folder(image_root),
        },
    )
