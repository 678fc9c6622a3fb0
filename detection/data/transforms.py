"""Resizing and random augmentation of an image and its boxes, as a function of a seed.

The operations are those of ``torchvision.transforms.v2.functional`` on ``tv_tensors``. Its random
transforms are not used: they draw from torch's global generator, and ``RandomShortestSize`` rounds
sides down where both libraries' detectors were trained with rounding to the nearest pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat

from detection.config import DetectionDataConfig, DetectorRecipe
from detection.structures import Target

MIN_BOX_SIDE_PX = 1e-6
"""Boxes with a shorter side are dropped after a crop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Resizing, crop and flips of an image; see ``DetectorRecipe`` for the fields."""

    shortest_sides_px: tuple[int, ...]
    """One of these is drawn for each image."""
    longest_side_px: int
    jitter: tuple[float, float] | None = None
    """Minimum and maximum scale of large-scale jitter, which replaces ``shortest_sides_px``."""
    jitter_side_px: int = 0
    horizontal_flip: bool = False
    vertical_flip: bool = False

    @classmethod
    def of_training(cls, data: DetectionDataConfig, recipe: DetectorRecipe) -> Augmentation:
        """Return the augmentation of a recipe, with the data's own sides if it has none."""
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
        """Return the resizing of evaluation."""
        return cls(shortest_sides_px=(data.shortest_side_px,), longest_side_px=data.longest_side_px)

    def __call__(
        self, pixels: Tensor, target: Target, *, seed: int | None
    ) -> tuple[Tensor, Target]:
        """Return the input of the detector, and the objects in its pixels.

        Args:
            pixels: (3, H, W) uint8.
            target: objects in the pixels of the image.
            seed: seed of the random choices; None makes none and takes the first of the sides.

        Returns:
            (3, h, w) float32 in [0, 1]. A crop may leave fewer objects, or none.
        """
        generator = torch.Generator().manual_seed(seed or 0)
        draws = torch.rand(5, generator=generator).tolist()
        boxes = BoundingBoxes(
            target.boxes,
            format=BoundingBoxFormat.XYXY,
            canvas_size=(pixels.shape[-2], pixels.shape[-1]),
        )
        labels = target.labels
        if self.jitter is not None and seed is not None:
            image, boxes, kept = self._jitter(pixels, boxes, draws[2:])
            labels = labels[kept]
        else:
            sides = self.shortest_sides_px
            side = sides[int(draws[2] * len(sides))] if seed is not None else sides[0]
            image, _ = resize_image(pixels, shortest=side, longest=self.longest_side_px)
            boxes = F.resize(boxes, list(image.shape[-2:]))
        if seed is not None and self.horizontal_flip and draws[0] < 0.5:
            image, boxes = F.horizontal_flip(image), F.horizontal_flip(boxes)
        if seed is not None and self.vertical_flip and draws[1] < 0.5:
            image, boxes = F.vertical_flip(image), F.vertical_flip(boxes)
        return image, Target(boxes.as_subclass(Tensor), labels)

    def _jitter(
        self, pixels: Tensor, boxes: BoundingBoxes, draws: list[float]
    ) -> tuple[Tensor, BoundingBoxes, Tensor]:
        """Scale by a random factor and crop a random window, as far as the image goes.

        The factor 1 makes the longer side ``jitter_side_px`` long (Ghiasi et al. 2021, "Simple
        copy-paste", appendix; scales 0.1 to 2.0 at 1024 pixels). Smaller images are not padded
        here, because batches are padded anyway.

        Returns:
            The image, the boxes that are left, and whether each box is.
        """
        assert self.jitter is not None
        low, high = self.jitter
        longest = max(round(self.jitter_side_px * (low + (high - low) * draws[0])), 1)
        image, _ = resize_image(pixels, shortest=longest, longest=longest)
        boxes = F.resize(boxes, list(image.shape[-2:]))
        height, width = image.shape[-2:]
        side = self.jitter_side_px
        top, left = (
            int(draw * (max(length - side, 0) + 1))
            for draw, length in zip(draws[1:], (height, width), strict=True)
        )
        window = (top, left, min(side, height - top), min(side, width - left))
        boxes = F.clamp_bounding_boxes(F.crop(boxes, *window))
        boxes, kept = F.sanitize_bounding_boxes(
            boxes, min_size=MIN_BOX_SIDE_PX, min_area=MIN_BOX_SIDE_PX**2
        )
        return F.crop(image, *window), boxes, kept


def resize_image(
    image: Tensor, *, shortest: int, longest: int
) -> tuple[Tensor, tuple[float, float]]:
    """Resize so that the shorter side is ``shortest`` unless the longer would exceed ``longest``.

    Args:
        image: (3, H, W) uint8.
        shortest: pixels.
        longest: pixels.

    Returns:
        (3, h, w) float32 in [0, 1], and h / H and w / W.
    """
    height, width = image.shape[-2:]
    scale = min(shortest / min(height, width), longest / max(height, width))
    new_height, new_width = max(round(height * scale), 1), max(round(width * scale), 1)
    pixels = F.resize(image.float().div_(255), [new_height, new_width], antialias=True)
    return pixels, (new_height / height, new_width / width)
