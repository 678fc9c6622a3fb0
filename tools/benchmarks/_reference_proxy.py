"""Reference loop of the proxy training, written as in PyTorch's tutorials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from backbone.cells.genotype import Genotype
from backbone.io.runtime import choose_device
from backbone.training.images import SPLIT_NAMES
from search.rewards.config import ProxyConfig
from search.rewards.fit import MOMENTUM, ProxyNetwork
from search.rewards.image_tensors import ImageTensors, split_indices


class _FloatNetwork(nn.Module):
    """The proxy's network for images that the loader has normalized."""

    def __init__(self, network: ProxyNetwork) -> None:
        super().__init__()
        self.trunk, self.relu, self.head = network.trunk, network.relu, network.head
        self.last = network.last

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.relu(self.trunk(images)[self.last]).mean(dim=(2, 3)))


def train_reference(
    genotype: Genotype,
    config: ProxyConfig,
    *,
    sample: ImageTensors,
    num_workers: int,
    seed: int,
) -> float:
    """Train the proxy's network with a ``DataLoader`` and return its accuracy, 0 to 1.

    The same network, images, augmentation, optimizer, schedule and number of steps as
    ``search.rewards.fit.train_proxy``. Torch's defaults otherwise: memory format, threads,
    optimizer.

    Args:
        genotype: the cells.
        config: of the proxy.
        sample: its training images, for their channels' statistics.
        num_workers: worker processes of the loader.
        seed: of the training.
    """
    torch.manual_seed(seed)
    device = choose_device(config.device)
    network = _FloatNetwork(ProxyNetwork(genotype, config, sample)).to(device)
    train, val = _data_sets(config, sample)
    loader: dict[str, Any] = {"num_workers": num_workers, "persistent_workers": num_workers > 0}
    batches = DataLoader(train, config.batch_size, shuffle=True, **loader)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=config.learning_rate, momentum=MOMENTUM, nesterov=True,
        weight_decay=config.weight_decay,
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=config.epochs * len(batches)
    )
    network.train()
    for _ in range(config.epochs):
        for images, labels in batches:
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images.to(device)), labels.to(device))
            torch.autograd.backward(loss)
            if config.gradient_clip:
                nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
            optimizer.step()
            schedule.step()
    network.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in DataLoader(val, config.batch_size, **loader):
            predicted = network(images.to(device)).argmax(dim=1)
            correct += int((predicted == labels.to(device)).sum())
    return correct / len(val)


def _data_sets(
    config: ProxyConfig, sample: ImageTensors
) -> tuple[Subset[tuple[Tensor, int]], Subset[tuple[Tensor, int]]]:
    side = sample.images.shape[2:]
    mean, std = ((s.flatten() / 255).tolist() for s in sample.statistics)
    to_tensor = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    augmented = transforms.Compose(
        [
            *([transforms.Grayscale(3)] if config.grayscale else []),
            transforms.RandomCrop(side, padding=config.crop_padding_px, padding_mode="reflect"),
            *([transforms.RandomHorizontalFlip()] if config.horizontal_flip else []),
            *to_tensor,
        ]
    )
    not_augmented = transforms.Compose(
        [*([transforms.Grayscale(3)] if config.grayscale else []), *to_tensor]
    )
    train = _open(config, "train", augmented)
    val_indices, train_indices = split_indices(len(train), config.held_out_images)
    if config.held_out_images:
        val = _open(config, "train", not_augmented)
    else:
        val = _open(config, "val", not_augmented)
        val_indices = split_indices(len(val), 0)[1]
    return (
        Subset(train, train_indices[: config.max_train_images or None]),
        Subset(val, val_indices[: config.max_val_images or None]),
    )


def _open(config: ProxyConfig, split: str, transform: Any) -> datasets.VisionDataset:
    root = Path(config.data_root)
    if (root / "cifar-10-batches-py").is_dir():
        return datasets.CIFAR10(str(root), train=split == "train", transform=transform)
    folder = next(root / name for name in SPLIT_NAMES[split] if (root / name).is_dir())
    return datasets.ImageFolder(str(folder), transform=transform)
