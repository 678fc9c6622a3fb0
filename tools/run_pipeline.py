r"""Go the whole road: search cells, pretrain a backbone, train a detector, evaluate, compare.

python tools/run_pipeline.py experiment=quickstart     # what `make quickstart` runs
python tools/run_pipeline.py search.num_trials=200 pretrain.data_root=/data/imagenet \
    training.data.root=/data/coco

Every stage that is already done, with the same arguments on the same data, is skipped; one that
was interrupted goes on from its last checkpoint.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig, OmegaConf

from _entry import start_tool
from _run import build_loggers, finish_loggers, log_images, named_bar, plain_errors, start_run
from _schemas import RunPipeline
from search.execution.processes import end_with_parent

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.loggers import Logger

    from detection.evaluation.summary import BackboneResult


@hydra.main(version_base=None, config_path="../conf", config_name="run_pipeline")
def main(config: DictConfig) -> None:
    with plain_errors():
        run = start_run(config)
        run_pipeline(run.settings, run.out, run.loggers)
        run.finish()


def run_pipeline(settings: RunPipeline, out: Path, loggers: Sequence[Logger]) -> None:
    start = time.monotonic()
    if settings.demonstration is not None:
        _make_data(settings)
    cells, search_seconds = _search(settings, out / "search", loggers)

    roads = _roads(settings, cells, out)
    contestants = _train_all(settings, roads, loggers)
    contestants[0].seconds["search"] = search_seconds
    _report(settings, out, roads, contestants)
    print(f"report: {out / 'report.html'}  (this run took {time.monotonic() - start:.0f} s)")


def _make_data(settings: RunPipeline) -> None:
    from _shapes import is_made, make_shapes_with_bar

    assert settings.demonstration is not None
    root = Path(settings.demonstration_root)
    if is_made(settings.demonstration, root):
        print("demonstration data: already there")
        return
    make_shapes_with_bar(settings.demonstration, root)


def _search(settings: RunPipeline, out: Path, loggers: Sequence[Logger]) -> tuple[Path, float]:
    from search.rewards.proxy import ProxyReward
    from search.study.study import TrialRecord, search_cells

    def log(trial: TrialRecord) -> None:
        for logger in loggers:
            if trial.reward is not None:
                logger.log_metrics({"reward": trial.reward}, step=trial.number)

    result = search_cells(settings.search, out, reward=ProxyReward(settings.reward), on_trial=log)
    _say("search", result.describe(), result.seconds, skipped=result.skipped)
    log_images(loggers, "cells", [out / "cells.png"])
    return result.path, result.seconds


def _roads(settings: RunPipeline, cells: Path, out: Path) -> list[_Road]:
    """Return the ways of all backbones, the searched one's first."""
    from backbone.cells.genotype import Genotype
    from backbone.cells.published import PUBLISHED
    from backbone.models.backbone import build_backbone
    from backbone.profile.complexity import measure_cost, sized_spec

    side, num_cells = settings.training.data.shortest_side_px, settings.num_cells
    genotype = Genotype.load(cells)

    def cost(spec: str) -> int:
        return measure_cost(build_backbone(spec), side_px=side).mult_adds

    def sized(name: str, genotype: Genotype, mult_adds: int) -> str:
        return sized_spec(name, genotype, depth=num_cells, mult_adds=mult_adds, side_px=side)

    filters = genotype.penultimate_filters(settings.first_filters)
    spec = (
        sized(str(cells), genotype, cost(settings.size_of))
        if settings.size_of
        else f"{cells}:{num_cells}@{filters}"
    )
    roads, wanted = [_Road("searched", spec, out / "searched")], cost(spec)
    if settings.rivals:
        rival = min(settings.rivals, key=lambda s: abs(cost(s) - wanted))
        roads.append(_Road(rival, rival, out / "rival"))
    for name in settings.also:
        published = PUBLISHED.get(name)
        goal = cost(settings.size_of) if settings.size_of else wanted
        spec = sized(name, published, goal) if published else name
        roads.append(_Road(spec, spec, out / re.sub(r"[^\w.-]+", "_", name)))
    return roads


@dataclass(frozen=True, slots=True)
class _Road:
    """One backbone's way from its spec to its AP."""

    name: str
    spec: str
    out: Path


def _train_all(
    settings: RunPipeline, roads: Sequence[_Road], loggers: Sequence[Logger]
) -> list[BackboneResult]:
    """Go every road, ``settings.at_once`` at a time."""
    at_once = min(settings.at_once, len(roads))
    if at_once == 1:
        return [_train(settings, road, loggers, [named_bar(road.name)]) for road in roads]
    # spawn: a fork of a process whose libraries run threads may hang
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_once, spawn, initializer=end_with_parent) as pool:
        futures = [
            pool.submit(_train_in_child, settings, road, lane % at_once, at_once)
            for lane, road in enumerate(roads)
        ]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        failed = [error for future in done if (error := future.exception()) is not None]
        if failed:
            for child in multiprocessing.active_children():
                child.terminate()
            if isinstance(failed[0], BrokenProcessPool):
                raise ChildProcessError(
                    "a training's process ended without an exception: killed, out of memory, or a "
                    "fault of a library; the same command goes on from the last checkpoints"
                ) from failed[0]
            raise failed[0]
        return [future.result() for future in futures]


def _train_in_child(settings: RunPipeline, road: _Road, lane: int, at_once: int) -> BackboneResult:
    """Go one road with a share of the cores; its progress bar has the ``lane``-th line."""
    import torch

    torch.set_num_threads(max((os.cpu_count() or 1) // at_once, 1))
    loggers = build_loggers(settings.logger, road.out, settings=OmegaConf.structured(settings))
    try:
        contestant = _train(settings, road, loggers, [named_bar(road.name, lane=lane)])
    except SystemExit:
        # Lightning makes one of a SIGTERM, after which a pool's process would go its next road.
        os._exit(128 + signal.SIGTERM)
    finish_loggers(loggers)
    return contestant


def _train(
    settings: RunPipeline, road: _Road, loggers: Sequence[Logger], callbacks: Sequence[Callback]
) -> BackboneResult:
    """Pretrain a backbone, train a detector on it and put down what came out."""
    from backbone.models.backbone import build_backbone
    from backbone.profile.complexity import measure_cost
    from backbone.training.pretrain import pretrain_backbone
    from detection.engine.showcase import draw_showcase
    from detection.engine.train import train_detector
    from detection.evaluation.summary import BackboneResult, headline

    name, spec, out = road.name, road.spec, road.out
    pretrained = pretrain_backbone(
        replace(settings.pretrain, backbone=spec),
        out / "pretrain",
        loggers=loggers,
        callbacks=callbacks,
    )
    accuracy = f"accuracy {100 * pretrained.accuracy:.1f} %"
    _say(f"pretrain {name}", accuracy, pretrained.seconds, skipped=pretrained.skipped)
    training = replace(settings.training, backbone=str(pretrained.path))
    detector = train_detector(training, out / "detector", loggers=loggers, callbacks=callbacks)
    for logger in loggers:
        logger.log_metrics({f"{name}/{key}": v for key, v in headline(detector.metrics).items()})
    ap = f"AP {detector.metrics.ap:.1f}"
    _say(f"detector {name}", ap, detector.seconds, skipped=detector.skipped)
    picture = out / "detections.png"
    if not (detector.skipped and picture.is_file()):
        draw_showcase(detector.path, detector.val, picture)
    log_images(loggers, f"{name}/detections", [picture])
    cost = measure_cost(build_backbone(spec), side_px=training.data.shortest_side_px)
    return BackboneResult(
        name=name if name == spec else f"{name} {spec.rpartition(':')[2]}",
        parameters=cost.parameters,
        mult_adds=cost.mult_adds,
        metrics=detector.metrics,
        seconds={"pretrain": pretrained.seconds, "detector": detector.seconds},
    )


def _report(
    settings: RunPipeline, out: Path, roads: Sequence[_Road], contestants: Sequence[BackboneResult]
) -> None:
    from backbone.io.files import write_json
    from backbone.io.html import Picture, Table, write_page
    from backbone.io.text_tables import text_table
    from detection.evaluation.summary import comparison_rows

    head, rows = comparison_rows(contestants)
    side = settings.training.data.shortest_side_px
    note = (
        f"AP in percent on the validation images; parameters and multiply-adds of the backbone "
        f"at {side} x {side} pixels. One seed each: small differences may be chance."
    )
    parts: list[Table | Picture] = [
        Table("Comparison", head, rows, note),
        Picture("The cells found", out / "search" / "cells.png"),
    ]
    for road, contestant in zip(roads, contestants, strict=True):
        parts.append(Picture(f"Detections: {contestant.name}", road.out / "detections.png"))
    write_json(out / "comparison.json", [c.to_dict() for c in contestants])
    write_page(
        out / "report.html",
        title="From search to mAP",
        lead="Cells were searched, stacked to a backbone, pretrained as a classifier and put under "
        "Faster R-CNN; the other backbones went the same way.",
        parts=parts,
    )
    print(f"\n{text_table(head, rows)}\n\ncells:  {out / 'search' / 'cells.png'}")


def _say(stage: str, figure: str, seconds: float, *, skipped: bool) -> None:
    print(f"{stage}: {figure}  ({'already there' if skipped else f'{seconds:.0f} s'})", flush=True)


if __name__ == "__main__":
    start_tool(main, about=__doc__)
