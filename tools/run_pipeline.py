r"""Run the full pipeline: search cells, pretrain backbones, train detectors, evaluate, compare.

nasdet run-pipeline experiment=quickstart     # the same as `make quickstart`
nasdet run-pipeline search.num_trials=200 pretrain.data_root=/data/imagenet \
    training.data.root=/data/coco

Stages that are complete, with the same settings on the same data, are skipped; an interrupted stage
resumes from its last checkpoint.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from _cli import Run, tool
from _logger_base import LoggerConfig
from _loggers import build_loggers, close_loggers, named_bar
from _output import print_line, print_stage
from backbone.config import PretrainConfig, require_at_least
from backbone.io.runtime import end_with_parent
from detection.data.shapes.config import ShapesConfig
from detection.engine.config import TrainDetectorConfig
from search.rewards.config import ProxyConfig
from search.study.config import SearchConfig

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

    from _loggers import RunLogger
    from detection.evaluation.summary import BackboneResult


@dataclass(kw_only=True, slots=True)
class Args:
    """Settings of ``run_pipeline``: those of every stage."""

    out: str
    """The run's folder; each stage has a folder of its own in it."""
    search: SearchConfig
    """The search for cells."""
    reward: ProxyConfig
    """The proxy training that rewards a genotype."""
    num_cells: int
    """N of the backbone that is built from the cells."""
    first_filters: int
    """Filters of the cells in its first stack, a multiple of 4; determines F, unless ``size_of``
    does."""
    baselines: list[str]
    """Specs of human-designed backbones; the one with the nearest multiply-adds is trained in the
    same way for comparison. Empty: none."""
    pretrain: PretrainConfig
    """The pretraining; its ``backbone`` is filled in."""
    training: TrainDetectorConfig
    """The detector training; its ``backbone`` is filled in."""
    logger: LoggerConfig
    """Where metrics are logged."""
    size_of: str = ""
    """Backbone spec whose multiply-adds the searched cells, and published cells among
    ``extra_backbones``, match as closely as a whole number of filters can."""
    extra_backbones: list[str] = field(default_factory=list)
    """Further backbones to train in the same way: specs, or published cells by their name alone,
    which are then as large as the searched ones."""
    num_parallel: int = 1
    """Backbones that are trained at the same time, each in a process with loggers of its own and an
    equal part of the CPU cores: small networks gain little from several threads."""
    demonstration: ShapesConfig | None = None
    """If given, demonstration data are generated first, in ``demonstration_root``."""
    demonstration_root: str = "data/shapes"
    """Folder of the demonstration data; the stages' data roots are below it."""

    def __post_init__(self) -> None:
        require_at_least(1, num_parallel=self.num_parallel)
        roots = {"reward": self.reward.data_root, "pretrain": self.pretrain.data_root}
        missing = [name for name, root in roots.items() if not root]
        if missing:
            raise ValueError(f"give {' '.join(f'{name}.data_root=...' for name in missing)}")


@dataclass(frozen=True, slots=True)
class PipelineRun:
    """Pretraining and detector training of one backbone."""

    name: str
    spec: str
    out: Path


@tool(
    Args,
    renamed={"rivals": "baselines", "also": "extra_backbones", "at_once": "num_parallel"},
)
def main(run: Run[Args]) -> None:
    start = time.monotonic()
    args, out = run.args, run.out
    if args.demonstration is not None:
        make_data(args.demonstration, Path(args.demonstration_root))
    cells, search_seconds = search(run, out / "search")

    runs = plan_runs(args, cells, out)
    results = train_all(args, runs, run.loggers)
    results[0].seconds["search"] = search_seconds
    write_report(args, out, runs, results)
    seconds = time.monotonic() - start
    run.report(
        cells=cells,
        backbones=[result.to_dict() for result in results],
        comparison=out / "comparison.json",
        report=out / "report.html",
        seconds=seconds,
    )
    print_line("report", out / "report.html", note=f"this run took {seconds:.0f} s")
    run.finish()


def make_data(config: ShapesConfig, root: Path) -> None:
    """Generate the demonstration data, unless they exist."""
    from detection.data.shapes.dataset import is_made, make_shapes_with_bar

    if is_made(config, root):
        print_line("demonstration data", "already there")
        return
    make_shapes_with_bar(config, root)


def search(run: Run[Args], out: Path) -> tuple[Path, float]:
    """Search for cells; return the file with the winner and the seconds of training."""
    from search.rewards.proxy import ProxyReward
    from search.study.study import TrialRecord, run_search

    def log(trial: TrialRecord) -> None:
        if trial.reward is not None:
            run.log_metrics({"reward": trial.reward}, step=trial.number)

    reward = ProxyReward(run.args.reward)
    result = run_search(run.args.search, out, reward=reward, on_trial=log)
    print_stage("search", result.describe(), result.seconds, skipped=result.skipped)
    run.log_images("cells", [out / "cells.png"])
    return result.path, result.seconds


def plan_runs(args: Args, cells: Path, out: Path) -> list[PipelineRun]:
    """Return the runs of all backbones, that of the searched cells first."""
    from backbone.cells.genotype import Genotype
    from backbone.cells.published import PUBLISHED
    from backbone.models.backbone import build_backbone
    from backbone.profile.complexity import measure_cost, sized_spec

    side, num_cells = args.training.data.shortest_side_px, args.num_cells
    genotype = Genotype.load(cells)

    def cost(spec: str) -> int:
        return measure_cost(build_backbone(spec), side_px=side).mult_adds

    def sized(name: str, genotype: Genotype, mult_adds: int) -> str:
        return sized_spec(name, genotype, depth=num_cells, mult_adds=mult_adds, side_px=side)

    filters = genotype.penultimate_filters(args.first_filters)
    spec = (
        sized(str(cells), genotype, cost(args.size_of))
        if args.size_of
        else f"{cells}:{num_cells}@{filters}"
    )
    runs, mult_adds = [PipelineRun("searched", spec, out / "searched")], cost(spec)
    if args.baselines:
        baseline = min(args.baselines, key=lambda s: abs(cost(s) - mult_adds))
        runs.append(PipelineRun(baseline, baseline, out / "baseline"))
    for name in args.extra_backbones:
        published = PUBLISHED.get(name)
        goal = cost(args.size_of) if args.size_of else mult_adds
        spec = sized(name, published, goal) if published else name
        runs.append(PipelineRun(spec, spec, out / re.sub(r"[^\w.-]+", "_", name)))
    return runs


def train_all(
    args: Args, runs: Sequence[PipelineRun], loggers: Sequence[RunLogger]
) -> list[BackboneResult]:
    """Train all backbones, ``args.num_parallel`` at a time."""
    num_parallel = min(args.num_parallel, len(runs))
    if num_parallel == 1:
        return [train(args, run, loggers, [named_bar(run.name)]) for run in runs]
    # spawn: a fork of a process whose libraries run threads may hang
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_parallel, spawn, initializer=end_with_parent) as pool:
        futures = [
            pool.submit(train_in_child, args, run, index % num_parallel, num_parallel)
            for index, run in enumerate(runs)
        ]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        failed = [error for future in done if (error := future.exception()) is not None]
        if failed:
            for child in multiprocessing.active_children():
                child.terminate()
            if isinstance(failed[0], BrokenProcessPool):
                raise ChildProcessError(
                    "a training's process ended without an exception: killed, out of memory, or a "
                    "fault of a library; run the same command again to resume from the last "
                    "checkpoints"
                ) from failed[0]
            raise failed[0]
        return [future.result() for future in futures]


def train_in_child(
    args: Args, run: PipelineRun, bar_position: int, num_parallel: int
) -> BackboneResult:
    """Train one backbone in a child process, with its part of the CPU cores."""
    import torch

    torch.set_num_threads(max((os.cpu_count() or 1) // num_parallel, 1))
    loggers = build_loggers(args.logger, run.out, settings=OmegaConf.structured(args))
    try:
        result = train(args, run, loggers, [named_bar(run.name, position=bar_position)])
    except SystemExit:
        # Lightning turns a SIGTERM into this; a pool's process would go on to its next run.
        os._exit(128 + signal.SIGTERM)
    close_loggers(loggers)
    return result


def train(
    args: Args, run: PipelineRun, loggers: Sequence[RunLogger], callbacks: Sequence[Callback]
) -> BackboneResult:
    """Pretrain a backbone, train a detector on it and return the result."""
    from backbone.models.backbone import build_backbone
    from backbone.profile.complexity import measure_cost
    from backbone.training.pretrain import run_pretraining
    from detection.engine.train import run_training
    from detection.engine.visualize import draw_showcase
    from detection.evaluation.summary import BackboneResult, headline

    name, spec, out = run.name, run.spec, run.out
    lightning_loggers = [logger.lightning for logger in loggers]
    pretrained = run_pretraining(
        replace(args.pretrain, backbone=spec),
        out / "pretrain",
        loggers=lightning_loggers,
        callbacks=callbacks,
    )
    accuracy = f"accuracy {100 * pretrained.accuracy:.1f} %"
    print_stage(f"pretrain {name}", accuracy, pretrained.seconds, skipped=pretrained.skipped)
    training = replace(args.training, backbone=str(pretrained.path))
    detector = run_training(
        training, out / "detector", loggers=lightning_loggers, callbacks=callbacks
    )
    picture = out / "detections.png"
    ap = f"AP {detector.metrics.ap:.1f}"
    print_stage(f"detector {name}", ap, detector.seconds, skipped=detector.skipped)
    if not (detector.skipped and picture.is_file()):
        draw_showcase(detector.path, detector.val, picture)
    metrics = {f"{name}/{key}": value for key, value in headline(detector.metrics).items()}
    for logger in loggers:
        logger.log_metrics(metrics)
        logger.log_images(f"{name}/detections", [picture])
    cost = measure_cost(build_backbone(spec), side_px=training.data.shortest_side_px)
    return BackboneResult(
        name=name if name == spec else f"{name} {spec.rpartition(':')[2]}",
        parameters=cost.parameters,
        mult_adds=cost.mult_adds,
        metrics=detector.metrics,
        seconds={"pretrain": pretrained.seconds, "detector": detector.seconds},
    )


def write_report(
    args: Args, out: Path, runs: Sequence[PipelineRun], results: Sequence[BackboneResult]
) -> None:
    """Write report.html and comparison.json, and print the table."""
    from backbone.io.files import write_json
    from backbone.io.html import Picture, Table, write_page
    from backbone.io.text_tables import text_table
    from detection.evaluation.summary import comparison_rows

    head, rows = comparison_rows(results)
    side = args.training.data.shortest_side_px
    note = (
        f"AP in percent on the validation images; parameters and multiply-adds of the backbone "
        f"at {side} x {side} pixels. One seed each: small differences may be chance."
    )
    parts: list[Table | Picture] = [
        Table("Comparison", head, rows, note),
        Picture("The searched cells", out / "search" / "cells.png"),
    ]
    for run, result in zip(runs, results, strict=True):
        parts.append(Picture(f"Detections: {result.name}", run.out / "detections.png"))
    write_json(out / "comparison.json", [result.to_dict() for result in results])
    write_page(
        out / "report.html",
        title="From search to mAP",
        lead="Cells were searched, stacked to a backbone, pretrained as a classifier and used in "
        "Faster R-CNN; the other backbones were trained in the same way.",
        parts=parts,
    )
    print(f"\n{text_table(head, rows)}\n")
    print_line("cells", out / "search" / "cells.png")


if __name__ == "__main__":
    main()
