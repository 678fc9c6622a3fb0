"""Pretraining: any backbone as a classifier on any labelled image set, through Lightning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback
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
from backbone.training.preflight import forecast_pretraining, peak_bytes
from backbone.training.samplers import IterationSampler
from backbone.training.trainer import (
    build_trainer,
    expected_warnings_hidden,
    resume_point,
)

CHECKPOINT_NAME = "last.ckpt"


@dataclass(frozen=True, slots=True)
class PretrainResult:
    """Where the backbone is and how good a classifier it is."""

    path: Path
    """``backbone.safetensors``."""
    accuracy: float
    """Top-1 on the validation images, 0 to 1."""
    seconds: float
    """Wall-clock time of the training; that of the run that did it if this one was skipped."""
    skipped: bool
    """Whether the file was already there, made from the same things."""


def pretrain_backbone(
    config: PretrainConfig,
    out_dir: Path,
    *,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
) -> PretrainResult:
    """Train a backbone as a classifier and write ``backbone.safetensors`` into ``out_dir``.

    A finished file made from the same things is kept; an unfinished training goes on from its last
    checkpoint.

    Raises:
        FileNotFoundError: if the spec's file or the data are missing.
        ValueError: if the spec names nothing, or an image is damaged.
    """
    spec = BackboneSpec.parse(
        config.backbone, grayscale=config.grayscale, stem=config.stem, norm=config.norm
    )
    train = load_image_set(config.data_root, "train", download=config.download)
    val = load_image_set(config.data_root, "val", download=config.download)
    if train.classes != val.classes:
        raise ValueError(
            f"{config.data_root}: train has the classes {train.classes}, val {val.classes}"
        )
    provenance = Provenance(
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
    path = out_dir / "backbone.safetensors"
    done = _finished(path, provenance)
    if done is not None:
        return done

    L.seed_everything(config.seed, verbose=False)
    recipe = config.recipe
    classifier = _build_classifier(spec, config, train)
    steps, parts = _chunk(len(train), recipe)
    module = ClassifierModule(classifier, recipe, steps_per_epoch=steps * parts, seed=config.seed)
    checkpoint = out_dir / f"{provenance.key[:12]}-{CHECKPOINT_NAME}"
    prediction = forecast_pretraining(
        config, module, image=train[0][0], num_images=len(train) + len(val)
    )
    average = [EMAWeightAveraging(decay=recipe.ema_decay)] if recipe.ema_decay else []
    trainer = build_trainer(
        # Lightning's epochs are the parts from one checkpoint to the next.
        max_epochs=recipe.epochs * parts,
        check_val_every_n_epoch=parts,
        precision=config.precision,
        accelerator=config.accelerator,
        gradient_clip=recipe.gradient_clip,
        loggers=loggers,
        callbacks=[*callbacks, *average, resume_point(checkpoint)],
        root=out_dir,
        distributed_sampler=False,
    )
    with expected_warnings_hidden():
        trainer.fit(
            module,
            _training_loader(train, config, trainer, steps),
            _validation_loader(val, config, trainer),
            ckpt_path=str(checkpoint) if checkpoint.is_file() else None,
            weights_only=True,
        )
    metrics = {"accuracy": module.accuracy, "seconds": module.seconds}
    device = trainer.strategy.root_device
    took = {
        "predicted": {
            "peak_bytes": prediction.peak_bytes,
            "seconds_per_epoch": prediction.seconds_per_epoch,
        },
        "actual": {
            "peak_bytes": peak_bytes(device),
            "seconds_per_epoch": module.seconds / recipe.epochs,
        },
    }
    if trainer.is_global_zero:
        save_backbone(
            path,
            classifier.backbone,
            classifier.head,
            classes=train.classes,
            metrics=metrics,
            provenance=provenance.to_dict(),
        )
        write_json(
            out_dir / "metrics.json",
            metrics | {"preflight": took, "provenance": provenance.to_dict()},
        )
        checkpoint.unlink(missing_ok=True)
    trainer.strategy.barrier()
    return PretrainResult(path, module.accuracy, module.seconds, skipped=False)


def _build_classifier(spec: BackboneSpec, config: PretrainConfig, train: ImageSet) -> Classifier:
    recipe = config.recipe
    backbone = spec.build()
    if config.activation_checkpointing:
        backbone.checkpoint_activations()
    backbone.schedule_drop_path(keep=recipe.drop_path_keep, progress=0)
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


def _chunk(num_images: int, recipe: ClassifierRecipe) -> tuple[int, int]:
    """Return steps from one checkpoint to the next, and how many such parts make an epoch."""
    steps = max(num_images // (recipe.batch_size * world_size()), 1)
    parts = math.ceil(steps / recipe.checkpoint_every)
    return math.ceil(steps / parts), parts


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
    # Each process takes its share; what remains of the division is nobody's twice.
    share = range(trainer.global_rank, len(images), trainer.world_size)
    return DataLoader(
        Subset(EvaluationImages(images, config.recipe), share),
        batch_size=min(config.recipe.batch_size, len(images)),
        num_workers=config.num_workers,
        persistent_workers=config.num_workers > 0,
    )
