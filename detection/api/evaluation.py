"""Evaluate a detector, or a results file of any program, from Python."""

from __future__ import annotations

from pathlib import Path

from detection.config import EVALUATION_BACKENDS, InferenceConfig
from detection.data.coco import CocoTable
from detection.engine.evaluate import detect_with_file, load_results_file, save_results_file
from detection.evaluation.metrics import CocoMetrics, compute_coco_metrics
from detection.evaluation.report import ReportOptions


def evaluate(  # noqa: PLR0913  # the settings of an evaluation, by name
    detections: str | Path,
    annotations: str | Path,
    images: str | Path | None = None,
    *,
    out: str | Path | None = None,
    inference: InferenceConfig | None = None,
    batch_size: int = 8,
    backend: str = EVALUATION_BACKENDS[0],
    bad_boxes: str = "error",
) -> CocoMetrics:
    """Compute COCO's metrics of a detector or of detections.

    Args:
        detections: a ``detector.safetensors``, which is run on ``images``; or a JSON file of any
            program in COCO's results format.
        annotations: COCO JSON with the ground truth.
        images: folder of the images, for a detector.
        out: folder for ``results.json``, ``metrics.json``, the plots and ``report.html``; None:
            nothing is written.
        inference: image sizes, score threshold and test-time augmentation of a detector.
        batch_size: images per batch of a detector; only images of equal size are batched.
        backend: ``hotcoco``, or ``pycocotools``, the reference; the metrics are equal.
        bad_boxes: treatment of boxes without area or outside their image: ``error`` or ``drop``.

    Returns:
        ``ap``, ``ap50``, ..., ``per_class`` in percent; NaN where COCO cannot compute one.

    Raises:
        FileNotFoundError: if a file or an image is missing.
        ValueError: if a file is damaged or of another format, ``images`` is missing, or the
            detector was trained on other categories.
        ImportError: if the detector needs detectron2 and that is not installed.
    """
    path, table = Path(detections), CocoTable.load(annotations, bad_boxes=bad_boxes)
    options = ReportOptions(backend=backend)
    if path.suffix == ".json":
        loaded = load_results_file(path, table)
        if out is not None:
            return loaded.report(Path(out), options).metrics
        return compute_coco_metrics(table.ground_truth, loaded.detections, backend=backend)
    if images is None:
        raise ValueError(f"give images, the folder of the images to run {path} on")
    results = detect_with_file(
        path, table, Path(images), batch_size=batch_size, inference=inference
    )
    if out is not None:
        saved = save_results_file(path, results, table, Path(images), Path(out))
        return saved.report(Path(out), options).metrics
    return compute_coco_metrics(table.ground_truth, results, backend=backend)
