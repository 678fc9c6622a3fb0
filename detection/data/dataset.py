"""COCO-format images and targets for training and evaluation."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from backbone.io.provenance import fingerprint_folder
from backbone.training.images import CACHE_BYTES, read_image
from detection.config import DetectionDataConfig, DetectorRecipe, conversion_hint
from detection.data.coco import CocoTable, require_categories
from detection.data.transforms import Augmentation
from detection.structures import DetectionBatch, Target

MAX_NAMED_CLASSES = 5
"""Maximum number of classes in the description of a data set."""


@dataclass(frozen=True, slots=True)
class Example:
    """One image with its objects, resized for the detector."""

    image: Tensor
    """(3, H, W) float32 in [0, 1]."""
    target: Target
    """Objects in the pixels of ``image``; crowds are left out."""
    image_id: int
    """COCO image id."""
    original_size: tuple[int, int]
    """Height and width of the image file, in pixels."""


def collate(examples: Sequence[Example]) -> DetectionBatch:
    """Collate examples to a batch; images keep their sizes."""
    return DetectionBatch(
        [e.image for e in examples],
        [e.target for e in examples],
        [e.image_id for e in examples],
        [e.original_size for e in examples],
    )


class CocoDataset(Dataset[Example]):
    """Images of one COCO JSON with their boxes.

    Decoded images are cached in memory if all of them fit into 2 GiB.

    Args:
        annotations: table of the COCO JSON.
        image_root: folder that its file names are relative to.
        augmentation: resizing and, for training, random transforms.
        keep_empty: whether to keep images without objects (crowds are not objects here).

    Raises:
        FileNotFoundError: if the image folder or an image is missing.
        ValueError: if no image is left.
    """

    def __init__(
        self,
        annotations: CocoTable,
        image_root: Path,
        *,
        augmentation: Augmentation,
        keep_empty: bool = True,
    ) -> None:
        if not image_root.is_dir():
            raise FileNotFoundError(f"image folder {image_root} does not exist")
        self.annotations, self.image_root = annotations, image_root
        self._augmentation = augmentation
        self._indices = [
            index
            for index in range(len(annotations.images))
            if keep_empty or not annotations.crowd_of(index).all()
        ]
        if not self._indices:
            raise ValueError(f"{annotations.path} has no image with an object")
        self._require_files()
        self._cache = self._empty_cache()

    def _require_files(self) -> None:
        """Raise a FileNotFoundError now instead of in the middle of a training."""
        names = [self.annotations.images[index].file_name for index in self._indices]
        missing = [name for name in names if not os.path.isfile(f"{self.image_root}/{name}")]  # noqa: PTH113  # 118,287 times
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(names)} images of {self.annotations.path} are not in "
                f"{self.image_root}, first {missing[0]!r}"
            )

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def image_ids(self) -> list[int]:
        """COCO image ids, in order."""
        return [self.annotations.images[index].id for index in self._indices]

    @property
    def wide(self) -> list[bool]:
        """Whether each image is wider than high, in order."""
        images = self.annotations.images
        return [images[index].width > images[index].height for index in self._indices]

    @property
    def num_objects(self) -> int:
        """Number of objects in all images, without crowds."""
        return sum(int((~self.annotations.crowd_of(index)).sum()) for index in self._indices)

    def sample(self, num_images: int) -> CocoDataset:
        """Return a dataset of a random subset of images, always the same for the same number."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(len(self)))
        smaller = copy.copy(self)
        smaller._indices = [self._indices[i] for i in sorted(order[:num_images].tolist())]
        smaller._cache = smaller._empty_cache()
        return smaller

    def __getitem__(self, item: int | tuple[int, int]) -> Example:
        """Return an example; ``item`` is its number, or a pair of it and the augmentation seed."""
        number, seed = item if isinstance(item, tuple) else (item, None)
        index = self._indices[number]
        record = self.annotations.images[index]
        real = ~torch.from_numpy(self.annotations.crowd_of(index))
        objects = Target(
            torch.from_numpy(self.annotations.boxes_of(index))[real],
            torch.from_numpy(self.annotations.labels_of(index))[real],
        )
        image, target = self._augmentation(self._read(index), objects, seed=seed)
        return Example(image, target, record.id, (record.height, record.width))

    def size(self, item: int) -> tuple[int, int]:
        """Return width and height of an image in pixels, as in the annotations."""
        record = self.annotations.images[self._indices[item]]
        return record.width, record.height

    def pixels(self, item: int) -> Tensor:
        """Return a decoded image: (3, H, W) uint8."""
        return self._read(self._indices[item])

    def _empty_cache(self) -> dict[int, Tensor] | None:
        records = (self.annotations.images[index] for index in self._indices)
        decoded = sum(3 * record.width * record.height for record in records)
        return {} if decoded <= CACHE_BYTES else None

    def _read(self, index: int) -> Tensor:
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        record = self.annotations.images[index]
        pixels = read_image(self.image_root / record.file_name, size=(record.width, record.height))
        if self._cache is not None:
            self._cache[index] = pixels
        return pixels


def load_split(
    config: DetectionDataConfig, split: str, *, recipe: DetectorRecipe | None = None
) -> CocoDataset:
    """Open the ``train`` or ``val`` split; only training drops images without objects.

    Args:
        config: the data.
        split: ``train`` or ``val``.
        recipe: training recipe with the augmentation; None resizes only, as evaluation does.

    Raises:
        FileNotFoundError: if the root, the annotations or the images are missing.
        ValueError: if the annotations are wrong; see ``CocoTable.load``.
    """
    root = Path(config.root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"data root {root} does not exist; give the folder of your data, data.root=..., or "
            "make the demonstration data: nasdet make-shapes"
        )
    train = split == "train"
    path = root / (config.train_annotations if train else config.val_annotations)
    if not path.exists():
        raise FileNotFoundError(f"file {path} does not exist{conversion_hint(root)}")
    return CocoDataset(
        CocoTable.load(path, bad_boxes=config.bad_boxes),
        root / (config.train_images if train else config.val_images),
        augmentation=Augmentation.of_training(config, recipe)
        if recipe
        else Augmentation.none(config),
        keep_empty=config.keep_empty or not train,
    )


def load_splits(
    config: DetectionDataConfig, recipe: DetectorRecipe
) -> tuple[CocoDataset, CocoDataset]:
    """Open both splits for a training: ``train`` with its recipe's augmentation, and ``val``.

    Raises:
        FileNotFoundError: as ``load_split``.
        ValueError: as ``load_split``, if the two declare different categories, and if the objects
            of ``val`` cannot be scored.
    """
    train = load_split(config, "train", recipe=recipe)
    val = load_split(config, "val")
    require_categories(train.annotations.categories, train.annotations.path, val.annotations)
    _ = val.annotations.ground_truth  # refuses objects that cannot be scored before the training
    return train, val


def describe_splits(train: CocoDataset, val: CocoDataset) -> str:
    """Return the folder, the images and the classes of a data set in one line."""
    names = train.annotations.class_names
    listed = ", ".join(names[:MAX_NAMED_CLASSES]) + (", ..." if names[MAX_NAMED_CLASSES:] else "")
    return (
        f"{train.image_root.parent}, {len(train)} training and {len(val)} validation images, "
        f"{len(names)} classes: {listed}"
    )


def data_arguments(config: DetectionDataConfig) -> Mapping[str, Any]:
    """Return the settings of the data that affect a training, for its provenance; not the paths."""
    return {
        "sides_px": [config.shortest_side_px, config.longest_side_px],
        "bad_boxes": config.bad_boxes,
        "keep_empty": config.keep_empty,
    }


def fingerprint_splits(train: CocoDataset, val: CocoDataset) -> Mapping[str, str]:
    """Return the fingerprints of the annotations and images of both splits, for the provenance."""
    return {
        f"{name}_{part}": fingerprint
        for name, split in (("train", train), ("val", val))
        for part, fingerprint in (
            ("annotations", split.annotations.fingerprint),
            ("images", fingerprint_folder(split.image_root)),
        )
    }
