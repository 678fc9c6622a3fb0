"""Lightning setup that pretraining and detector training share."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar, TQDMProgressBar
from lightning.pytorch.loggers import Logger

from backbone.io.progress import shows_bars
from backbone.io.runtime import choose_device, local_world_size, num_nodes

LIGHTNING_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric")
EXPECTED_WARNINGS = (
    # Loading in the training process is deliberate: small datasets are kept in memory.
    ".*does not have many workers.*",
    ".*`num_workers` argument.*",
    # Small datasets have fewer steps than the logging interval.
    ".*The number of training batches.*is smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*You're resuming from a checkpoint that ended before the epoch ended.*",
    # Validation is optional in detector training.
    "You defined a `validation_step` but have no `val_dataloader`.*",
    # Frozen batch normalization is in evaluation mode.
    "Found .* module\\(s\\) in eval mode at the start of training.*",
    # Lightning 2.6 uses a name that torch 2.14 deprecates.
    ".*isinstance\\(treespec, LeafSpec\\).*",
)


class TrainingBar(TQDMProgressBar):
    """Lightning's progress bar on standard error, like all other bars."""

    def __init__(self, *, process_position: int = 0) -> None:
        super().__init__(refresh_rate=5, process_position=process_position)

    # The base class creates its bars on ``sys.stdout``.
    def init_train_tqdm(self) -> Any:
        with redirect_stdout(sys.stderr):
            return super().init_train_tqdm()

    def init_validation_tqdm(self) -> Any:
        with redirect_stdout(sys.stderr):
            return super().init_validation_tqdm()


def with_progress_bar(callbacks: Sequence[Callback]) -> Sequence[Callback]:
    """Add a ``TrainingBar`` unless there is a bar, or remove it where it cannot be shown."""
    if not shows_bars():
        return [callback for callback in callbacks if not isinstance(callback, TrainingBar)]
    return callbacks if _has_bar(callbacks) else [*callbacks, TrainingBar()]


def _has_bar(callbacks: Sequence[Callback]) -> bool:
    return any(isinstance(callback, ProgressBar) for callback in callbacks)


def build_trainer(  # noqa: PLR0913  # a trainer has that many independent settings
    *,
    max_epochs: int,
    max_steps: int = -1,
    check_val_every_n_epoch: int = 1,
    precision: str,
    accelerator: str,
    gradient_clip: float,
    loggers: Sequence[Logger],
    callbacks: Sequence[Callback],
    root: Path,
    distributed_sampler: bool = True,
    accumulate: int = 1,
    validate_every_batches: int = 0,
) -> L.Trainer:
    """Build a trainer; under torchrun it joins the other processes, on the CPU too.

    A progress bar among ``callbacks`` replaces the default one; a ``TrainingBar`` is left out where
    standard error cannot show it.

    Raises:
        ValueError: if a GPU is requested on a machine without one.
    """
    choose_device(accelerator)  # raises the error above
    processes = local_world_size()
    callbacks = with_progress_bar(callbacks)
    with _notices_hidden():
        return L.Trainer(
            max_epochs=max_epochs,
            max_steps=max_steps,
            check_val_every_n_epoch=None if validate_every_batches else check_val_every_n_epoch,
            val_check_interval=validate_every_batches or None,
            accelerator=accelerator,
            devices=processes if processes > 1 else "auto" if accelerator == "gpu" else 1,
            num_nodes=num_nodes(),
            strategy="ddp" if processes > 1 else "auto",
            precision=precision,  # type: ignore[arg-type]  # a literal type; Lightning checks it
            gradient_clip_val=gradient_clip or None,
            accumulate_grad_batches=accumulate,
            logger=list(loggers) or False,
            callbacks=list(callbacks),
            enable_progress_bar=_has_bar(callbacks),
            default_root_dir=root,
            log_every_n_steps=10,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            use_distributed_sampler=distributed_sampler,
        )


def resume_point(path: Path, *, every_steps: int = 0) -> ModelCheckpoint:
    """Return a callback that keeps the latest checkpoint at ``path``.

    Lightning writes to a temporary file and renames it, so the checkpoint is always complete.

    Args:
        path: the checkpoint file.
        every_steps: number of optimizer steps between checkpoints; 0 saves at the end of epochs.
    """
    return ModelCheckpoint(
        dirpath=path.parent,
        filename=path.stem,
        save_top_k=1,
        every_n_train_steps=every_steps or None,
        every_n_epochs=None if every_steps else 1,
        save_on_train_epoch_end=None if every_steps else True,
        enable_version_counter=False,
    )


@contextmanager
def _notices_hidden() -> Iterator[None]:
    """Hide Lightning's notices, which list missing devices and advertise."""
    loggers = [logging.getLogger(name) for name in LIGHTNING_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(max(logger.level, logging.WARNING))
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def expected_warnings_hidden() -> Iterator[None]:
    """Hide Lightning's notices, and its warnings about choices that are deliberate here."""
    with _notices_hidden(), warnings.catch_warnings():
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        yield
