"""Lightning module for training a classifier."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics.classification import MulticlassAccuracy

from backbone.config import SCHEDULES, ClassifierRecipe, require_choice
from backbone.models.classifier import Classifier
from backbone.training.augmentation import augment, mix, prepare
from backbone.training.optim import build_optimizer, cosine_schedule, exponential_schedule
from backbone.training.samplers import SEED_STEP


class ClassifierModule(L.LightningModule):
    """Train a classifier with cross-entropy.

    Args:
        classifier: backbone and head.
        recipe: hyperparameters.
        steps_per_epoch: optimizer steps per pass over the training images.
        seed: of augmentation, dropout and drop path.
    """

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
        # Arguments are not checked, since that would wait for the device at every batch.
        self._top1 = MulticlassAccuracy(
            num_classes=classifier.num_classes, average="micro", validate_args=False
        )

    def on_train_batch_start(self, *_: Any) -> None:
        # Everything random in a step depends on its number, not on the steps before it in this
        # process, so a resumed training draws the same numbers as an uninterrupted one.
        index = self.global_step * self.trainer.world_size + self.global_rank
        torch.manual_seed(self.seed + SEED_STEP * index)
        total = self.recipe.epochs * self.steps_per_epoch
        self.classifier.backbone.schedule_drop_path(
            keep=self.recipe.drop_path_keep_prob, progress=self.global_step / total
        )

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        loss = self.loss(*batch)
        self.log("loss", loss, prog_bar=True)
        return loss

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss after augmentation.

        Shape:
            - images: (B, 3, H, W), uint8
            - labels: (B,), int64
            - output: ()
        """
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

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        images, labels = batch
        self._top1.update(self.classifier(prepare(images, self.recipe)), labels)

    def on_validation_epoch_end(self) -> None:
        self.accuracy = self._top1.compute().item()
        self._top1.reset()
        self.log("accuracy", self.accuracy, prog_bar=True, sync_dist=False)

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(
            [(self.classifier, self.recipe.learning_rate)],
            name=self.recipe.optimizer,
            weight_decay=self.recipe.weight_decay,
        )
        schedule = build_schedule(optimizer, self.recipe, steps_per_epoch=self.steps_per_epoch)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["accuracy"] = self.accuracy

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.accuracy = checkpoint["accuracy"]


def build_schedule(
    optimizer: Optimizer, recipe: ClassifierRecipe, *, steps_per_epoch: int
) -> LambdaLR:
    """Build a recipe's learning-rate schedule, to be stepped after every optimizer step.

    Raises:
        ValueError: if the schedule is unknown.
    """
    require_choice("schedule", recipe.schedule, SCHEDULES)
    warmup_steps = round(recipe.warmup_epochs * steps_per_epoch)
    if recipe.schedule == "cosine":
        total_steps = recipe.epochs * steps_per_epoch
        return cosine_schedule(optimizer, warmup_steps=warmup_steps, total_steps=total_steps)
    return exponential_schedule(
        optimizer,
        warmup_steps=warmup_steps,
        gamma=recipe.lr_gamma,
        step_size=recipe.decay_epochs * steps_per_epoch,
    )
