"""Pretraining: any backbone as a classifier on any labelled image set, through Lightning."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.callbacks.weight_averaging import EMAWeightAveraging
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset

from backbone.artifacts import write_json
from backbone.augmentation import EvaluationImages, TrainingImages, augment, mix, prepare
from backbone.classifier import Classifier
from backbone.config import ClassifierRecipe, PretrainConfig
from backbone.images import CACHE_BYTES, ImageSet, load_image_set
from backbone.network import CellNetwork
from backbone.optimization import build_optimizer, warmup_cosine, warmup_exponential
from backbone.preflight import Forecast, forecast, peak_bytes
from backbone.provenance import Provenance, fingerprint_file
from backbone.sampling import SEED_STEP, IterationSampler
from backbone.specs import build_backbone, describe_spec
from backbone.trainer import (
    Stopwatch,
    all_processes,
    build_trainer,
    expected_warnings_hidden,
    resume_point,
)
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
    description = describe_backbone_source(
        config.backbone, grayscale=config.grayscale, stem=config.stem
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
            "processes": all_processes(),
        },
        inputs={"backbone": description},
        data={"train": train.fingerprint, "val": val.fingerprint},
    )
    path = out_dir / "backbone.safetensors"
    done = _finished(path, provenance)
    if done is not None:
        return done

    L.seed_everything(config.seed, verbose=False)
    recipe = config.recipe
    classifier = _build_classifier(config, train)
    steps, parts = _chunk(len(train), recipe)
    module = ClassifierModule(classifier, recipe, steps_per_epoch=steps * parts, seed=config.seed)
    checkpoint = out_dir / f"{provenance.key[:12]}-{CHECKPOINT_NAME}"
    prediction = _preflight(config, module, image=train[0][0], num_images=len(train) + len(val))
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
        save_classifier(
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


def _build_classifier(config: PretrainConfig, train: ImageSet) -> Classifier:
    recipe = config.recipe
    backbone = build_backbone(
        config.backbone, grayscale=config.grayscale, norm=config.norm, stem=config.stem
    )
    if config.activation_checkpointing:
        backbone.checkpoint_activations()
    if recipe.drop_path_keep < 1 and not isinstance(backbone.body, CellNetwork):
        raise ValueError(f"drop_path_keep is for cells, not for {config.backbone}")
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


def _preflight(
    config: PretrainConfig, module: ClassifierModule, *, image: Tensor, num_images: int
) -> Forecast:
    """Say what the training will take, from steps of a copy of it on noise.

    Raises:
        ValueError: if it cannot fit into memory.
    """
    recipe = config.recipe
    wants_gpu = config.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    device = torch.device("cuda" if wants_gpu else "cpu")
    probe = copy.deepcopy(module).to(device).train()
    optimizer = probe.configure_optimizers()["optimizer"]
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(config.precision)
    shape = image.shape
    if recipe.image_side_px:
        shape = torch.Size((3, recipe.image_side_px, recipe.image_side_px))

    def step(num_images: int) -> None:
        images = torch.randint(256, (num_images, *shape), dtype=torch.uint8, device=device)
        labels = torch.zeros(num_images, dtype=torch.int64, device=device)
        with torch.autocast(device.type, kind, enabled=kind is not None):
            loss = probe.loss(images, labels)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    weights = sum(p.numel() * p.element_size() for p in probe.parameters())
    with torch.random.fork_rng():
        prediction = forecast(
            step,
            batch_size=min(recipe.batch_size, num_images),
            steps_per_epoch=module.steps_per_epoch,
            device=device,
            present_bytes=0 if wants_gpu else weights,
            data_bytes=0 if wants_gpu else min(num_images * image.numel(), CACHE_BYTES),
        )
    if os.environ.get("RANK", "0") == "0":
        print(prediction.describe(), flush=True)  # noqa: T201  # before a bar, for a person
    prediction.check()
    return prediction


def describe_backbone_source(spec: str, *, grayscale: bool, stem: str = "imagenet") -> str:
    """Return a digest of what a spec's network starts from: its description, or its weights."""
    if spec.endswith(".safetensors"):
        read_about(spec, kind="backbone")
        return fingerprint_file(spec)
    return Provenance(
        stage="spec", arguments=describe_spec(spec, grayscale=grayscale, stem=stem)
    ).key


def _finished(path: Path, provenance: Provenance) -> PretrainResult | None:
    about = read_current(path, provenance, kind="backbone")
    if about is None:
        return None
    metrics = about["metrics"]
    return PretrainResult(path, metrics["accuracy"], metrics["seconds"], skipped=True)


class ClassifierModule(L.LightningModule):
    """Train a classifier by cross-entropy."""

    def __init__(
        self,
        classifier: Classifier,
        recipe: ClassifierRecipe,
        *,
        steps_per_epoch: int,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.classifier = classifier.to(memory_format=torch.channels_last)
        self.recipe, self.steps_per_epoch, self.seed = recipe, steps_per_epoch, seed
        self.accuracy = math.nan
        """Top-1 on the validation images after the last epoch, 0 to 1."""
        self.seconds = 0.0
        """Wall-clock time of the training, over all its runs."""
        self._correct = self._seen = 0
        self._stopwatch = Stopwatch()

    def on_train_batch_start(self, *_: Any) -> None:
        # Everything random in a step depends on its number, not on the steps that came before it
        # in this process; so a training that goes on draws what it would have drawn.
        place = self.global_step * self.trainer.world_size + self.global_rank
        torch.manual_seed(self.seed + SEED_STEP * place)
        network = self.classifier.backbone.body
        if isinstance(network, CellNetwork):
            total = self.recipe.epochs * self.steps_per_epoch
            network.schedule_drop_path(
                keep=self.recipe.drop_path_keep, progress=self.global_step / total
            )

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        loss = self.loss(*batch)
        self.log("loss", loss, prog_bar=True)
        return loss

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss on images, (B, 3, H, W) uint8, after augmentation."""
        images = augment(prepare(images, self.recipe), self.recipe)
        images, labels = mix(images, labels, self.recipe, num_classes=self.classifier.num_classes)
        if self.classifier.auxiliary is None:
            return self._loss(self.classifier(images), labels)
        logits, auxiliary = self.classifier.forward_with_auxiliary(images)
        return self._loss(logits, labels) + self.recipe.auxiliary_weight * self._loss(
            auxiliary, labels
        )

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)

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
        steps = self.steps_per_epoch
        warmup = round(recipe.warmup_epochs * steps)
        schedule = (
            warmup_cosine(optimizer, warmup=warmup, total=recipe.epochs * steps)
            if recipe.schedule == "cosine"
            else warmup_exponential(
                optimizer,
                warmup=warmup,
                factor=recipe.decay_factor,
                every=recipe.decay_epochs * steps,
            )
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["progress"] = {"accuracy": self.accuracy, "seconds": self.seconds}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.accuracy = checkpoint["progress"]["accuracy"]
        self.seconds = checkpoint["progress"]["seconds"]


def _chunk(num_images: int, recipe: ClassifierRecipe) -> tuple[int, int]:
    """Return steps from one checkpoint to the next, and how many such parts make an epoch."""
    steps = max(num_images // (recipe.batch_size * all_processes()), 1)
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
