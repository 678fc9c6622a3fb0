"""Run a detector over a dataset, and evaluate detections against a COCO JSON."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backbone.io.files import write_json
from backbone.io.progress import progress_bar
from backbone.io.provenance import Provenance, fingerprint_file, fingerprint_folder
from detection.config import InferenceConfig
from detection.data.coco import EDGE_PX, CocoTable, GroundTruth, require_categories
from detection.data.dataset import CocoDataset
from detection.data.transforms import Augmentation
from detection.engine.tta import TestTimeAugmentation, group_batches, predict_images, rescale
from detection.evaluation.localization import LocalizationMetrics, measure_localization
from detection.evaluation.metrics import CocoMetrics, compute_coco_metrics, to_coco_results
from detection.evaluation.report import (
    DetectionAnalysis,
    ReportOptions,
    analyze_detections,
    describe_settings,
    write_report,
)
from detection.evaluation.tables import DetectionTable, as_detection_table
from detection.models.checkpoint import load_detector
from detection.models.detector import Detector

logger = logging.getLogger(__name__)

EVALUATION_BATCH = 16
"""Default evaluation batch size."""
MAX_OUTSIDE = 0.05
"""Fraction of boxes outside their images above which the box format is probably another."""


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Result of an evaluation."""

    metrics: CocoMetrics
    results: list[dict[str, Any]]
    """Detections in COCO results format."""
    seconds: float


def evaluate_detector(
    detector: Detector,
    dataset: CocoDataset,
    *,
    category_ids: Sequence[int],
    batch_size: int,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> EvaluationResult:
    """Detect in every image of a data set and compute COCO's metrics.

    Under ``torch.distributed`` the images are sharded, and every process returns the metrics of the
    whole dataset.

    Args:
        detector: in evaluation mode afterwards.
        dataset: the images, without random augmentation.
        category_ids: COCO id of each class.
        batch_size: maximum number of images per batch; those of a batch are of equal size.
        device: device of the computation; the detector is moved there.
        progress: whether to show a progress bar.
    """
    start = time.monotonic()
    results = detect_in_dataset(
        detector,
        dataset,
        category_ids=category_ids,
        batch_size=batch_size,
        device=device,
        progress=progress,
    )
    metrics = compute_coco_metrics(
        dataset.annotations.ground_truth, results, image_ids=dataset.image_ids
    )
    return EvaluationResult(metrics, results, time.monotonic() - start)


def detect_in_dataset(
    detector: Detector,
    dataset: CocoDataset,
    *,
    category_ids: Sequence[int],
    batch_size: int,
    device: torch.device | str = "cpu",
    tta: TestTimeAugmentation | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Detect in every image of a dataset; see ``evaluate_detector``.

    Args:
        detector: in evaluation mode afterwards.
        dataset: the images, without random augmentation.
        category_ids: COCO id of each class.
        batch_size: maximum number of images per batch; those of a batch are of equal size.
        device: device of the computation; the detector is moved there.
        tta: views of each image; None: the dataset's own size.
        progress: whether to show a progress bar.

    Returns:
        Detections in COCO results format; in every process those of all processes.
    """
    rank, world = _rank_and_world()
    results = _detect(
        detector.to(device).eval(),
        dataset,
        range(rank, len(dataset), world),
        category_ids=category_ids,
        batch_size=batch_size,
        tta=tta,
        progress=progress and rank == 0,
    )
    if world > 1:
        gathered: list[Any] = [None] * world
        torch.distributed.all_gather_object(gathered, results)
        # The order of a single process, on which ties in score depend.
        results = sorted((r for part in gathered for r in part), key=lambda r: r["image_id"])
    return results


def write_evaluation(
    out_dir: Path,
    result: EvaluationResult,
    *,
    provenance: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write ``results.json`` (COCO results format) and then ``metrics.json``."""
    write_json(out_dir / "results.json", result.results, indent=None)
    write_json(
        out_dir / "metrics.json",
        {
            **result.metrics.to_dict(),
            "evaluation_seconds": result.seconds,
            **(extra or {}),
            "provenance": dict(provenance),
        },
    )


def _rank_and_world() -> tuple[int, int]:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not distributed:
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


@torch.inference_mode()
def _detect(
    detector: Detector,
    dataset: CocoDataset,
    shard: range,
    *,
    category_ids: Sequence[int],
    batch_size: int,
    tta: TestTimeAugmentation | None,
    progress: bool,
) -> list[dict[str, Any]]:
    device = next(detector.parameters()).device
    results: dict[int, list[dict[str, Any]]] = {}
    # Images of equal size are not padded, so their detections do not depend on the batch.
    sizes = [dataset.size(index) for index in shard]
    with progress_bar(total=len(shard), desc="evaluating", unit="image", shown=progress) as bar:
        for indices in group_batches(sizes, batch_size):
            examples = [dataset[shard[index]] for index in indices]
            if tta is None:
                outputs = detector.predict([example.image.to(device) for example in examples])
                pairs = zip(outputs, examples, strict=True)
                detections = [rescale(d, e.image.shape[-2:], e.original_size) for d, e in pairs]
            else:
                pixels = [dataset.pixels(shard[index]) for index in indices]
                detections = predict_images(detector, pixels, tta)
            for index, example, own in zip(indices, examples, detections, strict=True):
                results[index] = to_coco_results([example.image_id], [own], category_ids)
            bar.update(len(indices))
    return [result for index in range(len(shard)) for result in results[index]]


def detect_with_file(
    path: Path,
    annotations: CocoTable,
    image_root: Path,
    *,
    batch_size: int,
    inference: InferenceConfig | None = None,
) -> list[dict[str, Any]]:
    """Run a trained detector over a dataset, which is sharded under ``torch.distributed``.

    Returns:
        Detections in COCO results format; in every process those of all processes.

    Raises:
        FileNotFoundError: if the detector or the images are missing.
        ValueError: if the detector was trained on other categories, or an image is damaged.
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
        tta=TestTimeAugmentation.from_config(info, inference) if inference else None,
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
        """Compute the metrics of single-object localization and write ``metrics.json``."""
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
    """Read detections of any program in COCO results format.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not in that format or does not fit the annotations.
    """
    truth = annotations.ground_truth
    detections = DetectionTable.load(path, truth)
    _warn_about_format(path, detections, annotations)
    return DetectionsWithTruth(
        truth,
        detections,
        inputs={"results": fingerprint_file(path)},
        data={"annotations": annotations.fingerprint},
    )


def _warn_about_format(path: Path, detections: DetectionTable, annotations: CocoTable) -> None:
    """Warn if boxes look like corners or scores like percent, which the format does not exclude."""
    if not len(detections):
        return
    sizes = np.array([(image.width, image.height) for image in annotations.images])
    ends = detections.boxes[:, :2] + detections.boxes[:, 2:]
    outside = np.any(ends > sizes[detections.image_indices] + EDGE_PX, axis=1)
    if outside.mean() > MAX_OUTSIDE:
        logger.warning(
            "%d of %d boxes of %s extend beyond their images; "
            "COCO boxes are [left, top, width, height]",
            outside.sum(),
            len(detections),
            path,
        )
    if detections.scores.max() > 1:
        logger.warning(
            "scores of %s are up to %g; score_threshold assumes 0 to 1",
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
    """Write ``results.json`` and return the detections with their ground truth.

    Args:
        path: the detector's file.
        results: its detections; see ``detect_with_file``.
        annotations: the ground truth.
        image_root: folder of the images.
        out_dir: the folder to write to.
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
