"""Sanity-check a training setup by overfitting one batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from backbone.io.progress import progress_bar
from backbone.io.runtime import choose_device, world_size
from backbone.training.preflight import peak_bytes
from detection.config import DetectorRecipe
from detection.data.dataset import collate, describe_splits, load_splits
from detection.engine.config import TrainDetectorConfig
from detection.engine.train import build_new_detector
from detection.engine.train_step import (
    autocast,
    autocast_dtype,
    build_schedule,
    scale_recipe,
    seed_step,
    total_loss,
)
from detection.models.detector import Detector
from detection.structures import DetectionBatch, batch_images

MAX_STEPS = 60
MAX_SECONDS = 45.0
FULL_STEPS = 2
"""Number of steps with the whole batch, from which time and memory are measured."""
WANTED_STEPS = 25
"""The batch is reduced if fewer steps fit into the time."""
MIN_STEPS = 12
JUDGED_STEPS = 20
"""Number of steps after which the loss must have fallen; a slow machine takes fewer in the time."""
WARMUP_STEPS = 5
MAX_LOSS_RATIO = 0.8
"""The last losses must be below this multiple of the first ones."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """Result of a dry run."""

    faults: tuple[str, ...]
    """Faults of the setup, one sentence each; empty if there is none."""
    losses: tuple[float, ...]
    """Total loss of every step, all on the same images."""
    maps: dict[str, tuple[int, ...]]
    """Level -> shape (B, C, H, W) of the backbone's map."""
    objects: int
    """Number of objects in the batch."""
    seconds_per_step: float
    """Seconds per step with the whole batch, without evaluation and image reading."""
    hours: float
    """Estimated hours of the whole training at that speed."""
    peak_bytes: int
    """Peak memory of this process, or of the GPU."""
    data: str
    """The data set in one line."""

    def describe(self) -> str:
        """Return the measurements as a few lines of text, without the faults."""
        maps = ", ".join(f"{level} {list(shape)}" for level, shape in self.maps.items())
        lines = [
            f"data: {self.data}",
            f"maps: {maps}",
            f"batch: {self.objects} objects",
            f"loss: {self.losses[0]:.3f} at first, {self.losses[-1]:.3f} after "
            f"{len(self.losses)} steps on the same images",
            f"step: {self.seconds_per_step:.2f} s, {self.peak_bytes / 2**30:.2f} GiB; "
            f"whole training: {_format_hours(self.hours)} without image reading and evaluation",
        ]
        if not self.faults:
            is_judged = len(self.losses) >= JUDGED_STEPS
            loss = "the loss falls" if is_judged else "too few steps in the time to judge the loss"
            lines.append(f"sound: the maps fit, every weight learns, {loss}")
        return "\n".join(lines)


def _format_hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 2 else f"{60 * hours:.0f} min"


def try_training(config: TrainDetectorConfig, *, progress: bool = True) -> DryRun:
    """Overfit the first batch of a training and check that the setup is sound.

    The optimizer and its learning rates are those of the recipe, after a short warm-up; images are
    not augmented. Nothing is written.

    Raises:
        FileNotFoundError: if the spec's file or the data are missing.
        ValueError: if the spec, the precision, annotations or an image are invalid.
        ImportError: if the detector needs detectron2 and that is not installed.
    """
    train, val = load_splits(config.data, config.recipe)
    recipe = scale_recipe(config.recipe, world_size=world_size())
    device = choose_device(config.accelerator)
    detector = build_new_detector(config, train.annotations)
    detector.to(device).to(memory_format=torch.channels_last).train()
    size = min(recipe.batch_size, len(train))
    batch = collate([train[index] for index in range(size)]).to(device)
    short = replace(recipe, warmup_iterations=min(recipe.warmup_iterations, WARMUP_STEPS))
    losses, seconds, unmoved = _overfit(detector, batch, config, short, progress=progress)
    return DryRun(
        faults=tuple(_faults(losses, unmoved, batch)),
        losses=tuple(losses),
        maps=_map_shapes(detector, batch),
        objects=sum(len(target.boxes) for target in batch.targets),
        seconds_per_step=seconds,
        hours=seconds * recipe.iterations * recipe.accumulate_grad_batches / 3600,
        peak_bytes=peak_bytes(device),
        data=describe_splits(train, val),
    )


def _overfit(
    detector: Detector,
    batch: DetectionBatch,
    config: TrainDetectorConfig,
    recipe: DetectorRecipe,
    *,
    progress: bool,
) -> tuple[list[float], float, list[str]]:
    """Return the losses, the seconds of a whole step, and the names of weights without gradient."""
    optimizer, schedule = build_schedule(detector, recipe)
    unmoved = {name: p for name, p in detector.named_parameters() if p.requires_grad}
    device = next(iter(unmoved.values())).device
    is_half = autocast_dtype(device, config.precision) == torch.float16
    scaler = torch.amp.GradScaler(device.type, enabled=is_half)
    losses: list[float] = []
    times: list[float] = []
    full_seconds = 0.0
    with progress_bar(total=MAX_STEPS, desc="dry run", unit="step", shown=progress) as bar:
        while len(losses) < MAX_STEPS and (sum(times) < MAX_SECONDS or len(losses) < MIN_STEPS):
            start = time.monotonic()
            seed_step(config.seed, len(losses), device=device)
            with autocast(device, config.precision):
                loss, _ = total_loss(detector, batch, step=len(losses))
            torch.autograd.backward(scaler.scale(loss))
            losses.append(loss.item())
            unmoved = {n: p for n, p in unmoved.items() if not _has_gradient(p)}
            if recipe.gradient_clip:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(list(detector.parameters()), recipe.gradient_clip)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            schedule.step()
            times.append(time.monotonic() - start)
            bar.set_postfix_str(f"loss {losses[-1]:.3f}")
            bar.update()
            if len(losses) == FULL_STEPS:
                full_seconds = times[-1]
                batch = _affordable(batch, seconds=full_seconds)
    return losses[FULL_STEPS:], full_seconds, list(unmoved)


def _affordable(batch: DetectionBatch, *, seconds: float) -> DetectionBatch:
    """Return as many images of a batch as fit into the time; the first ones have objects."""
    fraction = MAX_SECONDS / (WANTED_STEPS * seconds)
    kept = max(min(int(len(batch) * fraction), len(batch)), 1)
    return DetectionBatch(
        batch.images[:kept],
        batch.targets[:kept],
        batch.image_ids[:kept],
        batch.original_sizes[:kept],
    )


def _has_gradient(parameter: Tensor) -> bool:
    return parameter.grad is not None and bool(parameter.grad.ne(0).any())


def _faults(losses: Sequence[float], unmoved: Sequence[str], batch: DetectionBatch) -> list[str]:
    faults = []
    if not any(len(target.boxes) for target in batch.targets):
        faults.append("the first batch has no objects")
    if unmoved:
        names = ", ".join(unmoved[:3]) + (", ..." if len(unmoved) > 3 else "")
        faults.append(f"{len(unmoved)} weights had no gradient at any step: {names}")
    few = max(len(losses) // 10, 1)
    first, last = (sum(part) / few for part in (losses[:few], losses[-few:]))
    if len(losses) >= JUDGED_STEPS and not last < MAX_LOSS_RATIO * first:
        faults.append(
            f"the loss on one batch went from {first:.3f} to {last:.3f} in {len(losses)} steps; "
            "it should fall clearly: look at recipe.learning_rate and the boxes"
        )
    return faults


@torch.inference_mode()
def _map_shapes(detector: Detector, batch: DetectionBatch) -> dict[str, tuple[int, ...]]:
    detector.eval()
    images, _ = batch_images(batch.images)
    return {level: tuple(each.shape) for level, each in detector.backbone(images).items()}
