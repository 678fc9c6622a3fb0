"""Try a training's set-up on one batch, within a minute, before days are spent on it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from tqdm import tqdm

from backbone.io.runtime import choose_device, world_size
from backbone.training.preflight import peak_bytes
from detection.config import DetectorRecipe
from detection.data.dataset import collate, load_splits
from detection.engine.config import TrainDetectorConfig
from detection.engine.train import build_new_detector
from detection.engine.train_step import (
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
"""Steps with the whole batch, which time and memory are taken from."""
WANTED_STEPS = 25
"""A batch with which fewer are possible in the time is made smaller."""
MIN_STEPS = 12
WARMUP_STEPS = 5
FALL = 0.8
"""The last losses must be below this multiple of the first ones."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """What came out of a trial of a set-up."""

    faults: tuple[str, ...]
    """What is wrong, in a sentence each; empty: the set-up is sound."""
    losses: tuple[float, ...]
    """The whole loss at every step on the same images."""
    maps: dict[str, tuple[int, ...]]
    """Level -> shape (B, C, H, W) of the backbone's map."""
    objects: int
    """In the batch."""
    seconds_per_step: float
    """With the whole batch, without evaluation and reading of images."""
    hours: float
    """What the whole training would take at that speed."""
    peak_bytes: int
    """Of this process, or of the GPU."""

    def describe(self) -> str:
        """Say it in a few lines."""
        maps = ", ".join(f"{level} {list(shape)}" for level, shape in self.maps.items())
        lines = [
            f"maps: {maps}",
            f"batch: {self.objects} objects",
            f"loss: {self.losses[0]:.3f} at first, {self.losses[-1]:.3f} after "
            f"{len(self.losses)} steps on the same images",
            f"step: {self.seconds_per_step:.2f} s, {self.peak_bytes / 2**30:.2f} GiB; "
            f"whole training: {_say_hours(self.hours)} without reading images and evaluation",
        ]
        if self.faults:
            return "\n".join([*lines, *(f"WRONG: {fault}" for fault in self.faults)])
        return "\n".join([*lines, "sound: shapes fit, every weight learns, the loss falls"])


def _say_hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 2 else f"{60 * hours:.0f} min"


def try_training(config: TrainDetectorConfig, *, progress: bool = True) -> DryRun:
    """Overfit the first batch of a training and say whether the set-up is sound.

    The optimizer and its rates are the recipe's, after a short warm-up of their own; images are
    not augmented. Nothing is written.

    Raises:
        FileNotFoundError: if the spec's file or the data are missing.
        ValueError: if the spec names nothing, or annotations or an image are wrong.
        ImportError: if the engine is not installed.
    """
    train, _ = load_splits(config.data, config.recipe)
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
    )


def _overfit(
    detector: Detector,
    batch: DetectionBatch,
    config: TrainDetectorConfig,
    recipe: DetectorRecipe,
    *,
    progress: bool,
) -> tuple[list[float], float, list[str]]:
    """Return the losses, the seconds of a whole step, and the names of what had no gradient."""
    optimizer, schedule = build_schedule(detector, recipe)
    unmoved = {name: p for name, p in detector.named_parameters() if p.requires_grad}
    device = next(iter(unmoved.values())).device
    losses: list[float] = []
    times: list[float] = []
    full_seconds = 0.0
    with tqdm(total=MAX_STEPS, desc="dry run", unit="step", disable=not progress) as bar:
        while len(losses) < MAX_STEPS and (sum(times) < MAX_SECONDS or len(losses) < MIN_STEPS):
            start = time.monotonic()
            seed_step(config.seed, len(losses), device=device)
            half = config.precision != "32-true"
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                loss, _ = total_loss(detector, batch, step=len(losses))
            torch.autograd.backward(loss)
            losses.append(loss.item())
            unmoved = {n: p for n, p in unmoved.items() if not _has_gradient(p)}
            if recipe.gradient_clip:
                nn.utils.clip_grad_norm_(list(detector.parameters()), recipe.gradient_clip)
            optimizer.step()
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
    """Return as many of a batch's images as can be learnt in the time; the first have objects."""
    share = MAX_SECONDS / (WANTED_STEPS * seconds)
    kept = max(min(int(len(batch) * share), len(batch)), 1)
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
    if not last < FALL * first:
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
