"""Augmentation of labeled images: of each image when it is read, and of batches."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision.transforms import v2

from backbone.config import ClassifierRecipe
from backbone.training.images import ImageSet

ASPECTS = (3 / 4, 4 / 3)
"""Aspect ratios (width / height) of random crops (Szegedy et al. 2015, section 6)."""
GRAY = 0.5
"""Value of erased pixels."""


class TrainingImages(Dataset[tuple[Tensor, int]]):
    """Training images, indexed by (image index, seed); see ``IterationSampler``.

    Items are an image, (3, H, W) uint8, and its class index. Augmentation depends on the seed
    alone, whichever process reads the image.
    """

    def __init__(self, images: ImageSet, recipe: ClassifierRecipe) -> None:
        self._images = images
        steps: list[v2.Transform] = []
        if recipe.random_crop_min_area:
            side = recipe.image_side_px
            scale = (recipe.random_crop_min_area, 1.0)
            steps.append(v2.RandomResizedCrop((side, side), scale, ASPECTS, antialias=True))
        if recipe.trivial_augment:
            steps.append(v2.TrivialAugmentWide())
        self._transform = v2.Compose(steps) if steps else None

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, int]:
        index, seed = item
        image, label = self._images[index]
        if self._transform is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                image = self._transform(image)
        return image, label


class EvaluationImages(Dataset[tuple[Tensor, int]]):
    """Evaluation images: a central crop where training takes random crops.

    Items are an image, (3, H, W) uint8, and its class index.
    """

    def __init__(self, images: ImageSet, recipe: ClassifierRecipe) -> None:
        self._images, self._transform = images, None
        if recipe.random_crop_min_area:
            side = recipe.image_side_px
            resized = round(side / recipe.evaluation_crop)
            self._transform = v2.Compose([v2.Resize(resized, antialias=True), v2.CenterCrop(side)])

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self._images[index]
        return image if self._transform is None else self._transform(image), label


def prepare(images: Tensor, recipe: ClassifierRecipe) -> Tensor:
    """Convert images to floats in [0, 1] and resize them to the recipe's size.

    Shape:
        - images: (B, 3, H, W), uint8
        - output: (B, 3, side, side), float32, channels last
    """
    side = recipe.image_side_px
    pixels = images.float() / 255
    if side and pixels.shape[-2:] != (side, side):
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return pixels.contiguous(memory_format=torch.channels_last)


def augment(images: Tensor, recipe: ClassifierRecipe) -> Tensor:
    """Flip, shift and erase a square, drawn independently for every image of a batch.

    Shape:
        - images: (B, 3, H, W) in [0, 1]
        - output: the same
    """
    for axis, wanted in ((-1, recipe.horizontal_flip), (-2, recipe.vertical_flip)):
        if wanted:
            chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
            images = torch.where(chosen, images.flip(axis), images)
    if recipe.crop_padding_px:
        images = random_shift(images, recipe.crop_padding_px)
    return cut_out(images, recipe.cutout_side_px) if recipe.cutout_side_px else images


def random_shift(images: Tensor, padding_px: int) -> Tensor:
    """Shift every image by up to ``padding_px`` along each axis, with reflection at the border."""
    top, left = torch.randint(2 * padding_px + 1, (2, len(images), 1), device=images.device)
    return shift_and_flip(images, shifts=torch.cat([top, left], dim=1), padding_px=padding_px)


def shift_and_flip(
    images: Tensor, *, shifts: Tensor, flips: Tensor | None = None, padding_px: int
) -> Tensor:
    """Shift and horizontally flip each image by its own amount, in one gather.

    Args:
        images: (B, C, H, W).
        shifts: (B, 2), int64: rows and columns, from 0 to ``2 * padding_px``; ``padding_px`` is no
            shift.
        flips: (B,), bool: the images to flip; None flips none.
        padding_px: rows and columns that are reflected at every border, less than H and W.

    Returns:
        (B, C, H, W), with channels last in memory.

    Raises:
        ValueError: if an image is too small for the padding.
    """
    height, width = images.shape[2:]
    if padding_px >= min(height, width):
        raise ValueError(
            f"images of {width} x {height} px are too small for shifts of {padding_px} px"
        )
    rows = torch.arange(height, device=images.device) + shifts[:, :1] - padding_px
    columns = torch.arange(width, device=images.device) + shifts[:, 1:] - padding_px
    if flips is not None:
        columns = torch.where(flips[:, None], columns.flip(1), columns)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    # Channels stay contiguous, so that each of the H x W indices moves C values.
    gathered = images.permute(0, 2, 3, 1)[
        batch, _reflect(rows, height)[:, :, None], _reflect(columns, width)[:, None, :]
    ]
    return gathered.permute(0, 3, 1, 2)


def _reflect(indices: Tensor, side: int) -> Tensor:
    indices = indices.abs()
    return torch.where(indices >= side, 2 * (side - 1) - indices, indices)


def cut_out(images: Tensor, side_px: int) -> Tensor:
    """Erase a square of every image to gray (Cutout, DeVries & Taylor 2017, section 3.2).

    The center is any pixel, so that part of the square may be outside the image.
    """
    count, _, height, width = images.shape

    def covered(length: int) -> Tensor:
        center = torch.randint(length, (count, 1), device=images.device)
        offset = torch.arange(length, device=images.device) - (center - side_px // 2)
        return (offset >= 0) & (offset < side_px)

    rows, columns = covered(height), covered(width)
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], GRAY)


def mix(
    images: Tensor, labels: Tensor, recipe: ClassifierRecipe, *, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Apply MixUp (Zhang et al. 2018) or CutMix (Yun et al. 2019) to a batch and its labels.

    If both are enabled, one is chosen at random per batch.

    Returns:
        Images of the same shape, and labels: (B,) unchanged, or (B, num_classes) probabilities.
    """
    alphas = ((v2.MixUp, recipe.mixup_alpha), (v2.CutMix, recipe.cutmix_alpha))
    kinds = [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in alphas if alpha]
    if not kinds:
        return images, labels
    chosen = kinds[int(torch.randint(len(kinds), ()))]
    mixed: tuple[Tensor, Tensor] = chosen(images, labels)
    return mixed
