r"""Compute COCO mAP of a detector, or of a results file that any program wrote.

Prints COCO's figures and writes metrics.json, error_kinds.json, confusion.json, images.json,
pictures and report.html; of a detector also results.json, its detections. Under torchrun the
processes share the images.

python tools/evaluate_detector.py weights=runs/detector/detector.safetensors \
    images=data/shapes/detection/val
python tools/evaluate_detector.py results=runs/detector/results.json
python tools/evaluate_detector.py results=runs/detector/results.json task=localization
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from _detection_schemas import EvaluateDetector
from _entry import start_tool
from _run import plain_errors, start_run

if TYPE_CHECKING:
    from detection.engine.scoring import DetectionsWithTruth


@hydra.main(version_base=None, config_path="../conf", config_name="evaluate_detector")
def main(config: DictConfig) -> None:
    with plain_errors():
        run = start_run(config)
        from backbone.io.runtime import process_group

        with process_group() as rank:
            evaluate(run.settings, run.out, rank=rank)
            if rank == 0:
                run.finish()


def evaluate(settings: EvaluateDetector, out: Path, *, rank: int) -> None:
    from detection.data.coco import CocoTable
    from detection.engine.scoring import detect_with_file, load_results_file, save_results_file

    annotations = CocoTable.load(settings.annotations, bad_boxes=settings.bad_boxes)
    if settings.results:
        if rank == 0:
            results_path, own = Path(settings.results), out / "results.json"
            report(settings, load_results_file(results_path, annotations), out)
            if own.resolve() != results_path.resolve():
                own.unlink(missing_ok=True)  # of a detector that was evaluated here before
        return
    weights, images = Path(settings.weights), Path(settings.images)
    results = detect_with_file(
        weights,
        annotations,
        images,
        batch_size=settings.batch_size,
        inference=settings.inference,
    )
    if rank == 0:
        report(settings, save_results_file(weights, results, annotations, images, out), out)
        print(f"detections: {out / 'results.json'}")


def report(settings: EvaluateDetector, scored: DetectionsWithTruth, out: Path) -> None:
    from backbone.io.text_tables import text_table
    from detection.evaluation.localization import describe_localization
    from detection.evaluation.report import ReportOptions, class_rows, describe_errors
    from detection.evaluation.summary import describe_metrics

    options = ReportOptions(
        backend=settings.backend, score_threshold=settings.score_threshold, plots=settings.plots
    )
    if settings.task == "localization":
        print(describe_localization(scored.localize(out, options)))
    else:
        evaluation = scored.report(out, options)
        print(describe_metrics(evaluation.metrics))
        print(describe_errors(evaluation.errors))
        if settings.per_class:
            print(f"\n{text_table(*class_rows(evaluation))}\n")
        if settings.plots:
            print(f"report: {out / 'report.html'}")
    print(f"metrics: {out / 'metrics.json'}")


if __name__ == "__main__":
    start_tool(main, about=__doc__)
