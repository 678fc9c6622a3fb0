"""What training does to labelled images: one by one as they are read, and batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision.transforms import v2

from backbone.config import ClassifierRecipe
from backbone.training.images import ImageSet

ASPECTS = (3 / 4, 4 / 3)
"""Width by height of random crops (Szegedy et al. 2015, section 6)."""
GREY = 0.5


class TrainingImages(Dataset[tuple[Tensor, int]]):
    """Images as training reads them, by index and seed; see ``IterationSampler``.

    Items are an image, (3, H, W) uint8, and its class's number. What is random depends on the seed
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

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, int]:
        index, seed = place
        image, label = self._images[index]
        if self._transform is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                image = self._transform(image)
        return image, label


class EvaluationImages(Dataset[tuple[Tensor, int]]):
    """Images as evaluation reads them: a central crop where training crops at random.

    Items are an image, (3, H, W) uint8, and its class's number.
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
    """Bring bytes, (B, 3, H, W) uint8, to [0, 1] and to the recipe's size."""
    side = recipe.image_side_px
    pixels = images.float() / 255
    if side and pixels.shape[-2:] != (side, side):
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return pixels.contiguous(memory_format=torch.channels_last)


def augment(images: Tensor, recipe: ClassifierRecipe) -> Tensor:
    """Flip, shift and cut out of every image of a batch by its own draw.

    Shape:
        - images: (B, 3, H, W) in [0, 1]
        - output: the same
    """
    for axis, wanted in ((-1, recipe.horizontal_flip), (-2, recipe.vertical_flip)):
        if wanted:
            chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
            images = torch.where(chosen, images.flip(axis), images)
    if recipe.crop_padding_px:
        images = shift(images, recipe.crop_padding_px)
    return cut_out(images, recipe.cutout_side_px) if recipe.cutout_side_px else images


def shift(images: Tensor, padding_px: int) -> Tensor:
    """Move every image by up to ``padding_px`` each way, reflected at the border."""
    count, _, height, width = images.shape
    padded = F.pad(images, (padding_px,) * 4, mode="reflect")
    top, left = torch.randint(2 * padding_px + 1, (2, count, 1), device=images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    index = torch.arange(count, device=images.device)[:, None, None]
    # Advanced indexing puts channels last, which is the memory layout that convolutions want.
    moved = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def cut_out(images: Tensor, side_px: int) -> Tensor:
    """Make a square of every image grey (DeVries & Taylor 2017, section 3.2).

    Its centre is any pixel, so that it may stick out of the image.
    """
    count, _, height, width = images.shape

    def covered(length: int) -> Tensor:
        centre = torch.randint(length, (count, 1), device=images.device)
        offset = torch.arange(length, device=images.device) - (centre - side_px // 2)
        return (offset >= 0) & (offset < side_px)

    rows, columns = covered(height), covered(width)
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], GREY)


def mix(
    images: Tensor, labels: Tensor, recipe: ClassifierRecipe, *, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Mix the images of a batch with each other, and their labels alike.

    Half of the batches, if both are wanted, by MixUp (Zhang et al. 2018), half by CutMix (Yun et
    al. 2019).

    Returns:
        Images of the same shape, and labels: (B,) as they were, or (B, num_classes) shares.
    """
    alphas = ((v2.MixUp, recipe.mixup_alpha), (v2.CutMix, recipe.cutmix_alpha))
    kinds = [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in alphas if alpha]
    if not kinds:
        return images, labels
    chosen = kinds[int(torch.randint(len(kinds), ()))]
    mixed: tuple[Tensor, Tensor] = chosen(images, labels)
    return mixed
