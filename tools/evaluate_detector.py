r"""Compute COCO mAP of a detector, or of a results file that any program wrote.

Prints COCO's figures and writes metrics.json; of a detector also results.json, its detections.

python tools/evaluate_detector.py weights=runs/detector/detector.safetensors \
    images=data/shapes/detection/val
python tools/evaluate_detector.py results=runs/detector/results.json
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from _detection_schemas import EvaluateDetector
from _entry import start_tool
from _run import plain_errors, start_run


@hydra.main(version_base=None, config_path="../conf", config_name="evaluate_detector")
def main(config: DictConfig) -> None:
    with plain_errors():
        run = start_run(config)
        evaluate(run.settings, run.out)
        run.finish()


def evaluate(settings: EvaluateDetector, out: Path) -> None:
    from detection.annotations import CocoAnnotations
    from detection.comparison import describe_metrics
    from detection.inference import score_detector_file, score_results_file

    annotations = CocoAnnotations.load(settings.annotations, bad_boxes=settings.bad_boxes)
    if settings.results:
        metrics = score_results_file(Path(settings.results), annotations, out)
    else:
        metrics = score_detector_file(
            Path(settings.weights),
            annotations,
            Path(settings.images),
            out,
            batch_size=settings.batch_size,
        )
    print(describe_metrics(metrics, per_class=True))
    if settings.weights:
        print(f"detections: {out / 'results.json'}")
    print(f"metrics: {out / 'metrics.json'}")


if __name__ == "__main__":
    start_tool(main, about=__doc__)
