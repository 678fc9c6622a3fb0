"""Training steps of a detector, the same under Lightning and in a loop without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from backbone.config import require_choice
from backbone.training.optim import build_optimizer, cosine_schedule, multistep_schedule
from backbone.training.samplers import SEED_STEP, GroupedBatchSampler, IterationSampler
from detection.config import DetectorRecipe
from detection.data.dataset import CocoDataset, Example, collate
from detection.models.detector import Detector
from detection.structures import DetectionBatch

AUTOCAST_DTYPES = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Lightning's name of a precision -> dtype of autocast."""


def seed_step(seed: int, step: int, *, device: torch.device) -> None:
    """Seed torch's global generators, of the CPU and of ``device``, for a training step.

    Detectors sample anchors and proposals with them. The samples of a step then depend on its
    number alone, so a resumed training has those of an uninterrupted one.
    """
    number = seed + SEED_STEP * step
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return a context that computes in a precision as Lightning does.

    Args:
        device: device of the computation.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.

    Raises:
        ValueError: if the precision is not one of these.
    """
    dtype = autocast_dtype(device, precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def autocast_dtype(device: torch.device, precision: str) -> torch.dtype | None:
    """Return the dtype of autocast for a precision; None for float32 throughout.

    On a CPU, ``16-mixed`` is bfloat16, as under Lightning.
    """
    require_choice("precision", precision, tuple(AUTOCAST_DTYPES))
    dtype = AUTOCAST_DTYPES[precision]
    return torch.bfloat16 if dtype == torch.float16 and device.type == "cpu" else dtype


def total_loss(
    detector: Detector, batch: DetectionBatch, *, step: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the sum of a detector's losses, of shape (), and the losses by name.

    Raises:
        FloatingPointError: if the sum is not finite; the message names step and images.
    """
    losses = detector.losses(batch.images, batch.targets)
    total = torch.stack(list(losses.values())).sum()
    if not torch.isfinite(total):
        parts = {name: loss.item() for name, loss in losses.items()}
        raise FloatingPointError(
            f"loss is {total.item()} at step {step} on images {batch.image_ids}: {parts}"
        )
    return total, losses


def scale_recipe(recipe: DetectorRecipe, *, world_size: int) -> DetectorRecipe:
    """Scale the learning rate and the numbers of steps to the actual number of images per step.

    With k times ``reference_batch_size`` images the rate is k times as high and all numbers of
    steps are k times fewer, except those between checkpoints and evaluations.

    Args:
        recipe: unchanged if it has no ``reference_batch_size``.
        world_size: number of processes that train together.
    """
    if not recipe.reference_batch_size:
        return recipe
    factor = (
        recipe.batch_size
        * recipe.accumulate_grad_batches
        * world_size
        / recipe.reference_batch_size
    )

    def steps(number: int) -> int:
        return max(round(number / factor), 1)

    return replace(
        recipe,
        learning_rate=recipe.learning_rate * factor,
        iterations=steps(recipe.iterations),
        warmup_iterations=steps(recipe.warmup_iterations) if recipe.warmup_iterations else 0,
        lr_milestones=[steps(number) for number in recipe.lr_milestones],
        reference_batch_size=0,
    )


def build_schedule(detector: Detector, recipe: DetectorRecipe) -> tuple[Optimizer, LambdaLR]:
    """Build the optimizer and the learning-rate schedule of a recipe, to be stepped together."""
    optimizer = build_optimizer(
        [
            (detector.backbone, recipe.learning_rate * recipe.backbone_lr_mult),
            (detector, recipe.learning_rate),
        ],
        name=recipe.optimizer,
        weight_decay=recipe.weight_decay,
        detectron2_sgd=True,
    )
    if recipe.schedule == "multistep":
        return optimizer, multistep_schedule(
            optimizer,
            warmup_steps=recipe.warmup_iterations,
            milestones=recipe.lr_milestones,
            gamma=recipe.lr_gamma,
        )
    schedule = cosine_schedule(
        optimizer, warmup_steps=recipe.warmup_iterations, total_steps=recipe.iterations
    )
    return optimizer, schedule


def build_batches(  # noqa: PLR0913  # a loader has that many independent settings
    train: CocoDataset,
    recipe: DetectorRecipe,
    *,
    steps: int,
    steps_done: Callable[[], int],
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
) -> DataLoader[Example]:
    """Build the loader of a training, whose batches depend on seed and step alone.

    Args:
        train: the images.
        recipe: batch size, accumulation and grouping.
        steps: number of optimizer steps in one pass over the loader.
        steps_done: returns the number of steps before such a pass.
        seed: seed of the order of images and of their augmentation.
        rank: rank of this process.
        world_size: number of processes that train together.
        num_workers: number of worker processes that read images.
    """
    batches = steps * recipe.accumulate_grad_batches
    order: dict[str, Any] = {"seed": seed, "rank": rank, "world_size": world_size}
    if recipe.group_by_aspect:
        sampling: dict[str, Any] = {
            "batch_sampler": GroupedBatchSampler(
                train.wide,
                batch_size=recipe.batch_size,
                batches_per_epoch=batches,
                batches_done=lambda: steps_done() * recipe.accumulate_grad_batches,
                **order,
            )
        }
    else:
        sampler = IterationSampler(
            len(train),
            items_per_epoch=batches * recipe.batch_size,
            items_done=lambda: steps_done() * recipe.accumulate_grad_batches * recipe.batch_size,
            **order,
        )
        sampling = {"batch_size": recipe.batch_size, "sampler": sampler}
    return DataLoader(
        train,
        **sampling,
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )


def training_steps(
    detector: Detector,
    train: CocoDataset,
    recipe: DetectorRecipe,
    *,
    seed: int,
    device: torch.device,
    precision: str = "32-true",
) -> Iterator[int]:
    """Train a detector and yield the number of steps after each step.

    The steps are those of ``detection.engine.train`` on one process, without files, progress bars,
    loggers, evaluations and averaged weights. torch's global generators are seeded for every batch.

    Args:
        detector: moved to ``device``; may be evaluated between two steps.
        train: the images, with their augmentation.
        recipe: the schedule.
        seed: seed of the order of images, their augmentation and the sampling of anchors.
        device: device of the computation.
        precision: ``32-true`` or ``bf16-mixed``.

    Raises:
        FloatingPointError: if the loss is not finite.
    """
    recipe = scale_recipe(recipe, world_size=1)
    detector.to(device).to(memory_format=torch.channels_last)
    optimizer, schedule = build_schedule(detector, recipe)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    loader = build_batches(train, recipe, steps=recipe.iterations, steps_done=lambda: 0, seed=seed)
    for number, batch in enumerate(loader):
        step, part = divmod(number, recipe.accumulate_grad_batches)
        detector.train()
        seed_step(seed, number, device=device)
        with autocast(device, precision):
            loss, _ = total_loss(detector, batch.to(device), step=step)
        torch.autograd.backward(loss / recipe.accumulate_grad_batches)
        if part + 1 < recipe.accumulate_grad_batches:
            continue
        if recipe.gradient_clip:
            nn.utils.clip_grad_norm_(parameters, recipe.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        yield step + 1
