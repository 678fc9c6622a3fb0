"""The steps of a detector's training: the same under Lightning and in a loop without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from backbone.training.optim import build_optimizer, cosine_schedule, multistep_schedule
from backbone.training.samplers import SEED_STEP, GroupedBatchSampler, IterationSampler
from detection.config import DetectorRecipe
from detection.data.dataset import CocoDataset, Example, collate
from detection.models.detector import Detector
from detection.structures import DetectionBatch


def seed_step(seed: int, step: int, *, device: torch.device) -> None:
    """Seed torch's own generators, of the CPU and of ``device``, for a step of a training.

    The engines sample anchors and proposals from them. What a step draws then depends on its number
    alone, so a resumed training draws what an uninterrupted one would have.
    """
    number = seed + SEED_STEP * step
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)


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
    """Return a recipe whose rate and steps suit the images that a step really has.

    k times ``reference_batch_size`` images make the rate k times as high and all numbers of steps k
    times fewer, except those between checkpoints and evaluations.

    Args:
        recipe: unchanged if it has no ``reference_batch_size``.
        world_size: processes that train together.
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
    """Return the optimizer of a recipe and the schedule of its rate, to be stepped together."""
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


def build_batches(  # noqa: PLR0913  # an order of batches has that many independent causes
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
    """Return a training's batches, which depend on seed and step alone.

    Args:
        train: the images.
        recipe: the batch, its accumulation and grouping.
        steps: of the optimizer, in one pass through the loader.
        steps_done: returns how many steps were taken before such a pass.
        seed: of the order of images and of their augmentation.
        rank: this process's number.
        world_size: processes that train together.
        num_workers: processes that read images.
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
    """Train a detector and yield, after each step, how many were taken.

    The steps are those of a training by ``detection.engine.train`` on one process, without its
    files, bars and loggers and their start-up, evaluations and averaged weights. torch's own
    generators are seeded anew for every batch.

    Args:
        detector: moved to ``device``; may be evaluated between two steps.
        train: the images, with their augmentation.
        recipe: the schedule.
        seed: of the order of images, their flips, and what the engine samples.
        device: where to compute.
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
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
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
