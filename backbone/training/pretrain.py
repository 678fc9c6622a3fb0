"""Pretraining of any backbone as a classifier on any labeled image set, with Lightning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.callbacks.weight_averaging import EMAWeightAveraging
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from backbone.config import ClassifierRecipe, PretrainConfig
from backbone.io.files import write_json
from backbone.io.provenance import Provenance
from backbone.io.runtime import world_size
from backbone.io.weights import read_current
from backbone.models.backbone import BackboneSpec
from backbone.models.checkpoint import save_backbone
from backbone.models.classifier import Classifier
from backbone.training.augmentation import EvaluationImages, TrainingImages
from backbone.training.images import ImageSet, load_image_set
from backbone.training.module import ClassifierModule
from backbone.training.preflight import Forecast, forecast_pretraining, peak_bytes
from backbone.training.samplers import IterationSampler
from backbone.training.trainer import (
    build_trainer,
    expected_warnings_hidden,
    resume_point,
)

CHECKPOINT_NAME = "last.ckpt"


@dataclass(frozen=True, slots=True)
class PretrainResult:
    """Result of a pretraining run."""

    path: Path
    """``backbone.safetensors``."""
    accuracy: float
    """Top-1 on the validation images, 0 to 1."""
    seconds: float
    """Wall-clock time of training and validation, over all runs if it was resumed; that of the
    original training if this run was skipped."""
    skipped: bool
    """Whether the file existed already, made from the same inputs."""


def run_pretraining(
    config: PretrainConfig,
    out_dir: Path,
    *,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
) -> PretrainResult:
    """Train a backbone as a classifier and write ``backbone.safetensors`` into ``out_dir``.

    A finished file made from the same inputs is kept; an unfinished training is resumed from its
    last checkpoint.

    Raises:
        FileNotFoundError: if the spec's file or the data are missing.
        ValueError: if the spec is unknown, an image is damaged, or the training does not fit into
            memory.
    """
    spec = BackboneSpec.parse(
        config.backbone, grayscale=config.grayscale, stem=config.stem, norm=config.norm
    )
    train, val = _load_splits(config)
    provenance = _provenance(config, spec, train, val)
    path = out_dir / "backbone.safetensors"
    finished = _finished(path, provenance)
    if finished is not None:
        return finished

    L.seed_everything(config.seed, verbose=False)
    classifier = _build_classifier(spec, config, train)
    steps, chunks = _chunk_epoch(len(train), config.recipe)
    module = ClassifierModule(
        classifier, config.recipe, steps_per_epoch=steps * chunks, seed=config.seed
    )
    prediction = forecast_pretraining(
        config, module, image=train[0][0], num_images=len(train) + len(val)
    )
    checkpoint = out_dir / f"{provenance.key[:12]}-{CHECKPOINT_NAME}"
    timer = Timer()
    trainer = _trainer(
        config, checkpoint, chunks=chunks, loggers=loggers, callbacks=[*callbacks, timer]
    )
    with expected_warnings_hidden():
        trainer.fit(
            module,
            _training_loader(train, config, trainer, steps),
            _validation_loader(val, config, trainer),
            ckpt_path=str(checkpoint) if checkpoint.is_file() else None,
            weights_only=True,
        )
    result = PretrainResult(path, module.accuracy, timer.time_elapsed("train"), skipped=False)
    if trainer.is_global_zero:
        actual = {
            "peak_bytes": peak_bytes(trainer.strategy.root_device),
            "seconds_per_epoch": result.seconds / config.recipe.epochs,
        }
        _write(result, classifier, train.classes, provenance, prediction, actual)
        checkpoint.unlink(missing_ok=True)
    trainer.strategy.barrier()
    return result


def _load_splits(config: PretrainConfig) -> tuple[ImageSet, ImageSet]:
    train = load_image_set(config.data_root, "train", download=config.download)
    val = load_image_set(config.data_root, "val", download=config.download)
    if train.classes != val.classes:
        raise ValueError(
            f"{config.data_root}: train has the classes {train.classes}, val {val.classes}"
        )
    return train, val


def _provenance(
    config: PretrainConfig, spec: BackboneSpec, train: ImageSet, val: ImageSet
) -> Provenance:
    return Provenance(
        stage="pretrain",
        arguments={
            "recipe": config.recipe,
            "norm": config.norm,
            "seed": config.seed,
            "precision": config.precision,
            "processes": world_size(),
        },
        inputs={"backbone": spec.fingerprint()},
        data={"train": train.fingerprint, "val": val.fingerprint},
    )


def _trainer(
    config: PretrainConfig,
    checkpoint: Path,
    *,
    chunks: int,
    loggers: Sequence[Logger],
    callbacks: Sequence[Callback],
) -> L.Trainer:
    recipe = config.recipe
    average = [EMAWeightAveraging(decay=recipe.ema_decay)] if recipe.ema_decay else []
    return build_trainer(
        # Lightning's epochs are the chunks from one checkpoint to the next.
        max_epochs=recipe.epochs * chunks,
        check_val_every_n_epoch=chunks,
        precision=config.precision,
        accelerator=config.accelerator,
        gradient_clip=recipe.gradient_clip,
        loggers=loggers,
        callbacks=[*callbacks, *average, resume_point(checkpoint)],
        root=checkpoint.parent,
        distributed_sampler=False,
    )


def _write(
    result: PretrainResult,
    classifier: Classifier,
    classes: Sequence[str],
    provenance: Provenance,
    prediction: Forecast,
    actual: dict[str, float],
) -> None:
    metrics = {"accuracy": result.accuracy, "seconds": result.seconds}
    save_backbone(
        result.path,
        classifier.backbone,
        classifier.head,
        classes=classes,
        metrics=metrics,
        provenance=provenance.to_dict(),
    )
    predicted = {
        "peak_bytes": prediction.peak_bytes,
        "seconds_per_epoch": prediction.seconds_per_epoch,
    }
    write_json(
        result.path.parent / "metrics.json",
        metrics
        | {
            "preflight": {"predicted": predicted, "actual": actual},
            "provenance": provenance.to_dict(),
        },
    )


def _build_classifier(spec: BackboneSpec, config: PretrainConfig, train: ImageSet) -> Classifier:
    recipe = config.recipe
    backbone = spec.build()
    if config.activation_checkpointing:
        backbone.checkpoint_activations()
    backbone.schedule_drop_path(keep=recipe.drop_path_keep_prob, progress=0)
    for module in backbone.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = recipe.batch_norm_momentum
    side = recipe.image_side_px or train[0][0].shape[-1]
    return Classifier(
        backbone,
        num_classes=len(train.classes),
        dropout=recipe.dropout,
        auxiliary_side_px=side if recipe.auxiliary_weight else 0,
    )


def _finished(path: Path, provenance: Provenance) -> PretrainResult | None:
    metadata = read_current(path, provenance, kind="backbone")
    if metadata is None:
        return None
    metrics = metadata["metrics"]
    return PretrainResult(path, metrics["accuracy"], metrics["seconds"], skipped=True)


def _chunk_epoch(num_images: int, recipe: ClassifierRecipe) -> tuple[int, int]:
    """Return the steps between two checkpoints, and the number of such chunks in an epoch."""
    steps = max(num_images // (recipe.batch_size * world_size()), 1)
    chunks = math.ceil(steps / recipe.checkpoint_every)
    return math.ceil(steps / chunks), chunks


def _training_loader(
    images: ImageSet, config: PretrainConfig, trainer: L.Trainer, steps: int
) -> DataLoader[tuple[Tensor, int]]:
    batch_size = min(config.recipe.batch_size, len(images))
    sampler = IterationSampler(
        len(images),
        items_per_epoch=steps * batch_size,
        items_done=lambda: trainer.global_step * batch_size,
        seed=config.seed,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
    )
    return DataLoader(
        TrainingImages(images, config.recipe),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=config.num_workers,
        persistent_workers=config.num_workers > 0,
    )


def _validation_loader(
    images: ImageSet, config: PretrainConfig, trainer: L.Trainer
) -> DataLoader[tuple[Tensor, int]]:
    # Shard without padding, so that no image is counted twice.
    indices = range(trainer.global_rank, len(images), trainer.world_size)
    return DataLoader(
        Subset(EvaluationImages(images, config.recipe), indices),
        batch_size=min(config.recipe.batch_size, len(images)),
        num_workers=config.num_workers,
        persistent_workers=config.num_workers > 0,
    )
