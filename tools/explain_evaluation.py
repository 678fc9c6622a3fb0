r"""Explain the change of AP between two evaluations.

Compares settings, metrics, IoU thresholds, categories, error types and images; writes
explanation.json. Takes folders of evaluate_detector, or their metrics.json; a training's folder
needs annotations as well.

nasdet explain-evaluation runs/before runs/after
nasdet explain-evaluation before=runs/detector after=runs/other/detector \
    annotations=data/shapes/detection/annotations/instances_val.json
"""

from __future__ import annotations

from dataclasses import dataclass

from _cli import Run, tool
from _output import print_line
from backbone.config import require_at_least


@dataclass(kw_only=True, slots=True)
class Args:
    """Settings of ``explain_evaluation``."""

    out: str
    """The folder for ``explanation.json``."""
    before: str
    """A folder that ``evaluate_detector`` wrote, or the ``metrics.json`` in it."""
    after: str
    """The evaluation to compare with it, likewise."""
    annotations: str = ""
    """COCO JSON with the ground truth, for folders that have ``results.json`` but no
    ``error_kinds.json``, such as a training's."""
    num_rows: int = 10
    """Categories and images to print; the file has all."""

    def __post_init__(self) -> None:
        require_at_least(1, num_rows=self.num_rows)


@tool(Args, unnamed=("before", "after"))
def main(run: Run[Args]) -> None:
    from backbone.io.files import write_json
    from detection.data.coco import GroundTruth
    from detection.evaluation.compare import describe, explain
    from detection.evaluation.files import StoredEvaluation

    args = run.args
    truth = GroundTruth.load(args.annotations) if args.annotations else None
    before, after = (StoredEvaluation.load(path, truth=truth) for path in (args.before, args.after))
    explanation = explain(before, after)
    path = run.out / "explanation.json"
    write_json(path, explanation.to_dict())
    run.finish()
    run.report(before=before.path, after=after.path, **explanation.to_dict(), explanation=path)
    print_line("before", before.path)
    print_line("after", after.path)
    print(f"\n{describe(explanation, num_rows=args.num_rows)}\n")
    print_line("all of it", path)


if __name__ == "__main__":
    main()
