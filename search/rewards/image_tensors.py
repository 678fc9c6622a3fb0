"""Labeled images as tensors on a device, decoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import rgb_to_grayscale

from backbone.training.images import ImageSet
from search.randomness import stream

STATISTICS_IMAGES = 10_000


@dataclass(frozen=True)
class ImageTensors:
    """Labeled images of one size on one device."""

    images: Tensor
    """(M, 3, H, W), uint8."""
    labels: Tensor
    """(M,), int64."""
    num_classes: int

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation per channel, (3, 1, 1), 0 to 255, of up to 10,000 images."""
        sample = self.images[:STATISTICS_IMAGES].float()
        mean, std = sample.mean(dim=(0, 2, 3)), sample.std(dim=(0, 2, 3)).clamp(min=1.0)
        return mean[:, None, None], std[:, None, None]


def split_indices(num_images: int, num_first: int) -> tuple[list[int], list[int]]:
    """Return the indices of ``num_first`` random, always equal images, and of the others."""
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
    """Decode images and move them to a device.

    Args:
        images: the dataset.
        indices: indices of the images to load.
        limit: maximum number of images, from the first of the indices; 0 for all.
        grayscale: convert to grayscale (ITU-R BT.601 luma in all three channels).
        device: device of the tensors.

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
