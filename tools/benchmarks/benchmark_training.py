r"""Measure the speed of detector trainings, against each engine's own training loop.

Writes benchmark.json. Everything is measured in one run, in turns; nothing else should be running.
Model, weights, images and optimizer are the same, without augmentation; the first steps, in which a
process warms up, are left out.

nasdet benchmark training                           # demonstration data
nasdet benchmark training size=full data=coco data.root=/data/coco \
    num_workers=4 batch_size=2 backbone=timm:resnet50 engines=[detectron2]
"""

from __future__ import annotations

import json
import logging
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.append(str(Path(__file__).parents[1]))  # modules that all tools share

from _cli import Run, tool
from _output import print_line
from backbone.config import require_at_least
from detection.config import DetectionDataConfig
from detection.models.config import DetectorConfig

if TYPE_CHECKING:
    from detection.engine.config import TrainDetectorConfig

ENGINES = ("torchvision", "detectron2")
Entry = Callable[[], tuple[list[float], float]]
"""Trains once; returns the times at which steps ended, in seconds, and the last loss."""


@dataclass(kw_only=True, slots=True)
class Args:
    """Settings of ``benchmark_training``."""

    out: str
    """The folder for ``benchmark.json``."""
    backbone: str
    """Backbone spec."""
    detector: DetectorConfig
    """The detector; each engine builds it from these fields."""
    data: DetectionDataConfig
    """The data; only the training images are used."""
    engines: list[str] = field(default_factory=list)
    """``torchvision`` and ``detectron2``; empty: all that are installed."""
    steps: int = 20
    """Timed steps in each round."""
    warmup_steps: int = 5
    """Steps before them, not timed; the learning rate rises over them."""
    rounds: int = 3
    """Runs of each training; the median counts."""
    batch_size: int = 8
    """Images per step."""
    learning_rate: float = 0.01
    """Learning rate after the warm-up."""
    seed: int = 0
    """Seed of the weights, the order of images and the sampling in the engines."""
    num_workers: int = 0
    """Processes that read images."""
    accelerator: str = "auto"
    """Device type: ``auto``, ``cpu``, ``gpu``."""

    def __post_init__(self) -> None:
        for name in ("steps", "warmup_steps", "rounds", "batch_size"):
            require_at_least(1, **{name: getattr(self, name)})
        unknown = [name for name in self.engines if name not in ENGINES]
        if unknown:
            raise ValueError(f"unknown engines {unknown}; choose from {list(ENGINES)}")


@tool(Args)
def main(run: Run[Args]) -> None:
    from _harness import machine, measure
    from backbone.io.files import write_json
    from backbone.io.text_tables import text_table

    args = run.args
    hide_announcements()
    entries: dict[str, Entry] = {}
    for engine, detector in chosen_engines(args).items():
        training = training_config(args, detector)
        entries[f"{engine}: reference loop"] = reference_entry(training)
        entries[f"{engine}: nasdet"] = nasdet_entry(training, run.out)
    figures = summarize(measure(entries, rounds=args.rounds, bar=False), args)
    path = run.out / "benchmark.json"
    record = machine() | {"figures": figures}
    write_json(path, record)
    run.report(**record, benchmark=path)
    run.finish()
    rows = [
        (name, f"{f['images_per_second']:.2f}", f"{f['ratio']:.3f}", f"{f['loss']:.3f}")
        for name, f in figures.items()
    ]
    print(f"\n{text_table(('training', 'images/s', 'ratio', 'last loss'), rows)}\n")
    print(f"ratio: to the engine's reference loop; median of {args.rounds} rounds")
    print_line("figures", path)


def hide_announcements() -> None:
    """Hide the messages that the libraries log at every training's start."""
    import lightning.pytorch  # noqa: F401  # sets its logging level when imported

    for name in ("lightning.pytorch", "lightning.fabric", "detectron2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def chosen_engines(args: Args) -> dict[str, DetectorConfig]:
    """Return each engine's config; by default those of all engines that are installed."""
    from importlib.util import find_spec

    from detection.models.config import Detectron2FasterRCNNConfig, TorchvisionFasterRCNNConfig

    kinds: dict[str, type[DetectorConfig]] = {
        "torchvision": TorchvisionFasterRCNNConfig,
        "detectron2": Detectron2FasterRCNNConfig,
    }
    if type(args.detector) not in kinds.values():
        name = type(args.detector).__name__
        raise ValueError(f"only Faster R-CNN can be measured, not {name}; see --help")
    names = args.engines or [name for name in kinds if find_spec(name)]
    return {name: kinds[name](**asdict(args.detector)) for name in names}


def training_config(args: Args, detector: DetectorConfig) -> TrainDetectorConfig:
    """Return the measured training: SGD with the settings of both libraries' scripts."""
    from detection.config import DetectorRecipe
    from detection.engine.config import TrainDetectorConfig

    steps = args.warmup_steps + args.steps
    return TrainDetectorConfig(
        backbone=args.backbone,
        detector=detector,
        data=args.data,
        recipe=DetectorRecipe(
            iterations=steps,
            batch_size=args.batch_size,
            optimizer="sgd",
            learning_rate=args.learning_rate,
            schedule="multistep",
            lr_milestones=[steps - 1],
            warmup_iterations=args.warmup_steps,
            gradient_clip=0.0,
            horizontal_flip=False,
            checkpoint_every=steps + 1,
        ),
        seed=args.seed,
        num_workers=args.num_workers,
        accelerator=args.accelerator,
    )


def reference_entry(training: TrainDetectorConfig) -> Entry:
    """Return the library's own training as an entry."""
    from _reference_detector import reference_steps

    def run() -> tuple[list[float], float]:
        times, loss = [], float("nan")
        for loss in reference_steps(training):  # noqa: B007  # the last one is shown
            times.append(time.perf_counter())
        return times, loss

    return run


def nasdet_entry(training: TrainDetectorConfig, out: Path) -> Entry:
    """Return ``train_detector`` as an entry, with its progress bar; it evaluates one image."""
    from lightning.pytorch.callbacks import Callback

    from detection.engine.train import run_training

    class Clock(Callback):
        def __init__(self) -> None:
            self.times: list[float] = []
            self.loss = float("nan")

        def on_train_batch_end(self, _: Any, __: Any, outputs: Any, *___: Any) -> None:
            self.loss = outputs["loss"].item()
            self.times.append(time.perf_counter())

    def run() -> tuple[list[float], float]:
        clock, folder = Clock(), out / "training"
        shutil.rmtree(folder, ignore_errors=True)
        data = replace(
            training.data,
            val_annotations=str(write_one_image(training, folder)),
            val_images=training.data.train_images,
        )
        run_training(replace(training, data=data), folder, callbacks=[clock])
        shutil.rmtree(folder)
        return clock.times, clock.loss

    return run


def write_one_image(training: TrainDetectorConfig, folder: Path) -> Path:
    """Write annotations of the first training image alone, for the validation."""
    from backbone.io.files import write_json

    data = training.data
    whole = json.loads((Path(data.root) / data.train_annotations).read_text(encoding="utf-8"))
    (first, *_) = whole["images"]
    objects = [o for o in whole["annotations"] if o["image_id"] == first["id"]]
    path = folder / "one_image.json"
    write_json(path, whole | {"images": [first], "annotations": objects})
    return path.absolute()


def summarize(
    measured: Mapping[str, list[tuple[list[float], float]]], args: Args
) -> dict[str, dict[str, Any]]:
    """Return images per second by the median round, and the ratio to the reference loop."""
    figures: dict[str, dict[str, Any]] = {}
    for name, runs in measured.items():
        seconds = list(step_seconds(runs, first=args.warmup_steps))
        speed = args.batch_size / statistics.median(seconds)
        reference = f"{name.partition(':')[0]}: reference loop"
        figures[name] = {
            "seconds_per_step": seconds,
            "images_per_second": speed,
            "ratio": speed / figures[reference]["images_per_second"]
            if reference in figures
            else 1.0,
            "loss": runs[-1][1],
        }
    return figures


def step_seconds(runs: list[tuple[list[float], float]], *, first: int) -> Iterator[float]:
    """Yield each round's mean time per step after the first ``first`` ones."""
    for times, _ in runs:
        yield (times[-1] - times[first - 1]) / (len(times) - first)


if __name__ == "__main__":
    main()
