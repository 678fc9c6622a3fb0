"""Resizing and augmentation of images and boxes, determined by the seed of the example."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from detection.config import DetectionDataConfig, DetectorRecipe
from detection.structures import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Random resize, jitter and flips; see ``DetectorRecipe`` for the fields."""

    shortest_sides_px: tuple[int, ...]
    """Choices for the shorter side; one is drawn for each image."""
    longest_side_px: int
    jitter: tuple[float, float] | None = None
    """Minimum and maximum scale of large-scale jitter, which replaces the choice of sides."""
    jitter_side_px: int = 0
    horizontal_flip: bool = False
    vertical_flip: bool = False

    @classmethod
    def of_training(cls, data: DetectionDataConfig, recipe: DetectorRecipe) -> Augmentation:
        """Return the augmentation of a recipe; the side of the data is the default."""
        return cls(
            shortest_sides_px=tuple(recipe.shortest_sides_px) or (data.shortest_side_px,),
            longest_side_px=data.longest_side_px,
            jitter=(recipe.scale_jitter[0], recipe.scale_jitter[1])
            if recipe.scale_jitter
            else None,
            jitter_side_px=recipe.jitter_side_px,
            horizontal_flip=recipe.horizontal_flip,
            vertical_flip=recipe.vertical_flip,
        )

    @classmethod
    def none(cls, data: DetectionDataConfig) -> Augmentation:
        """Return the resize of evaluation, without augmentation."""
        return cls(shortest_sides_px=(data.shortest_side_px,), longest_side_px=data.longest_side_px)

    def __call__(
        self, pixels: Tensor, target: Target, *, seed: int | None
    ) -> tuple[Tensor, Target]:
        """Return the transformed image and its objects in the pixels of that image.

        Args:
            pixels: (3, H, W) uint8.
            target: objects in its pixels.
            seed: seed of the random choices; None makes none and takes the first of the sides.

        Returns:
            (3, h, w) float32 in [0, 1]. A crop may leave fewer objects, or none.
        """
        generator = torch.Generator().manual_seed(seed or 0)
        drawn = torch.rand(5, generator=generator).tolist()
        if self.jitter is not None and seed is not None:
            image, target = self._jitter(pixels, target, drawn[2:])
        else:
            sides = self.shortest_sides_px
            side = sides[int(drawn[2] * len(sides))] if seed is not None else sides[0]
            image, scale = resize_image(pixels, shortest=side, longest=self.longest_side_px)
            target = _scaled(target, scale)
        if seed is None:
            return image, target
        return self._flip(image, target, horizontal=drawn[0] < 0.5, vertical=drawn[1] < 0.5)

    def _jitter(self, pixels: Tensor, target: Target, drawn: list[float]) -> tuple[Tensor, Target]:
        """Scale by a random factor and crop a random window if the image is too large.

        A factor of 1 makes the longer side ``jitter_side_px`` long (Ghiasi et al. 2021, "Simple
        copy-paste", appendix: scales 0.1 to 2.0 at 1024 pixels). Smaller images are not padded
        here, since batches are.
        """
        assert self.jitter is not None
        low, high = self.jitter
        longest = max(round(self.jitter_side_px * (low + (high - low) * drawn[0])), 1)
        image, scale = resize_image(pixels, shortest=longest, longest=longest)
        target = _scaled(target, scale)
        height, width = image.shape[-2:]
        side = self.jitter_side_px
        top, left = (
            int(fraction * (max(length - side, 0) + 1))
            for fraction, length in zip(drawn[1:], (height, width), strict=True)
        )
        return crop(image, target, top=top, left=left, side=side)

    def _flip(
        self, image: Tensor, target: Target, *, horizontal: bool, vertical: bool
    ) -> tuple[Tensor, Target]:
        x1, y1, x2, y2 = target.boxes.unbind(1)
        if self.horizontal_flip and horizontal:
            image = image.flip(-1)
            x1, x2 = image.shape[-1] - x2, image.shape[-1] - x1
        if self.vertical_flip and vertical:
            image = image.flip(-2)
            y1, y2 = image.shape[-2] - y2, image.shape[-2] - y1
        return image, Target(torch.stack([x1, y1, x2, y2], dim=1), target.labels)


def resize_image(
    image: Tensor, *, shortest: int, longest: int
) -> tuple[Tensor, tuple[float, float]]:
    """Resize so that the shorter side is ``shortest``, unless the longer would pass ``longest``.

    Args:
        image: (3, H, W) uint8.
        shortest: length of the shorter side, in pixels.
        longest: maximum length of the longer side, in pixels.

    Returns:
        (3, h, w) float32 in [0, 1], and h / H and w / W.
    """
    height, width = image.shape[-2:]
    scale = min(shortest / min(height, width), longest / max(height, width))
    new_height, new_width = max(round(height * scale), 1), max(round(width * scale), 1)
    pixels = image.float().div_(255)
    if (new_height, new_width) != (height, width):
        pixels = F.interpolate(
            pixels[None], (new_height, new_width), mode="bilinear", antialias=True
        )[0]
    return pixels, (new_height / height, new_width / width)


def crop(image: Tensor, target: Target, *, top: int, left: int, side: int) -> tuple[Tensor, Target]:
    """Crop a square window, which ends where the image does.

    Boxes are clipped to the window; those without area in it are dropped.
    """
    window = image[:, top : top + side, left : left + side]
    boxes = target.boxes - torch.tensor([left, top, left, top], dtype=torch.float32)
    limits = torch.tensor([window.shape[-1], window.shape[-2]] * 2, dtype=torch.float32)
    boxes = boxes.clamp(min=0).minimum(limits)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    return window, Target(boxes[kept], target.labels[kept])


def _scaled(target: Target, scale: tuple[float, float]) -> Target:
    scale_y, scale_x = scale
    factors = torch.tensor([scale_x, scale_y, scale_x, scale_y], dtype=torch.float32)
    return Target(target.boxes * factors, target.labels)
