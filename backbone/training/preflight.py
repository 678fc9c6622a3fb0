"""Forecast of a training's memory and time from a few measured steps."""

from __future__ import annotations

import copy
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from backbone.config import PretrainConfig
from backbone.io.runtime import choose_device, global_rank, local_rank
from backbone.profile.memory import LiveBytes
from backbone.training.images import CACHE_BYTES
from backbone.training.module import ClassifierModule

PROBE_IMAGES = 8
"""Maximum images per measured step; larger batches are extrapolated."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Memory and time that a training will need."""

    peak_bytes: int
    """Peak memory of one process: of its tensors on a GPU, of the whole process on the CPU."""
    available_bytes: int
    """Available memory."""
    seconds_per_epoch: float
    """Time per epoch, without waiting for images to be loaded."""
    largest_batch: int
    """Maximum number of images per step that fits into memory."""

    def describe(self) -> str:
        """Return a one-line summary."""
        minutes = self.seconds_per_epoch / 60
        duration = f"{minutes:.1f} min" if minutes >= 1 else f"{self.seconds_per_epoch:.1f} s"
        return (
            f"preflight: {_gib(self.peak_bytes)} of {_gib(self.available_bytes)} available, "
            f"about {duration} per epoch"
        )

    def check(self) -> None:
        """Check that the training fits into memory.

        Raises:
            ValueError: if it does not fit; the message suggests remedies.
        """
        if self.peak_bytes <= self.available_bytes:
            return
        smaller = (
            f"recipe.batch_size={self.largest_batch} or less, "
            if self.largest_batch
            else "a smaller network, "
        )
        raise ValueError(
            f"the training needs {_gib(self.peak_bytes)} of memory, but "
            f"{_gib(self.available_bytes)} are available; use {smaller}"
            "activation_checkpointing=true, or precision=bf16-mixed"
        )


def forecast(
    step: Callable[[int], object],
    *,
    batch_size: int,
    steps_per_epoch: int,
    device: torch.device,
    present_bytes: int = 0,
    data_bytes: int = 0,
) -> Forecast:
    """Measure a few small steps and extrapolate to the training's batch size.

    Args:
        step: runs one training step, including the optimizer, on the given number of images.
        batch_size: images per step of the training.
        steps_per_epoch: number of steps.
        device: device of the training.
        present_bytes: size of the tensors of ``step`` of which this process holds another copy.
        data_bytes: additional memory of the training process, such as cached images.
    """
    base = 0 if device.type == "cuda" else peak_bytes(device)
    available = available_bytes(device) + base
    large = min(batch_size, PROBE_IMAGES)
    # Batch normalization over one pixel needs at least two images.
    small = max(large // 2, 2) if large > 2 else large
    (small_seconds, small_bytes), (seconds, live) = (
        _measure(step, count, device) for count in (small, large)
    )
    more = (batch_size - large) / max(large - small, 1)
    fixed = base - present_bytes + data_bytes
    per_image = (live - small_bytes) / max(large - small, 1)
    room = available - fixed - live
    return Forecast(
        peak_bytes=fixed + live + round((live - small_bytes) * more),
        available_bytes=available,
        # A step has a constant cost, so its time is not proportional to the images.
        seconds_per_epoch=steps_per_epoch
        * (seconds + max(seconds - small_seconds, 0.5 * seconds * (1 - small / large)) * more),
        largest_batch=max(large + int(room / per_image), 0) if per_image > 0 else batch_size,
    )


def forecast_pretraining(
    config: PretrainConfig, module: ClassifierModule, *, image: Tensor, num_images: int
) -> Forecast:
    """Forecast a pretraining from steps of a copy of it on noise, and print the summary.

    Args:
        config: configuration of the training.
        module: left unchanged, as are the random generators.
        image: one training image, (3, H, W).
        num_images: training and validation images, which may be cached in memory.

    Raises:
        ValueError: if the training does not fit into memory.
    """
    recipe = config.recipe
    device = choose_device(config.accelerator)
    on_gpu = device.type == "cuda"
    if on_gpu:
        device = torch.device("cuda", local_rank())
    probe = copy.deepcopy(module).to(device).train()
    optimizer = probe.configure_optimizers()["optimizer"]
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(config.precision)
    shape = image.shape
    if recipe.image_side_px:
        shape = torch.Size((3, recipe.image_side_px, recipe.image_side_px))

    def step(num_images: int) -> None:
        images = torch.randint(256, (num_images, *shape), dtype=torch.uint8, device=device)
        labels = torch.zeros(num_images, dtype=torch.int64, device=device)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss = probe.loss(images, labels)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    weights = sum(p.numel() * p.element_size() for p in probe.parameters())
    with torch.random.fork_rng():
        prediction = forecast(
            step,
            batch_size=min(recipe.batch_size, num_images),
            steps_per_epoch=module.steps_per_epoch,
            device=device,
            present_bytes=0 if on_gpu else weights,
            data_bytes=0 if on_gpu else min(num_images * image.numel(), CACHE_BYTES),
        )
    if on_gpu:  # free the probe's memory
        del probe, optimizer
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    if global_rank() == 0:
        print(prediction.describe(), flush=True)  # noqa: T201  # shown above the progress bar
    prediction.check()
    return prediction


def _measure(
    step: Callable[[int], object], num_images: int, device: torch.device
) -> tuple[float, int]:
    with LiveBytes() as live:
        step(num_images)
    durations = []
    for _ in range(2):
        _wait(device)
        start = time.perf_counter()
        step(num_images)
        _wait(device)
        durations.append(time.perf_counter() - start)
    return min(durations), live.peak


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(device: torch.device) -> int:
    """Return the peak memory so far: of tensors on a GPU, of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_bytes(device: torch.device) -> int:
    """Return the free memory of a GPU, or of this machine within this process's limits."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    return min([free, *_container_room()])


def _container_room() -> list[int]:
    """Return the memory left by the limit of control groups (version 2), if there is one."""
    limit, used = (Path("/sys/fs/cgroup") / f"memory.{name}" for name in ("max", "current"))
    try:
        return [int(limit.read_text()) - int(used.read_text())]
    except (OSError, ValueError):
        return []


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
