"""Evaluate a detector while it trains, and keep the best weights."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.callbacks.weight_averaging import WeightAveraging
from torch import Tensor

from detection.data.dataset import CocoDataset
from detection.engine.evaluate import EVALUATION_BATCH, evaluate_detector
from detection.evaluation.metrics import CocoMetrics
from detection.evaluation.tables import CocoTruth
from detection.models.detector import Detector


class BestWeights(Callback):
    """Evaluates every few steps; keeps the weights whose AP was best.

    All that it knows is in the training's checkpoint, so an interrupted training goes on with the
    best that it had.

    Args:
        val: the images to evaluate on.
        every: steps between evaluations.
        patience: the training is stopped after so many evaluations without a better AP; 0: never.
        average: what averages the weights, if anything does: then averages are evaluated. It must
            come before this one among the trainer's callbacks.
    """

    def __init__(
        self,
        val: CocoDataset,
        *,
        every: int,
        patience: int,
        average: WeightAveraging | None = None,
    ) -> None:
        self._val, self._every, self._patience = val, every, patience
        self._average = average
        self._truth: CocoTruth | None = None
        self.history: dict[int, float] = {}
        """Step -> AP in percent; NaN where there is nothing to find."""
        self.best_step = -1
        """Step of the best weights; -1 before the first evaluation."""
        self._best: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        # Between two steps there may be several batches, and none has stepped before the first.
        if step == 0 or step % self._every or step in self.history:
            return
        if self._average is not None:
            self._average.on_validation_epoch_start(trainer, pl_module)
        self.evaluate(pl_module)
        if self._average is not None:
            self._average.on_validation_epoch_end(trainer, pl_module)
        pl_module.train()
        waited = sum(step > self.best_step for step in self.history)
        if self._patience and waited >= self._patience:
            trainer.should_stop = True

    def evaluate(self, module: L.LightningModule) -> CocoMetrics:
        """Evaluate the detector of a module as it is, log AP, and keep it if it is the best."""
        detector: Detector = module.detector  # type: ignore[assignment]
        if module.trainer.world_size > 1:
            # The statistics of normalization differ between processes; those of the first count.
            for buffer in detector.buffers():
                torch.distributed.broadcast(buffer, 0)
        self._truth = self._truth or CocoTruth.load(self._val.annotations.path)
        metrics = evaluate_detector(
            detector,
            self._val,
            category_ids=self._val.annotations.category_ids,
            batch_size=EVALUATION_BATCH,
            device=module.device,
            truth=self._truth,
        ).metrics
        step = module.global_step
        if not self.history or _worth(metrics.ap) > _worth(self.history[self.best_step]):
            self.best_step = step
            self._best = {
                name: value.detach().cpu().clone() for name, value in detector.state_dict().items()
            }
        self.history[step] = metrics.ap
        for logger in module.loggers:
            logger.log_metrics({"val/AP": metrics.ap, "val/AP50": metrics.ap50}, step=step)
        return metrics

    def restore(self, module: L.LightningModule) -> None:
        """Give a detector the best weights, its present ones among those compared."""
        if module.global_step not in self.history:
            self.evaluate(module)
        detector: Detector = module.detector  # type: ignore[assignment]
        detector.load_state_dict(self._best)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "best_step": self.best_step, "best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history, self.best_step = state_dict["history"], state_dict["best_step"]
        self._best = state_dict["best"]


def _worth(ap: float) -> float:
    return -math.inf if math.isnan(ap) else ap
