"""The steps of training a classifier, for Lightning."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from backbone.config import ClassifierRecipe
from backbone.models.classifier import Classifier
from backbone.training.augmentation import augment, mix, prepare
from backbone.training.optim import build_optimizer, warmup_cosine, warmup_exponential
from backbone.training.samplers import SEED_STEP
from backbone.training.trainer import Stopwatch


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
        total = self.recipe.epochs * self.steps_per_epoch
        self.classifier.backbone.schedule_drop_path(
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
