"""Fast training of proxies and supernets, of which a search runs thousands.

Images are decoded once and stay on the device as bytes, where augmentation is one gather per batch;
the host waits for the device once per epoch; on CUDA a training step is one captured graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from backbone.cells.genotype import Genotype
from backbone.io.runtime import limited_threads
from backbone.models.cell_network import CellNetwork, NetworkConfig
from backbone.models.operations import SameConv2d
from backbone.training.augmentation import shift_and_flip
from search.randomness import stream
from search.rewards.config import ProxyConfig
from search.rewards.image_tensors import ImageTensors
from search.rewards.training_step import TrainingStep

MOMENTUM = 0.9
"""Paper, appendix A.6."""
EVALUATION_BATCH = 500
CALIBRATION_IMAGES = 500
"""Training images on which batch normalization is recalibrated before scoring. In a short training
the moving averages still depend on their initial values."""


def uses_bfloat16(precision: str, device: torch.device) -> bool:
    """Return whether a ``ProxyConfig.precision`` means mixed precision on a device.

    ``auto`` does on GPUs with bfloat16 tensor cores (compute capability 8.0 and above). On CPUs
    small networks are bound by calls and memory, and the conversion costs more than it saves.
    """
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return precision == "bfloat16"


class ProxyNetwork(nn.Module):
    """Cells on the CIFAR stem, with the paper's head: ReLU, global mean, linear.

    Shape:
        - images: (B, 3, H, W), uint8
        - output: (B, num_classes), logits
    """

    def __init__(self, genotype: Genotype, config: ProxyConfig, train: ImageTensors) -> None:
        super().__init__()
        filters = genotype.penultimate_filters(config.first_filters)
        self.trunk = CellNetwork(
            genotype, NetworkConfig(num_cells=config.num_cells, filters=filters, stem="cifar")
        )
        if config.stem_stride > 1:
            stem: nn.Conv2d = self.trunk.stem[0]  # type: ignore[assignment]
            self.trunk.stem[0] = SameConv2d(3, stem.out_channels, 3, stride=config.stem_stride)
        self.last = list(self.trunk.channels)[-1]
        self.relu = nn.ReLU()
        self.is_mixed = uses_bfloat16(config.precision, train.images.device)
        self.head = nn.Linear(self.trunk.channels[self.last], train.num_classes)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", train.statistics[0])
        self.register_buffer("std", train.statistics[1])

    def forward(self, images: Tensor) -> Tensor:
        normalized = (images.float() - self.mean) / self.std
        normalized = normalized.contiguous(memory_format=torch.channels_last)
        # One context per batch: within a context, autocast would keep its cast of the old weights.
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.is_mixed):
            return self.head(self.relu(self.trunk(normalized)[self.last]).mean(dim=(2, 3)))


def train_proxy(
    genotype: Genotype,
    train: ImageTensors,
    val: ImageTensors,
    *,
    config: ProxyConfig,
    seed: int,
    report: Callable[[int, float], None] = lambda _epoch, _accuracy: None,
) -> float:
    """Train a small network of these cells and return its accuracy on ``val``, 0 to 1.

    Initial weights, the order of images and their augmentation depend on ``seed`` only, and not on
    what is reported. torch's global generators are left unchanged.

    Args:
        genotype: cells of the network.
        train: training images.
        val: validation images.
        config: network and training.
        seed: seed of the training.
        report: called with an epoch, from 1, and the accuracy after it: at ``config.rungs`` and
            after the last epoch. An exception that it raises ends the training.

    Raises:
        FloatingPointError: if the loss is not finite.
        ValueError: if there are no training or validation images, or they are too small to shift.
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
    step = TrainingStep(
        network, use_graph=config.cuda_graphs, num_steps=count_steps(config, len(train))
    )
    optimizer, random = build_sgd(network.parameters(), config), stream("proxy", seed)
    accuracy = 0.0
    with limited_threads(config.num_threads):
        for epoch, _ in fit(optimizer, step, train, config=config, random=random):
            if epoch in config.rungs or epoch == config.epochs:
                # Neither changes the weights, so rungs do not change the training.
                recalibrate_batch_norm(network, train)
                accuracy = measure_accuracy(network, val)
                network.train()
                report(epoch, accuracy)
    return accuracy


def count_steps(config: ProxyConfig, num_images: int) -> int:
    """Return the number of optimizer steps of a whole training."""
    return config.epochs * math.ceil(num_images / config.batch_size)


def build_sgd(parameters: Iterable[nn.Parameter], config: ProxyConfig) -> torch.optim.SGD:
    """Build the optimizer of ``fit``: SGD with Nesterov momentum (paper, appendix A.6)."""
    return torch.optim.SGD(
        parameters,
        lr=config.learning_rate,
        momentum=MOMENTUM,
        nesterov=True,
        weight_decay=config.weight_decay,
        fused=True,
    )


def fit(
    optimizer: torch.optim.SGD,
    backpropagate: Callable[[Tensor, Tensor], Tensor],
    train: ImageTensors,
    *,
    config: ProxyConfig,
    random: torch.Generator,
) -> Iterator[tuple[int, float]]:
    """Train, and yield each epoch, from 1, with its mean loss.

    Args:
        optimizer: holds the parameters; its learning rate falls to 0 along half a cosine.
        backpropagate: takes augmented images, (B, 3, H, W), uint8, and labels, (B,), writes the
            parameters' gradients and returns the mean loss, a scalar on the images' device.
        train: training images.
        config: training.
        random: order of images and augmentation.

    Raises:
        FloatingPointError: if the loss is not finite; checked once per epoch, which is the only
            time that the host waits for the device.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    num_steps = count_steps(config, len(train))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / num_steps))
    )
    for epoch in range(1, config.epochs + 1):
        total = torch.zeros((), device=train.images.device)
        for images, labels in augmented_batches(train, config, random):
            total += backpropagate(images, labels)
            if config.gradient_clip:
                nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
            optimizer.step()
            schedule.step()
        mean = float(total) * config.epochs / num_steps
        if not math.isfinite(mean):
            raise FloatingPointError(f"the loss became {mean} in epoch {epoch}")
        yield epoch, mean


def augmented_batches(
    train: ImageTensors, config: ProxyConfig, random: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of images, (B, 3, H, W) uint8, and labels, (B,).

    Images are shuffled, randomly shifted and randomly flipped.
    """
    size, device, padding = len(train), train.images.device, config.crop_padding_px
    # Drawn on the CPU, so that all devices use the same numbers, and moved once per epoch.
    order = torch.randperm(size, generator=random).to(device)
    shifts = torch.randint(2 * padding + 1, (size, 2), generator=random).to(device)
    flips = (torch.rand(size, generator=random) < 0.5 * config.horizontal_flip).to(device)
    for start in range(0, size, config.batch_size):
        part = slice(start, start + config.batch_size)
        images = shift_and_flip(
            train.images[order[part]], shifts=shifts[part], flips=flips[part], padding_px=padding
        )
        yield images, train.labels[order[part]]


def recalibrate_batch_norm(network: nn.Module, train: ImageTensors) -> None:
    """Replace batch normalization's moving averages by averages over ``CALIBRATION_IMAGES``."""
    # A single image, the last of a set, has no variance where maps are single pixels.
    batches = (part for part, _ in _batches(train, limit=CALIBRATION_IMAGES) if len(part) > 1)
    update_bn(batches, network)


@torch.no_grad()
def measure_accuracy(network: nn.Module, val: ImageTensors) -> float:
    """Return the accuracy of a network on uint8 images, 0 to 1; sets evaluation mode."""
    network.eval()
    correct = torch.zeros((), dtype=torch.int64, device=val.labels.device)
    for images, labels in _batches(val, limit=len(val)):
        correct += (network(images).argmax(dim=1) == labels).sum()
    return float(correct) / len(val)


def _batches(data: ImageTensors, *, limit: int) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, min(limit, len(data)), EVALUATION_BATCH):
        part = slice(start, start + EVALUATION_BATCH)
        yield data.images[part], data.labels[part]
