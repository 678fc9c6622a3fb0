"""The fast proxy trainer: thousands of short trainings whose speed is the product.

Images are decoded once and stay on the device as bytes; augmentation is one gather per batch
there; nothing in an epoch waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2.functional import rgb_to_grayscale

from backbone.genotype import Genotype
from backbone.images import ImageSet
from backbone.network import CellNetwork, NetworkConfig, penultimate_filters
from backbone.operations import SameConv2d
from backbone.threads import limited_threads
from search.config import ProxyConfig
from search.randomness import stream

MOMENTUM = 0.9
"""Paper, appendix A.6."""
EVALUATION_BATCH = 500
CALIBRATION_IMAGES = 500
"""Training images from which batch normalization's statistics are measured before scoring. A short
training is too few steps for their moving averages to forget where they started."""


@dataclass(frozen=True, slots=True)
class ImageTensors:
    """Labelled images of one size on one device."""

    images: Tensor
    """(M, 3, H, W), uint8."""
    labels: Tensor
    """(M,), int64."""
    num_classes: int

    def __len__(self) -> int:
        return len(self.labels)


def choose_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is the first GPU if there is one.

    Raises:
        ValueError: if torch knows no such device, or this machine has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}; choose 'auto', 'cpu' or 'cuda'") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} was asked for, but torch finds no GPU here")
    return device


def split_indices(num_images: int, num_first: int) -> tuple[list[int], list[int]]:
    """Return ``num_first`` images chosen at random, always the same ones, and the others."""
    order = torch.randperm(num_images, generator=stream("split", num_images)).tolist()
    return order[:num_first], order[num_first:]


def load_tensors(
    images: ImageSet,
    indices: Sequence[int],
    *,
    limit: int = 0,
    grayscale: bool = False,
    device: torch.device,
) -> ImageTensors:
    """Decode images once and put them on a device.

    Args:
        images: the set.
        indices: which of its images.
        limit: take only the first so many of the indices; 0 takes all.
        grayscale: take their colours out (ITU-R BT.601 luma in all three channels).
        device: where to.

    Raises:
        ValueError: if the images differ in size, or a file is damaged.
    """
    indices = indices[:limit] if limit else indices
    decoded = [images[index][0] for index in indices]
    sizes = {(image.shape[2], image.shape[1]) for image in decoded}
    if len(sizes) != 1:
        raise ValueError(
            "the proxy needs images of one size, but the sizes (width, height) include "
            f"{sorted(sizes)[:4]}"
        )
    pixels = torch.stack(decoded)
    if grayscale:
        pixels = rgb_to_grayscale(pixels, num_output_channels=3)
    return ImageTensors(
        pixels.to(device),
        torch.tensor([images.labels[index] for index in indices]).to(device),
        len(images.classes),
    )


class ProxyNetwork(nn.Module):
    """Cells on the CIFAR stem, with the paper's head: ReLU, global mean, linear.

    Shape:
        - images: (B, 3, H, W), uint8
        - output: (B, num_classes), logits
    """

    def __init__(self, genotype: Genotype, config: ProxyConfig, train: ImageTensors) -> None:
        super().__init__()
        filters = penultimate_filters(genotype, config.first_filters)
        self.trunk = CellNetwork(
            genotype, NetworkConfig(num_cells=config.num_cells, filters=filters, stem="cifar")
        )
        if config.stem_stride > 1:
            stem: nn.Conv2d = self.trunk.stem[0]  # type: ignore[assignment]
            self.trunk.stem[0] = SameConv2d(3, stem.out_channels, 3, stride=config.stem_stride)
        self.last = list(self.trunk.channels)[-1]
        self.relu = nn.ReLU()
        self.is_mixed = config.precision == "bfloat16"
        self.head = nn.Linear(self.trunk.channels[self.last], train.num_classes)
        mean, std = channel_statistics(train.images)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> Tensor:
        normalized = (images.float() - self.mean) / self.std
        normalized = normalized.contiguous(memory_format=torch.channels_last)
        # Entered for each batch: in one context autocast would use the first step's weights on.
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.is_mixed):
            return self.head(self.relu(self.trunk(normalized)[self.last]).mean(dim=(2, 3)))


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each channel, (3, 1, 1), of up to 10000 images in bytes."""
    sample = images[:10000].float()
    mean = sample.mean(dim=(0, 2, 3), keepdim=True)[0]
    return mean, sample.std(dim=(0, 2, 3), keepdim=True)[0].clamp(min=1.0)


def shift_and_flip(images: Tensor, *, shifts: Tensor, flips: Tensor, padding: int) -> Tensor:
    """Shift and mirror each image by its own amount, in one gather.

    Args:
        images: (B, 3, H, W).
        shifts: (B, 2), int64: rows and columns, from 0 to ``2 * padding``; ``padding`` is no shift.
        flips: (B,), bool: which are mirrored left to right.
        padding: rows and columns that are reflected at every border.
    """
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) + shifts[:, :1] - padding
    columns = torch.arange(width, device=images.device) + shifts[:, 1:] - padding
    columns = torch.where(flips[:, None], columns.flip(1), columns)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    # Channels stay whole, so each of H x W indices moves 3 values.
    gathered = images.permute(0, 2, 3, 1)[
        batch, _reflect(rows, height)[:, :, None], _reflect(columns, width)[:, None, :]
    ]
    return gathered.permute(0, 3, 1, 2)


def _reflect(positions: Tensor, side: int) -> Tensor:
    positions = positions.abs()
    return torch.where(positions >= side, 2 * (side - 1) - positions, positions)


def train_proxy(
    genotype: Genotype, train: ImageTensors, val: ImageTensors, *, config: ProxyConfig, seed: int
) -> float:
    """Train a small network of these cells and return its accuracy on ``val``, 0 to 1.

    Initial weights, the order of images and their augmentation depend on ``seed`` only. torch's
    global generators are left as they were.

    Raises:
        FloatingPointError: if the loss stops being finite.
        ValueError: if there are no images to train or score on, or they are too small to shift.
    """
    if not len(train) or not len(val):
        raise ValueError(f"{len(train)} training and {len(val)} validation images are too few")
    if config.crop_padding_px >= min(train.images.shape[2:]):
        raise ValueError(
            f"crop_padding_px must be below the images' side, not {config.crop_padding_px}"
        )
    device = train.images.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ProxyNetwork(genotype, config, train)
    network = network.to(device).to(memory_format=torch.channels_last)
    with limited_threads(config.num_threads):
        _fit(network, train, config, stream("proxy", seed))
        _measure_statistics(network, train)
        return _accuracy(network, val)


def _fit(
    network: nn.Module, train: ImageTensors, config: ProxyConfig, random: torch.Generator
) -> None:
    parameters = list(network.parameters())
    optimizer = torch.optim.SGD(
        parameters,
        lr=config.learning_rate,
        momentum=MOMENTUM,
        nesterov=True,
        weight_decay=config.weight_decay,
        fused=True,
    )
    starts = range(0, len(train), config.batch_size)
    num_steps, step = config.epochs * len(starts), 0
    device = train.images.device
    network.train()
    for epoch in range(config.epochs):
        # Drawn on the CPU, so that every device sees the same, and moved once per epoch.
        order = torch.randperm(len(train), generator=random).to(device)
        shifts = torch.randint(
            2 * config.crop_padding_px + 1, (len(train), 2), generator=random
        ).to(device)
        flips = (torch.rand(len(train), generator=random) < 0.5 * config.horizontal_flip).to(device)
        total = torch.zeros((), device=device)
        for start in starts:
            rate = 0.5 * config.learning_rate * (1 + math.cos(math.pi * step / num_steps))
            for group in optimizer.param_groups:
                group["lr"] = rate
            part = slice(start, start + config.batch_size)
            images = shift_and_flip(
                train.images[order[part]],
                shifts=shifts[part],
                flips=flips[part],
                padding=config.crop_padding_px,
            )
            loss = F.cross_entropy(network(images).float(), train.labels[order[part]])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            if config.gradient_clip:
                nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
            optimizer.step()
            total += loss.detach()
            step += 1
        if not math.isfinite(float(total)):  # the epoch's one wait for the device
            raise FloatingPointError(f"the loss became {float(total)} in epoch {epoch + 1}")


@torch.no_grad()
def _measure_statistics(network: nn.Module, train: ImageTensors) -> None:
    """Replace batch normalization's moving averages by averages over the final weights."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain average over the batches
    network.train()
    for images, _ in _batches(train, limit=CALIBRATION_IMAGES):
        if len(images) > 1:
            network(images)


@torch.no_grad()
def _accuracy(network: nn.Module, val: ImageTensors) -> float:
    network.eval()
    correct = torch.zeros((), dtype=torch.int64, device=val.labels.device)
    for images, labels in _batches(val, limit=len(val)):
        correct += (network(images).argmax(dim=1) == labels).sum()
    return float(correct) / len(val)


def _batches(data: ImageTensors, *, limit: int) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, min(limit, len(data)), EVALUATION_BATCH):
        part = slice(start, start + EVALUATION_BATCH)
        yield data.images[part], data.labels[part]
