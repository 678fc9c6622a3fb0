"""Run a detector over a data set and score it as COCO does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from backbone.io.files import write_json
from detection.data.dataset import CocoDataset
from detection.engine.tta import Vision, batches_of_equals, detect_in_pixels, rescale
from detection.evaluation.metrics import CocoMetrics, compute_coco_metrics, to_coco_results
from detection.models.detector import Detector

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
    vision: Vision | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Detect in every image of a data set; see ``evaluate_detector``.

    With ``vision`` images are looked at as it says, and not in the data set's size.

    Returns:
        Detections in COCO's results format, in every process those of all.
    """
    rank, world = _place()
    results = _detect(
        detector.to(device).eval(),
        dataset,
        range(rank, len(dataset), world),
        category_ids=category_ids,
        batch_size=batch_size,
        vision=vision,
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
    mine: range,
    *,
    category_ids: Sequence[int],
    batch_size: int,
    vision: Vision | None,
    progress: bool,
) -> list[dict[str, Any]]:
    device = next(detector.parameters()).device
    found: dict[int, list[dict[str, Any]]] = {}
    # Images of one size are not padded for each other, so none's detections depend on its company.
    sizes = [dataset.size(position) for position in mine]
    with tqdm(total=len(mine), desc="evaluating", unit="image", disable=not progress) as bar:
        for places in batches_of_equals(sizes, batch_size):
            examples = [dataset[mine[place]] for place in places]
            if vision is None:
                detected = detector.predict([example.image.to(device) for example in examples])
                pairs = zip(detected, examples, strict=True)
                full_size = [rescale(d, e.image.shape[-2:], e.original_size) for d, e in pairs]
            else:
                pixels = [dataset.pixels(mine[place]) for place in places]
                full_size = detect_in_pixels(detector, pixels, vision)
            for place, example, detections in zip(places, examples, full_size, strict=True):
                found[place] = to_coco_results([example.image_id], [detections], category_ids)
            bar.update(len(places))
    return [result for place in range(len(mine)) for result in found[place]]
