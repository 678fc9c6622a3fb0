r"""Measure how fast detector trainings are, against the engine's own plain training loop.

Writes benchmark.json. Everything is measured in one run, in turns; nothing else should be running.
Model, weights, images and optimizer are the same, without augmentation; the first steps, in which
a process warms up, are left out.

python tools/benchmark_training.py                                      # demonstration data
python tools/benchmark_training.py size=full data=coco data.root=/data/coco num_workers=4 \
    batch_size=2 backbone=timm:resnet50 engines=[detectron2]
"""

from __future__ import annotations

import json
import logging
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from _detection_schemas import BenchmarkTraining
from _entry import start_tool
from _run import plain_errors, start_run

if TYPE_CHECKING:
    from detection.engine.config import TrainDetectorConfig
    from detection.models.config import DetectorConfig

Measure = Callable[[], tuple[list[float], float]]
"""Trains once; returns the moments at which steps ended, in seconds, and the last loss."""


@hydra.main(version_base=None, config_path="../conf", config_name="benchmark_training")
def main(config: DictConfig) -> None:
    with plain_errors():
        run = start_run(config)
        settings: BenchmarkTraining = run.settings
        from backbone.io.files import write_text
        from backbone.io.text_tables import text_table

        hide_announcements()
        contenders: dict[str, Measure] = {}
        for engine, detector in chosen_engines(settings).items():
            training = training_of(settings, detector)
            contenders[f"{engine}: plain loop"] = plain_measure(training)
            contenders[f"{engine}: ours"] = our_measure(training, run.out)
        figures = summarize(measure(contenders, settings.rounds), settings)
        path = run.out / "benchmark.json"
        write_text(path, json.dumps({"figures": figures, **machine()}, indent=1) + "\n")
        run.finish()
        rows = [
            (name, f"{f['images_per_second']:.2f}", f"{f['ratio']:.3f}", f"{f['loss']:.3f}")
            for name, f in figures.items()
        ]
        print(f"\n{text_table(('training', 'images/s', 'ratio', 'last loss'), rows)}\n")
        print(f"ratio: to the engine's plain loop; median of {settings.rounds} rounds")
        print(f"figures: {path}")


def hide_announcements() -> None:
    """Leave out what the libraries say of every training's start."""
    import lightning.pytorch  # noqa: F401  # sets its logging level when imported

    for name in ("lightning.pytorch", "lightning.fabric", "detectron2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def chosen_engines(settings: BenchmarkTraining) -> dict[str, DetectorConfig]:
    """Return each engine's config; by default those of all engines that are installed."""
    from importlib.util import find_spec

    from detection.models.config import Detectron2FasterRCNNConfig, TorchvisionFasterRCNNConfig

    kinds: dict[str, type[DetectorConfig]] = {
        "torchvision": TorchvisionFasterRCNNConfig,
        "detectron2": Detectron2FasterRCNNConfig,
    }
    if type(settings.detector) not in kinds.values():
        name = type(settings.detector).__name__
        raise ValueError(f"only Faster R-CNN can be measured, not {name}; see --help")
    names = settings.engines or [name for name in kinds if find_spec(name)]
    return {name: kinds[name](**asdict(settings.detector)) for name in names}


def training_of(settings: BenchmarkTraining, detector: DetectorConfig) -> TrainDetectorConfig:
    """Return the training that is measured: SGD as both libraries' scripts set it."""
    from detection.config import DetectorRecipe
    from detection.engine.config import TrainDetectorConfig

    steps = settings.warmup_steps + settings.steps
    return TrainDetectorConfig(
        backbone=settings.backbone,
        detector=detector,
        data=settings.data,
        recipe=DetectorRecipe(
            iterations=steps,
            batch_size=settings.batch_size,
            optimizer="sgd",
            learning_rate=settings.learning_rate,
            schedule="multistep",
            lr_milestones=[steps - 1],
            warmup_iterations=settings.warmup_steps,
            gradient_clip=0.0,
            horizontal_flip=False,
            checkpoint_every=steps + 1,
        ),
        seed=settings.seed,
        num_workers=settings.num_workers,
        accelerator=settings.accelerator,
    )


def plain_measure(training: TrainDetectorConfig) -> Measure:
    """Return the library's own training as a contender."""
    from _plain_training import plain_steps

    def run() -> tuple[list[float], float]:
        moments, loss = [], float("nan")
        for loss in plain_steps(training):  # noqa: B007  # the last one is shown
            moments.append(time.perf_counter())
        return moments, loss

    return run


def our_measure(training: TrainDetectorConfig, out: Path) -> Measure:
    """Return ``train_detector`` as a contender, with bar and all; it evaluates one image."""
    from lightning.pytorch.callbacks import Callback

    from detection.engine.train import train_detector

    class Clock(Callback):
        def __init__(self) -> None:
            self.moments: list[float] = []
            self.loss = float("nan")

        def on_train_batch_end(self, _: Any, __: Any, outputs: Any, *___: Any) -> None:
            self.loss = outputs["loss"].item()
            self.moments.append(time.perf_counter())

    def run() -> tuple[list[float], float]:
        clock, folder = Clock(), out / "training"
        shutil.rmtree(folder, ignore_errors=True)
        data = replace(
            training.data,
            val_annotations=str(write_one_image(training, folder)),
            val_images=training.data.train_images,
        )
        train_detector(replace(training, data=data), folder, callbacks=[clock])
        shutil.rmtree(folder)
        return clock.moments, clock.loss

    return run


def write_one_image(training: TrainDetectorConfig, folder: Path) -> Path:
    """Write annotations with the first training image alone, to be validated on."""
    from backbone.io.files import write_json

    data = training.data
    whole = json.loads((Path(data.root) / data.train_annotations).read_text(encoding="utf-8"))
    (first, *_) = whole["images"]
    objects = [o for o in whole["annotations"] if o["image_id"] == first["id"]]
    path = folder / "one_image.json"
    write_json(path, whole | {"images": [first], "annotations": objects})
    return path.absolute()


def measure(
    contenders: Mapping[str, Measure], rounds: int
) -> dict[str, list[tuple[list[float], float]]]:
    """Run all contenders in turns, so that a machine that changes its speed changes it for all."""
    measured: dict[str, list[tuple[list[float], float]]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, run in contenders.items():
            print(f"round {number + 1} of {rounds}: {name}")
            measured[name].append(run())
    return measured


def summarize(
    measured: Mapping[str, list[tuple[list[float], float]]], settings: BenchmarkTraining
) -> dict[str, dict[str, Any]]:
    """Return images per second by the median round, and the ratio to the plain loop before."""
    figures: dict[str, dict[str, Any]] = {}
    for name, runs in measured.items():
        seconds = list(step_seconds(runs, first=settings.warmup_steps))
        speed = settings.batch_size / statistics.median(seconds)
        plain = f"{name.partition(':')[0]}: plain loop"
        figures[name] = {
            "seconds_per_step": seconds,
            "images_per_second": speed,
            "ratio": speed / figures[plain]["images_per_second"] if plain in figures else 1.0,
            "loss": runs[-1][1],
        }
    return figures


def step_seconds(runs: list[tuple[list[float], float]], *, first: int) -> Iterator[float]:
    """Yield each round's mean time per step after the first ``first`` ones."""
    for moments, _ in runs:
        yield (moments[-1] - moments[first - 1]) / (len(moments) - first)


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    import os

    import torch

    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpus": len(os.sched_getaffinity(0)),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


if __name__ == "__main__":
    start_tool(main, about=__doc__)
