r"""Say what moved AP between two evaluations.

Compares settings, figures, IoU thresholds, categories, kinds of error and images; writes
explanation.json. Takes folders of evaluate_detector, or their metrics.json; a training's folder
needs annotations as well.

python tools/explain_evaluation.py runs/before runs/after
python tools/explain_evaluation.py before=runs/detector after=runs/other/detector \
    annotations=data/shapes/detection/annotations/instances_val.json
"""

import hydra
from omegaconf import DictConfig

from _detection_schemas import ExplainEvaluation
from _entry import start_tool
from _run import plain_errors, start_run


@hydra.main(version_base=None, config_path="../conf", config_name="explain_evaluation")
def main(config: DictConfig) -> None:
    with plain_errors():
        from backbone.io.files import write_json
        from detection.data.coco import GroundTruth
        from detection.evaluation.compare import describe, explain
        from detection.evaluation.files import StoredEvaluation

        run = start_run(config)
        settings: ExplainEvaluation = run.settings
        truth = GroundTruth.load(settings.annotations) if settings.annotations else None
        before, after = (
            StoredEvaluation.load(path, truth=truth) for path in (settings.before, settings.after)
        )
        explanation = explain(before, after)
        path = run.out / "explanation.json"
        write_json(path, explanation.to_dict())
        run.finish()
        print(f"before: {before.path}\nafter: {after.path}\n")
        print(f"{describe(explanation, num_rows=settings.num_rows)}\n")
        print(f"all of it: {path}")


if __name__ == "__main__":
    start_tool(main, about=__doc__)
