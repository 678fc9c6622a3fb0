r"""Compute COCO mAP of a detector, or of a results file written by any program.

Prints COCO's metrics and writes metrics.json, error_kinds.json, confusion.json, images.json, plots
and report.html; for a detector also results.json, its detections. Under torchrun the processes
divide the images among them.

nasdet evaluate-detector weights=runs/detector/detector.safetensors    # on its validation images
nasdet evaluate-detector weights=runs/detector/detector.safetensors images=/data/mine/test
nasdet evaluate-detector results=runs/detector/results.json
nasdet evaluate-detector results=runs/detector/results.json task=localization
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from _cli import Run, tool
from _output import print_line
from backbone.config import require_at_least, require_choice
from detection.config import (
    EVALUATION_BACKENDS,
    RENAMED_BACKENDS,
    DetectionDataConfig,
    InferenceConfig,
)

if TYPE_CHECKING:
    from detection.engine.evaluate import DetectionsWithTruth

TASKS = ("detection", "localization")


@dataclass(kw_only=True, slots=True)
class Args:
    """Settings of ``evaluate_detector``."""

    out: str
    """The folder for ``metrics.json``, ``results.json`` and the rest of the report."""
    annotations: str = ""
    """COCO JSON with the ground truth; empty: that of ``images`` in COCO's layout
    (``annotations/instances_NAME.json`` beside the folder NAME), or the validation annotations of
    the training that wrote ``weights`` or ``results``."""
    weights: str = ""
    """A ``detector.safetensors`` to run on ``images``; or give ``results``."""
    images: str = ""
    """Folder of the images; empty: the validation images of the training that wrote ``weights``."""
    results: str = ""
    """Detections in COCO's results format, of any program, to score instead."""
    task: str = "detection"
    """``detection``: COCO's metrics; ``localization``: whether the highest-scoring box is on the
    object."""
    backend: str = EVALUATION_BACKENDS[0]
    """``hotcoco``, or ``pycocotools``, the reference; the metrics are equal."""
    score_threshold: float = 0.5
    """Minimum score for a detection to count in the confusion matrix and in the counts per image, 0
    to 1; COCO's metrics use all detections."""
    plots: bool = True
    """Whether to plot precision-recall curves, confusion and error types, and write
    report.html."""
    per_class: bool = True
    """Whether to print a table of all categories."""
    batch_size: int = 8
    """Images per batch; only images of equal size are batched."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    """Image sizes and test-time augmentation; not used with ``results``."""
    bad_boxes: str = "error"
    """Treatment of boxes without area or outside their image: ``error`` or ``drop``."""

    def __post_init__(self) -> None:
        if bool(self.weights) == bool(self.results):
            raise ValueError("give either weights=... (and images=...) or results=...")
        require_choice("task", self.task, TASKS)
        require_choice("backend", self.backend, EVALUATION_BACKENDS, renamed=RENAMED_BACKENDS)
        if not 0 <= self.score_threshold <= 1:
            raise ValueError(f"score_threshold must lie in 0 to 1, not {self.score_threshold:g}")
        require_at_least(1, batch_size=self.batch_size)


@tool(Args)
def main(run: Run[Args]) -> None:
    from backbone.io.runtime import process_group

    with process_group() as rank:
        run.report(**evaluate(run.args, run.out, rank=rank))
        if rank == 0:
            run.finish()


def evaluate(args: Args, out: Path, *, rank: int) -> dict[str, Any]:
    """Evaluate the detector or the results file; the first process writes, prints and returns."""
    from detection.data.coco import CocoTable
    from detection.engine.evaluate import detect_with_file, load_results_file, save_results_file

    truth, images = find_data(args)
    annotations = CocoTable.load(truth, bad_boxes=args.bad_boxes)
    if args.results:
        if rank != 0:
            return {}
        results_path, own = Path(args.results), out / "results.json"
        figures = report(args, load_results_file(results_path, annotations), out)
        if own.resolve() != results_path.resolve():
            own.unlink(missing_ok=True)  # of a detector that was evaluated here before
        return figures | {"results": results_path}
    weights = Path(args.weights)
    results = detect_with_file(
        weights,
        annotations,
        images,
        batch_size=args.batch_size,
        inference=args.inference,
    )
    if rank != 0:
        return {}
    figures = report(args, save_results_file(weights, results, annotations, images, out), out)
    print_line("detections", out / "results.json")
    return figures | {"results": out / "results.json"}


def find_data(args: Args) -> tuple[Path, Path]:
    """Return the annotations and the folder of the images.

    Raises:
        ValueError: if they are neither given nor recorded with the detector or the results.
    """
    images = Path(args.images)
    beside = images.parent / "annotations" / f"instances_{images.name}.json"
    if args.annotations and (args.images or args.results):
        return Path(args.annotations), images
    if args.images and beside.is_file():
        return beside, images
    trained_on = read_run_data(Path(args.weights or args.results).parent / "config.yaml")
    if args.images or trained_on is None:
        missing = "annotations=..." if args.images or args.results else "images=... annotations=..."
        raise ValueError(f"give {missing}, the ground truth of the images in COCO format")
    root = Path(trained_on.root)
    return (
        Path(args.annotations or root / trained_on.val_annotations),
        root / trained_on.val_images,
    )


def read_run_data(config: Path) -> DetectionDataConfig | None:
    """Return the data set in the ``config.yaml`` of a detector training; None without one."""
    if not config.is_file():
        return None
    data = OmegaConf.select(OmegaConf.load(config), "data")
    return None if data is None else DetectionDataConfig(**data)


def report(args: Args, scored: DetectionsWithTruth, out: Path) -> dict[str, Any]:
    """Write, print and return the metrics of the task."""
    from backbone.io.text_tables import text_table
    from detection.evaluation.localization import describe_localization
    from detection.evaluation.report import ReportOptions, class_rows, describe_errors
    from detection.evaluation.summary import describe_metrics

    options = ReportOptions(
        backend=args.backend, score_threshold=args.score_threshold, plots=args.plots
    )
    if args.task == "localization":
        localization = scored.localize(out, options)
        figures = localization.to_dict()
        print(describe_localization(localization))
    else:
        evaluation = scored.report(out, options)
        figures = evaluation.metrics.to_dict() | {"errors": evaluation.errors.to_dict()}
        print(describe_metrics(evaluation.metrics))
        print(describe_errors(evaluation.errors))
        if args.per_class:
            print(f"\n{text_table(*class_rows(evaluation))}\n")
        if args.plots:
            figures["report"] = out / "report.html"
            print_line("report", figures["report"])
    print_line("metrics", out / "metrics.json")
    return figures | {"metrics": out / "metrics.json"}


if __name__ == "__main__":
    main()
