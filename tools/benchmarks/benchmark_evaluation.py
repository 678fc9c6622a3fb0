r"""Measure the speed and memory of COCO evaluation, against pycocotools used as documented.

Generates data and gives each entry a process of its own, which reads both files, so that its peak
memory is its own. Writes benchmark.json and reports the greatest difference between the metrics.

nasdet benchmark evaluation               # 5,000 images x 100 detections
nasdet benchmark evaluation num_images=500 rounds=3
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # modules that all tools share

from _cli import Run, tool
from _output import print_line
from backbone.config import require_at_least

Figures = dict[str, Any]
"""Seconds by step, peak memory, COCO's twelve metrics in percent."""
REFERENCE = "pycocotools as documented"


@dataclass(kw_only=True, slots=True)
class Args:
    """Settings of ``benchmark_evaluation``."""

    out: str
    """The folder for ``benchmark.json`` and the generated data."""
    num_images: int = 5000
    """Images to generate."""
    num_categories: int = 80
    """Categories; each image has objects of up to three."""
    detections_per_image: int = 100
    """Detections in every image; COCO evaluates at most 100 per category."""
    rounds: int = 1
    """Runs of each entry; the median counts."""
    seed: int = 0
    """Seed of the generated data."""

    def __post_init__(self) -> None:
        for name in ("num_images", "num_categories", "detections_per_image", "rounds"):
            require_at_least(1, **{name: getattr(self, name)})


@tool(Args)
def main(run: Run[Args]) -> None:
    from _harness import machine, measure
    from backbone.io.files import write_json
    from backbone.io.text_tables import text_table

    truth, results = make_files(run.args, run.out)
    entries = {name: partial(run_in_process, entry, truth, results) for name, entry in ENTRIES}
    rounds = measure(entries, rounds=run.args.rounds)
    figures = {name: summarize(measured) for name, measured in rounds.items()}
    difference = max(
        abs(one - other)
        for f in figures.values()
        for one, other in zip(f["metrics"], figures[REFERENCE]["metrics"], strict=True)
    )
    path = run.out / "benchmark.json"
    record = machine() | {"entries": figures, "greatest_difference": difference}
    write_json(path, record)
    run.report(**record, benchmark=path)
    run.finish()
    print(f"\n{text_table(*table(figures))}\n")
    print("evaluation: from the list of detections and the ground truth's file to the metrics")
    print("file to metrics: also reads the file of detections; peak: of the whole process")
    print(f"the entries' metrics in percent differ by at most {difference:.1e}")
    print_line("figures", path)


def make_files(args: Args, out: Path) -> tuple[Path, Path]:
    """Write ground truth and detections, some of them near objects; return both files."""
    import numpy as np

    from backbone.io.files import write_json

    rng = np.random.default_rng(args.seed)
    categories, per_image = args.num_categories, args.detections_per_image
    objects: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for image in range(1, args.num_images + 1):
        kinds = rng.integers(1, categories + 1, 3)
        count = int(rng.integers(0, 15))
        boxes = np.hstack([rng.uniform(0, 340, (count, 2)), rng.uniform(8, 300, (count, 2))])
        labels = rng.choice(kinds, count)
        for box, label in zip(boxes.round(2).tolist(), labels.tolist(), strict=True):
            row = {"image_id": image, "category_id": label, "bbox": box, "iscrowd": 0}
            objects.append({"id": len(objects) + 1, "area": box[2] * box[3], **row})
        near = min(2 * count, per_image)
        guesses = np.hstack(
            [rng.uniform(0, 340, (per_image, 2)), rng.uniform(8, 300, (per_image, 2))]
        )
        guessed = rng.integers(1, categories + 1, per_image)
        if count:
            guesses[:near] = np.tile(boxes, (2, 1))[:near] + rng.normal(0, 6, (near, 4))
            guessed[:near] = np.tile(labels, 2)[:near]
        guesses[:, 2:] = np.maximum(guesses[:, 2:], 1)
        rows = zip(
            guesses.round(2).tolist(), guessed.tolist(), rng.random(per_image).round(4).tolist(),
            strict=True,
        )  # fmt: skip
        detections += [
            {"image_id": image, "category_id": label, "bbox": box, "score": score}
            for box, label, score in rows
        ]
    truth = {
        "images": [{"id": image} for image in range(1, args.num_images + 1)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, categories + 1)],
        "annotations": objects,
    }
    paths = out / "truth.json", out / "results.json"
    for path, data in zip(paths, (truth, detections), strict=True):
        write_json(path, data, indent=None)
    return paths


def run_in_process(entry: Callable[[Path, Path], Figures], truth: Path, results: Path) -> Figures:
    """Run an entry in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(entry, (truth, results))


def run_hotcoco(truth: Path, results: Path) -> Figures:
    """Compute the metrics as ``evaluate_detector`` does, from both files and from a list."""
    from detection.data.coco import GroundTruth
    from detection.evaluation.metrics import FIGURES, compute_coco_metrics
    from detection.evaluation.tables import DetectionTable

    start = time.perf_counter()
    objects = GroundTruth.load(truth)
    metrics = compute_coco_metrics(objects, DetectionTable.load(results, objects))
    whole = time.perf_counter() - start
    detections = json.loads(results.read_bytes())
    start = time.perf_counter()
    compute_coco_metrics(truth, detections)
    seconds = time.perf_counter() - start
    return {
        "evaluation": seconds,
        "file_to_metrics": whole,
        "peak_mb": _peak_mb(),
        "metrics": [getattr(metrics, name) for name in FIGURES],
    }


def run_pycocotools_as_documented(truth: Path, results: Path) -> Figures:
    """Compute the metrics as the documentation of pycocotools shows."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return _run_as_documented(truth, results, COCO, COCOeval)


def run_hotcoco_as_documented(truth: Path, results: Path) -> Figures:
    """Compute the metrics as the documentation of hotcoco shows."""
    from hotcoco import COCO, COCOeval

    return _run_as_documented(truth, results, COCO, COCOeval)


def _run_as_documented(truth: Path, results: Path, coco: Any, evaluator: Any) -> Figures:
    start = time.perf_counter()
    detections = json.loads(results.read_bytes())
    reading = time.perf_counter() - start
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        index = coco(str(truth))
        evaluation = evaluator(index, index.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    seconds = time.perf_counter() - start
    return {
        "evaluation": seconds,
        "file_to_metrics": reading + seconds,
        "peak_mb": _peak_mb(),
        "metrics": [100 * float(value) for value in evaluation.stats[:12]],
    }


ENTRIES = (
    ("hotcoco", run_hotcoco),
    ("hotcoco as documented", run_hotcoco_as_documented),
    (REFERENCE, run_pycocotools_as_documented),
)
"""Names and functions of what is compared."""


def _peak_mb() -> float:
    """Return the peak memory of this process in MB, without that of its parent."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text(encoding="ascii").splitlines()
        (line,) = (line for line in lines if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def summarize(rounds: list[Figures]) -> Figures:
    """Return the median of each measurement."""
    names = ("evaluation", "file_to_metrics", "peak_mb")
    medians = {name: statistics.median(r[name] for r in rounds) for name in names}
    return medians | {"metrics": rounds[0]["metrics"]}


def table(figures: dict[str, Figures]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the table."""
    head = ["backend", "evaluation s", "ratio", "file to metrics s", "ratio", "peak MB"]
    slow = figures[REFERENCE]
    rows = [
        [
            name,
            f"{f['evaluation']:.2f}",
            f"{slow['evaluation'] / f['evaluation']:.1f}",
            f"{f['file_to_metrics']:.2f}",
            f"{slow['file_to_metrics'] / f['file_to_metrics']:.1f}",
            f"{f['peak_mb']:.0f}",
        ]
        for name, f in figures.items()
    ]
    return head, rows


if __name__ == "__main__":
    main()
