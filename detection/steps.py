"""The steps of a detector's training: the same under Lightning and in a loop without it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from backbone.optimization import build_optimizer, warmup_cosine
from backbone.sampling import SEED_STEP, IterationSampler
from detection.config import DetectorRecipe
from detection.data import CocoDataset, DetectionBatch, collate
from detection.detector import Detector


def choose_device(accelerator: str) -> torch.device:
    """Return the device that Lightning takes for that name of a kind; a GPU, if any, on ``auto``.

    Raises:
        ValueError: if a GPU is asked for and there is none.
    """
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ValueError(f"accelerator {accelerator!r} was asked for, but torch finds no GPU here")
    wants_cuda = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if wants_cuda else "cpu")


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


def build_schedule(detector: Detector, recipe: DetectorRecipe) -> tuple[Optimizer, LambdaLR]:
    """Return the optimizer of a recipe and the schedule of its rate, to be stepped together."""
    optimizer = build_optimizer(
        [
            (detector.backbone, recipe.learning_rate * recipe.backbone_rate),
            (detector, recipe.learning_rate),
        ],
        name=recipe.optimizer,
        weight_decay=recipe.weight_decay,
    )
    schedule = warmup_cosine(optimizer, warmup=recipe.warmup_iterations, total=recipe.iterations)
    return optimizer, schedule


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

    The steps are those of a training by ``detection.training``, without its files, bars and loggers
    and their start-up. torch's own generators are seeded anew at every step.

    Args:
        detector: moved to ``device``; may be evaluated between two steps.
        train: the images, with flips.
        recipe: the schedule; ``checkpoint_every`` is not used.
        seed: of the order of images, their flips, and what the engine samples.
        device: where to compute.
        precision: ``32-true`` or ``bf16-mixed``.

    Raises:
        FloatingPointError: if the loss is not finite.
    """
    detector.to(device).to(memory_format=torch.channels_last)
    optimizer, schedule = build_schedule(detector, recipe)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    sampler = IterationSampler(
        len(train),
        items_per_epoch=recipe.iterations * recipe.batch_size,
        items_done=lambda: 0,
        seed=seed,
        rank=0,
        world_size=1,
    )
    loader = DataLoader(train, batch_size=recipe.batch_size, sampler=sampler, collate_fn=collate)
    for step, batch in enumerate(loader):
        detector.train()
        seed_step(seed, step, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss, _ = total_loss(detector, batch.to(device), step=step)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        if recipe.gradient_clip:
            nn.utils.clip_grad_norm_(parameters, recipe.gradient_clip)
        optimizer.step()
        schedule.step()
        yield step + 1
