"""Pretraining: any backbone as a classifier on any labelled image set, through Lightning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from backbone.artifacts import write_json
from backbone.classifier import Classifier
from backbone.config import ClassifierRecipe, PretrainConfig
from backbone.images import ImageSet, load_image_set
from backbone.optimization import build_optimizer, warmup_cosine
from backbone.provenance import Provenance, fingerprint_file
from backbone.specs import build_backbone, describe_spec
from backbone.trainer import Stopwatch, build_trainer, expected_warnings_hidden, resume_point
from backbone.weights import read_about, read_current, save_classifier

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
    description = describe_backbone_source(config.backbone, grayscale=config.grayscale)
    train = load_image_set(config.data_root, "train", download=config.download)
    val = load_image_set(config.data_root, "val", download=config.download)
    if train.classes != val.classes:
        raise ValueError(
            f"{config.data_root}: train has the classes {train.classes}, val {val.classes}"
        )
    provenance = Provenance(
        stage="pretrain",
        arguments={"recipe": config.recipe, "seed": config.seed, "precision": config.precision},
        inputs={"backbone": description},
        data={"train": train.fingerprint, "val": val.fingerprint},
    )
    path = out_dir / "backbone.safetensors"
    done = _finished(path, provenance)
    if done is not None:
        return done

    L.seed_everything(config.seed, verbose=False)
    backbone = build_backbone(config.backbone, grayscale=config.grayscale)
    classifier = Classifier(backbone, num_classes=len(train.classes))
    module = ClassifierModule(classifier, config.recipe, steps_per_epoch=_steps(train, config))
    checkpoint = out_dir / f"{provenance.key[:12]}-{CHECKPOINT_NAME}"
    trainer = build_trainer(
        max_epochs=config.recipe.epochs,
        precision=config.precision,
        accelerator=config.accelerator,
        gradient_clip=config.recipe.gradient_clip,
        loggers=loggers,
        callbacks=[*callbacks, resume_point(checkpoint)],
        root=out_dir,
    )
    with expected_warnings_hidden():
        trainer.fit(
            module,
            _loader(train, config, shuffle=True),
            _loader(val, config, shuffle=False),
            ckpt_path=str(checkpoint) if checkpoint.is_file() else None,
            weights_only=True,
        )
    metrics = {"accuracy": module.accuracy, "seconds": module.seconds}
    if trainer.is_global_zero:
        save_classifier(
            path,
            classifier.backbone,
            classifier.head,
            classes=train.classes,
            metrics=metrics,
            provenance=provenance.to_dict(),
        )
        write_json(out_dir / "metrics.json", metrics | {"provenance": provenance.to_dict()})
        checkpoint.unlink(missing_ok=True)
    trainer.strategy.barrier()
    return PretrainResult(path, module.accuracy, module.seconds, skipped=False)


def describe_backbone_source(spec: str, *, grayscale: bool) -> str:
    """Return a digest of what a spec's network starts from: its description, or its weights."""
    if spec.endswith(".safetensors"):
        read_about(spec, kind="backbone")
        return fingerprint_file(spec)
    return Provenance(stage="spec", arguments=describe_spec(spec, grayscale=grayscale)).key


def _finished(path: Path, provenance: Provenance) -> PretrainResult | None:
    about = read_current(path, provenance, kind="backbone")
    if about is None:
        return None
    metrics = about["metrics"]
    return PretrainResult(path, metrics["accuracy"], metrics["seconds"], skipped=True)


class ClassifierModule(L.LightningModule):
    """Train a classifier by cross-entropy."""

    def __init__(
        self, classifier: Classifier, recipe: ClassifierRecipe, *, steps_per_epoch: int
    ) -> None:
        super().__init__()
        self.classifier = classifier.to(memory_format=torch.channels_last)
        self.recipe, self.steps_per_epoch = recipe, steps_per_epoch
        self.accuracy = math.nan
        """Top-1 on the validation images after the last epoch, 0 to 1."""
        self.seconds = 0.0
        """Wall-clock time of the training, over all its runs."""
        self._correct = self._seen = 0
        self._stopwatch = Stopwatch()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images, labels = batch
        images = augment(prepare(images, self.recipe), self.recipe)
        loss = F.cross_entropy(
            self.classifier(images), labels, label_smoothing=self.recipe.label_smoothing
        )
        self.log("loss", loss, prog_bar=True)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds += self._stopwatch.lap()

    def on_train_start(self) -> None:
        self._stopwatch.lap()

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        images, labels = batch
        found = self.classifier(prepare(images, self.recipe)).argmax(dim=1)
        self._correct += int((found == labels).sum())
        self._seen += len(labels)

    def on_validation_epoch_end(self) -> None:
        counts = torch.tensor([self._correct, self._seen], dtype=torch.float64, device=self.device)
        gathered = self.all_gather(counts)
        assert isinstance(gathered, Tensor)
        correct, seen = gathered.reshape(-1, 2).sum(dim=0).tolist()
        self._correct = self._seen = 0
        self.accuracy = correct / seen
        self.log("accuracy", self.accuracy, prog_bar=True, sync_dist=False)

    def configure_optimizers(self) -> Any:
        recipe = self.recipe
        optimizer = build_optimizer(
            [(self.classifier, recipe.learning_rate)],
            name=recipe.optimizer,
            weight_decay=recipe.weight_decay,
        )
        schedule = warmup_cosine(
            optimizer,
            warmup=round(recipe.warmup_epochs * self.steps_per_epoch),
            total=recipe.epochs * self.steps_per_epoch,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["progress"] = {"accuracy": self.accuracy, "seconds": self.seconds}
        checkpoint["random_state"] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.accuracy = checkpoint["progress"]["accuracy"]
        self.seconds = checkpoint["progress"]["seconds"]
        torch.set_rng_state(checkpoint["random_state"])


def prepare(images: Tensor, recipe: ClassifierRecipe) -> Tensor:
    """Bring bytes, (B, 3, H, W) uint8, to [0, 1] and to the recipe's size."""
    side = recipe.image_side_px
    pixels = images.float() / 255
    if side and pixels.shape[-2:] != (side, side):
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return pixels.contiguous(memory_format=torch.channels_last)


def augment(images: Tensor, recipe: ClassifierRecipe) -> Tensor:
    """Flip and shift every image of a batch by its own draw.

    Shape:
        - images: (B, 3, H, W)
        - output: the same
    """
    for axis, wanted in ((-1, recipe.horizontal_flip), (-2, recipe.vertical_flip)):
        if wanted:
            chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
            images = torch.where(chosen, images.flip(axis), images)
    return shift(images, recipe.crop_padding_px) if recipe.crop_padding_px else images


def shift(images: Tensor, padding_px: int) -> Tensor:
    """Move every image by up to ``padding_px`` each way, reflected at the border."""
    count, _, height, width = images.shape
    padded = F.pad(images, (padding_px,) * 4, mode="reflect")
    top, left = torch.randint(2 * padding_px + 1, (2, count, 1), device=images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    index = torch.arange(count, device=images.device)[:, None, None]
    # Advanced indexing puts channels last, which is the memory layout that convolutions want.
    moved = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def _steps(train: ImageSet, config: PretrainConfig) -> int:
    return max(len(train) // config.recipe.batch_size, 1)


def _loader(
    images: Dataset[tuple[Tensor, int]], config: PretrainConfig, *, shuffle: bool
) -> DataLoader[tuple[Tensor, int]]:
    return DataLoader(
        images,
        batch_size=min(config.recipe.batch_size, len(images)),  # type: ignore[arg-type]
        shuffle=shuffle,
        drop_last=shuffle,
        num_workers=config.num_workers,
        persistent_workers=config.num_workers > 0,
    )
