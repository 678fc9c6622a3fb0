"""Train a detector with Lightning and evaluate it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.callbacks.weight_averaging import EMAWeightAveraging
from lightning.pytorch.loggers import Logger
from torch import Tensor
from torch.utils.data import DataLoader

from backbone.io.provenance import Provenance, read_record, recorded_key
from backbone.io.runtime import choose_device, world_size
from backbone.io.weights import read_current, read_metadata
from backbone.models.backbone import LEVELS, BackboneSpec, build_backbone
from backbone.training.trainer import (
    build_trainer,
    expected_warnings_hidden,
)
from detection.config import DetectorRecipe
from detection.data.coco import CocoTable
from detection.data.dataset import (
    CocoDataset,
    data_arguments,
    fingerprint_splits,
    load_splits,
)
from detection.engine.callbacks import (
    MONITOR,
    BestCheckpoint,
    PatientStopping,
    ResumeCheckpoint,
)
from detection.engine.config import TrainDetectorConfig
from detection.engine.evaluate import EVALUATION_BATCH, evaluate_detector, write_evaluation
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

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DetectorResult:
    """Result of a detector training."""

    path: Path
    """``detector.safetensors``; ``results.json`` and ``metrics.json`` are in the same folder."""
    metrics: CocoMetrics
    """Metrics on the validation images."""
    seconds: float
    """Wall-clock time of training and evaluation; if skipped, of the run that did them."""
    val: CocoDataset
    """The validation images."""
    skipped: bool
    """Whether the files were already there, from the same settings and inputs."""


def run_training(
    config: TrainDetectorConfig,
    out_dir: Path,
    *,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
    on_data: Callable[[CocoDataset, CocoDataset], None] | None = None,
) -> DetectorResult:
    """Train a detector, evaluate it and write the results to ``out_dir``.

    Files of the same settings and inputs are kept; an interrupted training resumes from its last
    checkpoint. Under torchrun all processes train together.

    Args:
        config: the training.
        out_dir: the folder to write to.
        loggers: Lightning loggers.
        callbacks: Lightning callbacks.
        on_data: called with the training and validation images when they have been checked.

    Raises:
        FileNotFoundError: if the spec's file or the data are missing.
        ValueError: if the spec, annotations or an image are invalid.
        ImportError: if the detector needs detectron2 and that is not installed.
        FloatingPointError: if the loss is not finite; the message names step and images.
    """
    train, val = load_splits(config.data, config.recipe)
    if on_data is not None:
        on_data(train, val)
    provenance = _provenance(config, train, val)
    path = out_dir / "detector.safetensors"
    metrics_path = out_dir / "metrics.json"
    trained = read_current(path, provenance, kind="detector") is not None
    record = read_record(metrics_path)
    if trained and recorded_key(record) == provenance.key:
        return DetectorResult(
            path, CocoMetrics.from_dict(record), record["seconds"], val, skipped=True
        )

    if not trained:
        _train(config, train, val, path, provenance, loggers=loggers, callbacks=callbacks)
    # Evaluate the file itself, whose weights every process reads.
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
    return DetectorResult(path, evaluation.metrics, seconds, val, skipped=False)


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
    if recipe.warmup_iterations >= recipe.iterations:
        logger.warning(
            "recipe.warmup_iterations=%d is not below recipe.iterations=%d, so the learning rate "
            "does not reach recipe.learning_rate",
            recipe.warmup_iterations,
            recipe.iterations,
        )
    detector = build_new_detector(config, train.annotations)
    module = DetectorModule(detector, recipe, val=val, seed=config.seed)
    checkpoint = path.parent / f"{provenance.key[:12]}-last.ckpt"
    best = BestCheckpoint(path.parent / f"{provenance.key[:12]}-best.ckpt")
    timer = Timer()
    trainer = build_trainer(
        max_epochs=1,
        max_steps=recipe.iterations,
        precision=config.precision,
        accelerator=config.accelerator,
        gradient_clip=recipe.gradient_clip,
        accumulate=recipe.accumulate_grad_batches,
        validate_every_batches=recipe.evaluate_every * recipe.accumulate_grad_batches,
        loggers=loggers,
        callbacks=[
            *callbacks,
            timer,
            *([EMAWeightAveraging(decay=recipe.ema_decay)] if recipe.ema_decay else []),
            *([PatientStopping(recipe.patience)] if recipe.patience else []),
            *([best] if recipe.evaluate_every else []),
            ResumeCheckpoint(
                checkpoint,
                every_steps=recipe.checkpoint_every,
                validate_every=recipe.evaluate_every,
            ),
        ],
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
    with expected_warnings_hidden(), _last_checkpoint_named(checkpoint):
        trainer.fit(
            module,
            loader,
            module.validation_batches() if recipe.evaluate_every else None,
            ckpt_path=str(checkpoint) if checkpoint.is_file() else None,
            weights_only=True,
        )
        if not module.has_trained:
            # Its last checkpoint was that of its last step; averaged weights are its state.
            _load_weights(module, checkpoint)
        if recipe.evaluate_every:
            _select_weights(trainer, module, best)
    if trainer.is_global_zero:
        save_detector(
            path,
            module.detector,
            _describe(config, train.annotations),
            provenance=provenance.to_dict(),
            training_seconds=timer.time_elapsed(),
            evaluations=module.history,
        )
        checkpoint.unlink(missing_ok=True)
        if best.best_model_path:
            Path(best.best_model_path).unlink(missing_ok=True)
    trainer.strategy.barrier()


def _select_weights(trainer: L.Trainer, module: DetectorModule, best: BestCheckpoint) -> None:
    """Load the best weights into the module, unless the last ones are the best."""
    if trainer.global_step not in module.history:
        trainer.validate(module, module.validation_batches(), verbose=False)
    if best.is_best(module.history[trainer.global_step]) or not best.best_model_path:
        return
    _load_weights(module, Path(best.best_model_path))


def _load_weights(module: DetectorModule, checkpoint: Path) -> None:
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    module.load_state_dict(state["state_dict"])


def build_new_detector(config: TrainDetectorConfig, annotations: CocoTable) -> Detector:
    """Seed all generators and build the detector that a training starts from.

    Raises:
        FileNotFoundError: if the spec's file is missing.
        ValueError: if the spec is invalid, or the detector does not fit the backbone.
        ImportError: if the detector needs detectron2 and that is not installed.
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


def _describe(config: TrainDetectorConfig, annotations: CocoTable) -> DetectorInfo:
    return DetectorInfo(
        config=config.detector,
        class_names=annotations.class_names,
        category_ids=annotations.category_ids,
        shortest_side_px=config.data.shortest_side_px,
        longest_side_px=config.data.longest_side_px,
    )


@contextmanager
def _last_checkpoint_named(checkpoint: Path) -> Iterator[None]:
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
    """Minimize the sum of a detector's losses.

    A validation is one step, which evaluates the detector on all validation images.
    """

    def __init__(
        self, detector: Detector, recipe: DetectorRecipe, *, val: CocoDataset, seed: int
    ) -> None:
        super().__init__()
        self.detector = detector.to(memory_format=torch.channels_last)
        self.recipe, self.val, self.seed = recipe, val, seed
        self.has_trained = False
        """Whether this process trained; a training that had taken its last step is not resumed."""
        self.history: dict[int, float] = {}
        """Step -> AP in percent, of the validations; NaN where COCO cannot compute it."""

    def on_train_end(self) -> None:
        self.has_trained = True

    def training_step(self, batch: DetectionBatch, index: int) -> Tensor:
        total, losses = total_loss(self.detector, batch, step=self.global_step)
        self.log("loss", total, prog_bar=True, batch_size=len(batch))
        self.log_dict(losses, batch_size=len(batch))
        return total

    def validation_batches(self) -> DataLoader[int]:
        """Return the one batch of a validation, which stands for all images."""
        return DataLoader([0])  # type: ignore[arg-type]  # a list is a dataset

    def on_validation_epoch_start(self) -> None:
        if self.trainer.world_size > 1:
            # Batch-norm statistics differ between processes; those of rank 0 are evaluated.
            for buffer in self.detector.buffers():
                torch.distributed.broadcast(buffer, 0)

    def validation_step(self, batch: Tensor, index: int) -> None:
        with torch.autocast(self.device.type, enabled=False):
            metrics = self.evaluate()
        figures = {MONITOR: metrics.ap, f"{MONITOR}50": metrics.ap50}
        self.history[self.global_step] = metrics.ap
        self.log_dict(figures, logger=False, batch_size=1, sync_dist=True)
        for logger in self.loggers:
            logger.log_metrics(figures, step=self.global_step)

    def evaluate(self) -> CocoMetrics:
        """Evaluate the present weights on the validation images."""
        return evaluate_detector(
            self.detector,
            self.val,
            category_ids=self.val.annotations.category_ids,
            batch_size=EVALUATION_BATCH,
            device=self.device,
        ).metrics

    def transfer_batch_to_device(
        self, batch: DetectionBatch | Tensor, device: torch.device, dataloader_idx: int
    ) -> DetectionBatch | Tensor:
        return batch.to(device)

    def on_train_batch_start(self, batch: DetectionBatch, index: int) -> None:
        parts = self.recipe.accumulate_grad_batches
        number = self.global_step * parts + index % parts
        index_of_batch = number * self.trainer.world_size + self.global_rank
        seed_step(self.seed, index_of_batch, device=self.device)

    def configure_optimizers(self) -> Any:
        optimizer, schedule = build_schedule(self.detector, self.recipe)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["history"]


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
