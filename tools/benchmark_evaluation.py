r"""Measure how fast COCO's figures are computed, against pycocotools as documented, and the memory.

Makes data, and gives each contender a process of its own, which reads both files, so that its peak
memory is its own. Writes benchmark.json and says how far the figures are apart.

python tools/benchmark_evaluation.py                          # 5,000 images x 100 detections
python tools/benchmark_evaluation.py num_images=500 rounds=3
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from _detection_schemas import BenchmarkEvaluation
from _entry import start_tool
from _run import plain_errors, start_run

Figures = dict[str, Any]
"""Seconds by step, peak memory, COCO's twelve figures in percent."""
REFERENCE = "pycocotools as documented"


@hydra.main(version_base=None, config_path="../conf", config_name="benchmark_evaluation")
def main(config: DictConfig) -> None:
    with plain_errors():
        run = start_run(config)
        settings: BenchmarkEvaluation = run.settings
        from backbone.io.files import write_json
        from backbone.io.text_tables import text_table

        truth, results = make_files(settings, run.out)
        measured = measure(truth, results, settings.rounds)
        figures = {name: summarize(rounds) for name, rounds in measured.items()}
        apart = max(
            abs(one - other)
            for f in figures.values()
            for one, other in zip(f["figures"], figures[REFERENCE]["figures"], strict=True)
        )
        path = run.out / "benchmark.json"
        write_json(path, {"contenders": figures, "figures_apart": apart})
        run.finish()
        print(f"\n{text_table(*table(figures))}\n")
        print("evaluation: from the list of detections and the truth's file to the figures")
        print("file to figures: also reads the file of detections; peak: of the whole process")
        print(f"the contenders' figures in percent are at most {apart:.1e} apart")
        print(f"figures: {path}")


def make_files(settings: BenchmarkEvaluation, out: Path) -> tuple[Path, Path]:
    """Write truth and detections, half of them near objects; return both files."""
    import numpy as np

    from backbone.io.files import write_json

    rng = np.random.default_rng(settings.seed)
    categories, per_image = settings.num_categories, settings.detections_per_image
    objects: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image in range(1, settings.num_images + 1):
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
        found += [
            {"image_id": image, "category_id": label, "bbox": box, "score": score}
            for box, label, score in rows
        ]
    truth = {
        "images": [{"id": image} for image in range(1, settings.num_images + 1)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, categories + 1)],
        "annotations": objects,
    }
    paths = out / "truth.json", out / "results.json"
    for path, data in zip(paths, (truth, found), strict=True):
        write_json(path, data, indent=None)
    return paths


def measure(truth: Path, results: Path, rounds: int) -> dict[str, list[Figures]]:
    """Run all contenders in turns, each in a fresh process."""
    from tqdm import tqdm

    contenders: dict[str, Callable[[Path, Path], Figures]] = {
        "hotcoco": run_hotcoco,
        "hotcoco as documented": run_hotcoco_as_documented,
        REFERENCE: run_pycocotools_as_documented,
    }
    measured: dict[str, list[Figures]] = {name: [] for name in contenders}
    context = multiprocessing.get_context("spawn")
    with tqdm(total=rounds * len(contenders), desc="benchmark", unit="run") as bar:
        for _ in range(rounds):
            for name, contender in contenders.items():
                with context.Pool(1) as pool:
                    measured[name].append(pool.apply(contender, (truth, results)))
                bar.update()
    return measured


def run_hotcoco(truth: Path, results: Path) -> Figures:
    """Compute the figures as ``evaluate_detector`` does, of both files and of a list in memory."""
    from detection.data.coco import GroundTruth
    from detection.evaluation.metrics import FIGURES, compute_coco_metrics
    from detection.evaluation.tables import DetectionTable

    start = time.perf_counter()
    objects = GroundTruth.load(truth)
    metrics = compute_coco_metrics(objects, DetectionTable.load(results, objects))
    whole = time.perf_counter() - start
    found = json.loads(results.read_bytes())
    start = time.perf_counter()
    compute_coco_metrics(truth, found)
    seconds = time.perf_counter() - start
    return {
        "evaluation": seconds,
        "file_to_figures": whole,
        "peak_mb": _peak_mb(),
        "figures": [getattr(metrics, name) for name in FIGURES],
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
    found = json.loads(results.read_bytes())
    reading = time.perf_counter() - start
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        index = coco(str(truth))
        evaluation = evaluator(index, index.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    seconds = time.perf_counter() - start
    return {
        "evaluation": seconds,
        "file_to_figures": reading + seconds,
        "peak_mb": _peak_mb(),
        "figures": [100 * float(value) for value in evaluation.stats[:12]],
    }


def _peak_mb() -> float:
    """Return the most memory that this process held, without that of the one that started it."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text(encoding="ascii").splitlines()
        (line,) = (line for line in lines if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def summarize(rounds: list[Figures]) -> Figures:
    """Return the median of each measure."""
    names = ("evaluation", "file_to_figures", "peak_mb")
    medians = {name: statistics.median(r[name] for r in rounds) for name in names}
    return medians | {"figures": rounds[0]["figures"]}


def table(figures: dict[str, Figures]) -> tuple[list[str], list[list[str]]]:
    """Return a table's head and rows."""
    head = ["backend", "evaluation s", "ratio", "file to figures s", "ratio", "peak MB"]
    slow = figures[REFERENCE]
    rows = [
        [
            name,
            f"{f['evaluation']:.2f}",
            f"{slow['evaluation'] / f['evaluation']:.1f}",
            f"{f['file_to_figures']:.2f}",
            f"{slow['file_to_figures'] / f['file_to_figures']:.1f}",
            f"{f['peak_mb']:.0f}",
        ]
        for name, f in figures.items()
    ]
    return head, rows


if __name__ == "__main__":
    start_tool(main, about=__doc__)
