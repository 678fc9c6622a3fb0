"""Train a detector through Lightning, and score it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.callbacks.weight_averaging import EMAWeightAveraging
from lightning.pytorch.loggers import Logger
from torch import Tensor

from backbone.io.provenance import Provenance, read_record, recorded_key
from backbone.io.runtime import choose_device, world_size
from backbone.io.weights import read_current, read_metadata
from backbone.models.backbone import LEVELS, BackboneSpec, build_backbone
from backbone.training.trainer import (
    Stopwatch,
    build_trainer,
    expected_warnings_hidden,
    resume_point,
)
from detection.config import DetectorRecipe
from detection.data.coco import CocoAnnotations
from detection.data.dataset import (
    CocoDataset,
    data_arguments,
    fingerprint_splits,
    load_splits,
)
from detection.engine.config import TrainDetectorConfig
from detection.engine.evaluate import EVALUATION_BATCH, evaluate_detector, write_evaluation
from detection.engine.selection import BestWeights
from detection.engine.train_step import (
    build_batches,
    build_schedule,
    scale_recipe,
    seed_step,
    total_loss,
)
from detection.evaluation.metrics import CocoMetrics
from detection.models.build import build_detector
from detection.models.checkpoint import DetectorInfo, load_detector, save_detector
from detection.models.detector import Detector
from detection.structures import DetectionBatch


@dataclass(frozen=True, slots=True)
class DetectorResult:
    """Where the detector is and how good it is."""

    path: Path
    """``detector.safetensors``; ``results.json`` and ``metrics.json`` lie beside it."""
    metrics: CocoMetrics
    """On the validation images."""
    seconds: float
    """Wall-clock time of training and evaluation; of the run that did it if this one skipped."""
    skipped: bool
    """Whether all was already there, made from the same things."""


def train_detector(
    config: TrainDetectorConfig,
    out_dir: Path,
    *,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
) -> DetectorResult:
    """Train a detector, evaluate it and write what came out into ``out_dir``.

    What is finished and was made from the same things is kept; an unfinished training goes on from
    its last checkpoint. Under torchrun all processes train together.

    Raises:
        FileNotFoundError: if the spec's file or the data are missing.
        ValueError: if the spec names nothing, or annotations or an image are wrong.
        ImportError: if the engine is not installed.
        FloatingPointError: if the loss is not finite; the message names step and images.
    """
    train, val = load_splits(config.data, config.recipe)
    provenance = _provenance(config, train, val)
    path = out_dir / "detector.safetensors"
    metrics_path = out_dir / "metrics.json"
    trained = read_current(path, provenance, kind="detector") is not None
    record = read_record(metrics_path)
    if trained and recorded_key(record) == provenance.key:
        return DetectorResult(path, CocoMetrics.from_dict(record), record["seconds"], skipped=True)

    if not trained:
        _train(config, train, val, path, provenance, loggers=loggers, callbacks=callbacks)
    # Read back what was written: the score is that of the file, and every process has its weights.
    detector, info = load_detector(path)
    evaluation = evaluate_detector(
        detector,
        val,
        category_ids=info.category_ids,
        batch_size=EVALUATION_BATCH,
        device=choose_device(config.accelerator),
    )
    seconds = read_metadata(path)["training_seconds"] + evaluation.seconds
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        write_evaluation(
            out_dir, evaluation, provenance=provenance.to_dict(), extra={"seconds": seconds}
        )
    return DetectorResult(path, evaluation.metrics, seconds, skipped=False)


def _train(
    config: TrainDetectorConfig,
    train: CocoDataset,
    val: CocoDataset,
    path: Path,
    provenance: Provenance,
    *,
    loggers: Sequence[Logger],
    callbacks: Sequence[Callback],
) -> None:
    recipe = scale_recipe(config.recipe, world_size=world_size())
    module = DetectorModule(build_new_detector(config, train.annotations), recipe, seed=config.seed)
    checkpoint = path.parent / f"{provenance.key[:12]}-last.ckpt"
    average = EMAWeightAveraging(decay=recipe.ema_decay) if recipe.ema_decay else None
    best = (
        BestWeights(
            val,
            every=recipe.evaluate_every,
            patience=recipe.patience,
            average=average,
        )
        if recipe.evaluate_every
        else None
    )
    own = [callback for callback in (average, best) if callback is not None]
    trainer = build_trainer(
        max_epochs=1,
        max_steps=recipe.iterations,
        precision=config.precision,
        accelerator=config.accelerator,
        gradient_clip=recipe.gradient_clip,
        accumulate=recipe.accumulate_grad_batches,
        loggers=loggers,
        callbacks=[*callbacks, *own, resume_point(checkpoint, every_steps=recipe.checkpoint_every)],
        root=path.parent,
        distributed_sampler=False,
    )
    loader = build_batches(
        train,
        recipe,
        steps=recipe.iterations,
        steps_done=lambda: trainer.global_step,
        seed=config.seed,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
        num_workers=config.num_workers,
    )
    with expected_warnings_hidden(), _told_where_to_go_on(checkpoint):
        trainer.fit(
            module,
            loader,
            ckpt_path=str(checkpoint) if checkpoint.is_file() else None,
            weights_only=True,
        )
    if best is not None:
        best.restore(module)
    if trainer.is_global_zero:
        save_detector(
            path,
            module.detector,
            _describe(config, train.annotations),
            provenance=provenance.to_dict(),
            training_seconds=module.seconds,
            evaluations=best.history if best else {},
        )
        checkpoint.unlink(missing_ok=True)
    trainer.strategy.barrier()


def build_new_detector(config: TrainDetectorConfig, annotations: CocoAnnotations) -> Detector:
    """Return the detector that a training starts from; seeds all generators.

    Raises:
        FileNotFoundError: if the spec's file is missing.
        ValueError: if the spec names nothing, or the detector does not fit the backbone.
        ImportError: if the engine is not installed.
    """
    L.seed_everything(config.seed, verbose=False)
    backbone = build_backbone(
        config.backbone,
        pretrained=config.pretrained,
        norm=config.norm,
        grayscale=config.grayscale,
        out=LEVELS,
    )
    if config.activation_checkpointing:
        backbone.checkpoint_activations()
    return build_detector(backbone, num_classes=len(annotations.categories), config=config.detector)


def _describe(config: TrainDetectorConfig, annotations: CocoAnnotations) -> DetectorInfo:
    return DetectorInfo(
        config=config.detector,
        class_names=annotations.class_names,
        category_ids=annotations.category_ids,
        shortest_side_px=config.data.shortest_side_px,
        longest_side_px=config.data.longest_side_px,
    )


@contextmanager
def _told_where_to_go_on(checkpoint: Path) -> Iterator[None]:
    """Add the last good checkpoint to the message about a loss that is not finite."""
    try:
        yield
    except FloatingPointError as error:
        state = (
            f"the last good checkpoint is {checkpoint}"
            if checkpoint.is_file()
            else "there is no checkpoint yet"
        )
        raise FloatingPointError(
            f"{error}; {state}; try a lower recipe.learning_rate or more recipe.warmup_iterations"
        ) from error


class DetectorModule(L.LightningModule):
    """Minimize the sum of a detector's losses."""

    def __init__(self, detector: Detector, recipe: DetectorRecipe, *, seed: int) -> None:
        super().__init__()
        self.detector = detector.to(memory_format=torch.channels_last)
        self.recipe, self.seed = recipe, seed
        self.seconds = 0.0
        """Wall-clock time of the training, over all its runs."""
        self._stopwatch = Stopwatch()

    def training_step(self, batch: DetectionBatch, index: int) -> Tensor:
        total, losses = total_loss(self.detector, batch, step=self.global_step)
        self.log("loss", total, prog_bar=True, batch_size=len(batch))
        self.log_dict(losses, batch_size=len(batch))
        return total

    def transfer_batch_to_device(
        self, batch: DetectionBatch, device: torch.device, dataloader_idx: int
    ) -> DetectionBatch:
        return batch.to(device)

    def on_train_start(self) -> None:
        self._stopwatch.lap()

    def on_train_batch_start(self, batch: DetectionBatch, index: int) -> None:
        parts = self.recipe.accumulate_grad_batches
        number = self.global_step * parts + index % parts
        place = number * self.trainer.world_size + self.global_rank
        seed_step(self.seed, place, device=self.device)

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds += self._stopwatch.lap()

    def configure_optimizers(self) -> Any:
        optimizer, schedule = build_schedule(self.detector, self.recipe)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["seconds"] = self.seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.seconds = checkpoint["seconds"]


def _provenance(config: TrainDetectorConfig, train: CocoDataset, val: CocoDataset) -> Provenance:
    return Provenance(
        stage="detector",
        arguments={
            "detector": config.detector,
            "recipe": config.recipe,
            **data_arguments(config.data),
            "pretrained": config.pretrained,
            "norm": config.norm,
            "seed": config.seed,
            "precision": config.precision,
            "processes": world_size(),
        },
        inputs={
            "backbone": BackboneSpec.parse(
                config.backbone, grayscale=config.grayscale
            ).fingerprint()
        },
        data=fingerprint_splits(train, val),
    )
