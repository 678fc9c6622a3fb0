"""Run a detector over a data set and score it as COCO does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from backbone.artifacts import write_json
from detection.data import CocoDataset, collate
from detection.detector import Detections, Detector
from detection.evaluation import (
    CocoMetrics,
    evaluate_coco,
    to_coco_results,
)
from detection.tables import CocoTruth

EVALUATION_BATCH = 16
"""Images at a time, where nobody says how many."""


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What came out of an evaluation."""

    metrics: CocoMetrics
    results: list[dict[str, Any]]
    """Detections in COCO's results format."""
    seconds: float


def evaluate_detector(
    detector: Detector,
    dataset: CocoDataset,
    *,
    category_ids: Sequence[int],
    batch_size: int,
    device: torch.device | str = "cpu",
    progress: bool = True,
    truth: CocoTruth | None = None,
) -> EvaluationResult:
    """Detect in every image of a data set and compute COCO's metrics.

    Under ``torch.distributed`` every process takes its share of the images, and all return the
    metrics of the whole set.

    Args:
        detector: in evaluation mode afterwards.
        dataset: without flips.
        category_ids: COCO's id of each class.
        batch_size: images at a time.
        device: where to compute; the detector is moved there.
        progress: whether to show a bar.
        truth: the data set's annotations for the metrics, if they are at hand; else they are read.
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
    metrics = evaluate_coco(truth or dataset.annotations.path, results, image_ids=dataset.image_ids)
    return EvaluationResult(metrics, results, time.monotonic() - start)


def detect_in_dataset(
    detector: Detector,
    dataset: CocoDataset,
    *,
    category_ids: Sequence[int],
    batch_size: int,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Detect in every image of a data set; see ``evaluate_detector``.

    Returns:
        Detections in COCO's results format, in every process those of all.
    """
    rank, world = _place()
    mine = range(rank, len(dataset), world)
    results = _detect(
        detector.to(device).eval(),
        dataset,
        [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)],
        category_ids=category_ids,
        progress=progress and rank == 0,
    )
    if world > 1:
        shares: list[Any] = [None] * world
        torch.distributed.all_gather_object(shares, results)
        # One process would have gone through the images in this order; ties in score depend on it.
        results = sorted((r for share in shares for r in share), key=lambda r: r["image_id"])
    return results


def write_evaluation(
    out_dir: Path,
    result: EvaluationResult,
    *,
    provenance: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write ``results.json`` (COCO's results format), and last ``metrics.json``."""
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


def _place() -> tuple[int, int]:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not distributed:
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


@torch.inference_mode()
def _detect(
    detector: Detector,
    dataset: CocoDataset,
    batches: Sequence[range],
    *,
    category_ids: Sequence[int],
    progress: bool,
) -> list[dict[str, Any]]:
    device = next(detector.parameters()).device
    results = []
    for indices in tqdm(batches, desc="evaluating", unit="batch", disable=not progress):
        batch = collate([dataset[index] for index in indices])
        found = detector.predict([image.to(device) for image in batch.images])
        full_size = [
            rescale(detections, image.shape[-2:], original)
            for detections, image, original in zip(
                found, batch.images, batch.original_sizes, strict=True
            )
        ]
        results += to_coco_results(batch.image_ids, full_size, category_ids)
    return results


def rescale(
    detections: Detections, size: Sequence[int], original_size: Sequence[int]
) -> Detections:
    """Bring boxes from the resized image, (height, width), to the original one's pixels."""
    scale_y, scale_x = (old / new for old, new in zip(original_size, size, strict=True))
    scale = torch.tensor([scale_x, scale_y, scale_x, scale_y])
    return Detections(
        detections.boxes.cpu() * scale, detections.scores.cpu(), detections.labels.cpu()
    )
