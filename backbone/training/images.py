"""Reading of images in any mode, and labeled image sets for training.

An image set is a folder ``<root>/<split>/<class>/<file>`` (the layout of ImageNet and of the
demonstration data) or CIFAR-10 in torchvision's format.
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
"""Split -> candidate folder names, in order of preference."""
CACHE_BYTES = 2 * 2**30
"""Maximum size of the decoded images that are kept in memory."""


def read_image(path: str | Path, *, size: tuple[int, int] | None = None) -> Tensor:
    """Read an image of any mode as RGB.

    Grayscale, CMYK, palette, 16-bit and transparent images are converted; transparent pixels become
    white. An EXIF rotation is applied, unless only the unrotated image has the expected ``size``.

    Args:
        path: image file.
        size: expected width and height in pixels, as stated by an annotation file.

    Returns:
        (3, H, W), uint8.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file is not an image, is truncated, or does not have that ``size``.
    """
    try:
        with Image.open(path) as file:
            file.load()
            upright = ImageOps.exif_transpose(file)
            image = file if upright.size != size == file.size else upright
            pixels = image_tensor(image)
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
    height, width = pixels.shape[-2:]
    if size is not None and (width, height) != tuple(size):
        raise ValueError(
            f"image {path} is {width} x {height} pixels, but {size[0]} x {size[1]} in its "
            "annotations"
        )
    return pixels


def image_tensor(image: Image.Image) -> Tensor:
    """Return a PIL image of any mode as RGB, (3, H, W) uint8; see ``read_image``.

    Its EXIF rotation is not applied.
    """
    return torch.from_numpy(np.array(_to_rgb(image))).permute(2, 0, 1).contiguous()


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow clips these to 0..255 instead of scaling; 16-bit files range from 0 to 65535.
        values = np.asarray(image, dtype=np.float64)
        scale = 255 / 65535 if values.max(initial=0) > 255 else 1.0
        return Image.fromarray(np.round(values * scale).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


@dataclass(frozen=True)
class ImageSet(Dataset[tuple[Tensor, int]]):
    """Labeled images, cached in memory where they fit.

    Items are an image, (3, H, W) uint8, and its class index.
    """

    classes: tuple[str, ...]
    labels: tuple[int, ...]
    read: Callable[[int], Tensor]
    """Read an image by its index: (3, H, W), uint8."""
    fingerprint: str
    """Digest of the set's contents."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.read(index), self.labels[index]


def load_image_set(root: str | Path, split: str, *, download: bool = False) -> ImageSet:
    """Open one split of a labeled image set.

    Args:
        root: folder with ``train/<class>/`` and ``val/<class>/`` (or ``test/<class>/``), or with
            CIFAR-10 as torchvision unpacks it.
        split: ``train`` or ``val``.
        download: download CIFAR-10 into ``root`` if it is missing.

    Raises:
        FileNotFoundError: if the root or the split is missing or contains no image.
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
    folders = sorted(p.name for p in root.iterdir() if p.is_dir())[:5]
    names = " or ".join(SPLIT_NAMES[split])
    raise FileNotFoundError(f"image folder {root} has no folder {names}; it contains {folders}")


def _image_folder(folder: Path) -> ImageSet:
    classes = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir()))
    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not files:
        raise FileNotFoundError(f"{folder} contains no images; expected {folder}/<class>/<image>")
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
    """Reader of images by index, with a cache of ``CACHE_BYTES``."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._cache: dict[int, Tensor] = {}
        self._free_bytes: int | None = None

    def __call__(self, index: int) -> Tensor:
        if self._free_bytes is None:  # every worker process has its own copy of this object
            worker = get_worker_info()
            self._free_bytes = CACHE_BYTES // (worker.num_workers if worker else 1)
        image = self._cache.get(index)
        if image is None:
            image = read_image(self._paths[index])
            if image.numel() <= self._free_bytes:
                self._free_bytes -= image.numel()
                self._cache[index] = image
        return image
