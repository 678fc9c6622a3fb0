"""Lightning callbacks of detector training: best weights, early stopping, resuming.

Lightning's own callbacks, except for what they do with an AP that COCO cannot compute (NaN: no
object to detect), with ties, and with the order of validation and checkpoints.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

MONITOR = "val/AP"
"""The metric that selects weights, in percent."""


class BestCheckpoint(ModelCheckpoint):
    """Keep the checkpoint with the best AP; of equal ones the later, never one whose AP is NaN.

    ``ModelCheckpoint`` compares strictly and stores a first NaN as minus infinity.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(
            dirpath=path.parent,
            filename=f"{path.stem}-{{step}}",
            monitor=MONITOR,
            mode="max",
            save_weights_only=False,  # averaged weights are in whole checkpoints only
            save_on_train_epoch_end=False,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not math.isnan(trainer.callback_metrics[MONITOR].item()):
            super().on_validation_end(trainer, pl_module)

    def check_monitor_top_k(self, trainer: L.Trainer, current: Tensor | None = None) -> bool:
        return current is not None and self.is_best(current.item())

    def is_best(self, ap: float) -> bool:
        """Whether an AP is at least as good as the best so far; NaN never is."""
        if math.isnan(ap):
            return False
        return self.best_model_score is None or ap >= self.best_model_score.item()


class PatientStopping(EarlyStopping):
    """Stop after ``patience`` validations without a better AP, not counting those with NaN."""

    def __init__(self, patience: int) -> None:
        super().__init__(
            MONITOR, mode="max", patience=patience, check_finite=False, verbose=False,
            check_on_train_epoch_end=False,
        )  # fmt: skip

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not math.isnan(trainer.callback_metrics[MONITOR].item()):
            super().on_validation_end(trainer, pl_module)


class ResumeCheckpoint(ModelCheckpoint):
    """Keep one checkpoint to resume from, of the last multiple of ``every_steps``.

    Where a validation follows a step, it is written after the validation, so that it includes the
    best AP and the number of validations without a better one; a resumed training then is the same
    as an uninterrupted one. Lightning writes to another name and renames, so the file is complete
    at any time.

    Args:
        path: the file.
        every_steps: number of steps between two checkpoints.
        validate_every: number of steps between two validations, each of which writes a checkpoint,
            too; 0: none.
    """

    def __init__(self, path: Path, *, every_steps: int, validate_every: int) -> None:
        super().__init__(
            dirpath=path.parent,
            filename=path.stem,
            every_n_train_steps=every_steps,
            enable_version_counter=False,
        )
        self.path, self.validate_every = path, validate_every

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        # Within a step, gradients of earlier batches would be lost.
        has_stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        is_validated = self.validate_every and trainer.global_step % self.validate_every == 0
        if has_stepped and not is_validated:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            trainer.save_checkpoint(self.path, weights_only=False)
