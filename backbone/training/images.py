"""Images from disk, whatever mode they are in, and labelled image sets for training.

An image set is a folder ``<root>/<split>/<class>/<file>`` (ImageNet's layout; the demonstration
data's; anybody's) or CIFAR-10 as torchvision keeps it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info
from torchvision import datasets

from backbone.io.provenance import fingerprint_folder

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})
SPLIT_NAMES = {
    "train": ("train",),
    "val": ("val", "validation", "test"),
}
"""Split -> folder names that are looked for, in this order."""
CACHE_BYTES = 2 * 2**30
"""Sets that decode to at most this many bytes are kept in memory."""


def read_image(path: str | Path, *, size: tuple[int, int] | None = None) -> Tensor:
    """Read an image of any mode as RGB, upright.

    Greyscale, CMYK, palette, 16-bit and transparent images are converted; what is transparent
    becomes white. An EXIF rotation is applied, unless ``size`` says that it was not meant to be.

    Args:
        path: the file.
        size: width and height, in pixels, that the image should have, as an annotation file gives
            them; it decides whether the EXIF rotation holds.

    Returns:
        (3, H, W), uint8.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not an image, is truncated, or is not of that ``size``.
    """
    try:
        with Image.open(path) as file:
            file.load()
            upright = ImageOps.exif_transpose(file)
            image = file if upright.size != size == file.size else upright
            pixels = np.array(_to_rgb(image))
    except FileNotFoundError:
        raise
    except (
        OSError,
        SyntaxError,
        ValueError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
    ) as error:
        raise ValueError(f"cannot read image {path}: {error}") from error
    if size is not None and pixels.shape[1::-1] != tuple(size):
        raise ValueError(
            f"image {path} is {pixels.shape[1]} x {pixels.shape[0]} pixels, "
            f"but its annotations say {size[0]} x {size[1]}"
        )
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow clips these to 0..255 instead of scaling. 16-bit files span 0..65535.
        values = np.asarray(image, dtype=np.float64)
        scale = 255 / 65535 if values.max(initial=0) > 255 else 1.0
        return Image.fromarray(np.round(values * scale).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


@dataclass(frozen=True)
class ImageSet(Dataset[tuple[Tensor, int]]):
    """Labelled images, decoded once where memory allows.

    Items are an image, (3, H, W) uint8 after ``transform``, and its class's number.
    """

    classes: tuple[str, ...]
    labels: tuple[int, ...]
    read: Callable[[int], Tensor]
    """Index -> (3, H, W) uint8."""
    fingerprint: str
    """Digest of what the set consists of."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.read(index), self.labels[index]


def load_image_set(root: str | Path, split: str, *, download: bool = False) -> ImageSet:
    """Open one split of a labelled image set.

    Args:
        root: a folder with ``train/<class>/`` and ``val/<class>/`` (or ``test/<class>/``), or one
            that holds CIFAR-10 as torchvision unpacks it.
        split: ``train`` or ``val``.
        download: fetch CIFAR-10 into ``root`` if nothing is there.

    Raises:
        FileNotFoundError: if the root or the split is missing or holds no image.
        ValueError: if ``split`` is neither ``train`` nor ``val``.
    """
    if split not in SPLIT_NAMES:
        raise ValueError(f"unknown split {split!r}; choose from {sorted(SPLIT_NAMES)}")
    root = Path(root)
    if download or (root / "cifar-10-batches-py").is_dir():
        return _cifar10(root, split, download=download)
    if not root.is_dir():
        raise FileNotFoundError(f"image folder {root} does not exist")
    for name in SPLIT_NAMES[split]:
        if (root / name).is_dir():
            return _image_folder(root / name)
    found = sorted(p.name for p in root.iterdir() if p.is_dir())[:5]
    raise FileNotFoundError(
        f"image folder {root} has no split {' or '.join(SPLIT_NAMES[split])}; it holds {found}"
    )


def _image_folder(folder: Path) -> ImageSet:
    classes = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir()))
    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not files:
        raise FileNotFoundError(f"{folder} holds no images; expected {folder}/<class>/<image>")
    paths = [path for path, _ in files]
    return ImageSet(
        classes, tuple(label for _, label in files), _Reader(paths), fingerprint_folder(folder)
    )


def _cifar10(root: Path, split: str, *, download: bool) -> ImageSet:
    data = datasets.CIFAR10(str(root), train=split == "train", download=download)
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    digest = hashlib.sha256(images.numpy().tobytes()).hexdigest()
    return ImageSet(tuple(data.classes), tuple(data.targets), images.__getitem__, digest)


class _Reader:
    """Reads images by index and keeps them while they fit into ``CACHE_BYTES``."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._cache: dict[int, Tensor] = {}
        self._room: int | None = None

    def __call__(self, index: int) -> Tensor:
        if self._room is None:  # every worker process has a copy of this object
            worker = get_worker_info()
            self._room = CACHE_BYTES // (worker.num_workers if worker else 1)
        image = self._cache.get(index)
        if image is None:
            image = read_image(self._paths[index])
            if image.numel() <= self._room:
                self._room -= image.numel()
                self._cache[index] = image
        return image
