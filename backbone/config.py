"""Configuration for pretraining, and what every package's configuration is built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

MIN_WIDTH = 4
"""Filters of the first stack's cells: two stem cells run at a quarter and a half of them, rounded
down."""
MIN_SIDE_PX = 32
"""Of the images that a backbone takes."""

RENAMED_SETTINGS: Mapping[str, str] = {}
"""Former name of a setting -> its name now."""

STEMS = ("imagenet", "cifar")
OPTIMIZERS = ("adamw", "muon", "rmsprop", "sgd")
SCHEDULES = ("cosine", "exponential")


@dataclass(frozen=True, slots=True)
class Choice:
    """One row of a table of choices: the config that selects an implementation, and where it is.

    Tables of choices map a name to a row. Builders, checkpoint readers and Hydra read the same
    table; the implementation is imported when it is chosen.
    """

    config: type[Any]
    """The config dataclass; its module must not import torch."""
    target: str
    """The implementation, as ``package.module:name``."""

    def load(self) -> Any:
        """Import the implementation."""
        return load_target(self.target)


def load_target(target: str) -> Any:
    """Import an object by its path, ``package.module:name``."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def find_choice(table: Mapping[str, Choice], config: object) -> Choice:
    """Return the row of a table of choices whose config type is that of ``config``.

    Raises:
        TypeError: if no row has exactly that type.
    """
    for choice in table.values():
        if type(config) is choice.config:
            return choice
    known = [choice.config.__name__ for choice in table.values()]
    raise TypeError(f"unknown choice {type(config).__name__}; use one of {known}")


def require_at_least(least: float, **values: float) -> None:
    """Raise a ValueError with the name of the first value that is less, or NaN."""
    for name, value in values.items():
        if not value >= least:  # refuses NaN too
            raise ValueError(f"{name} must be at least {least}, not {value}")


@dataclass(kw_only=True, slots=True)
class ClassifierRecipe:
    """How a classifier is trained."""

    epochs: int
    """Passes over the training images."""
    batch_size: int
    """Images per step and process."""
    optimizer: str
    """``adamw``, ``muon``, ``rmsprop`` or ``sgd``; see ``backbone.training.optim``."""
    learning_rate: float
    """Highest rate; reached after the warm-up."""
    weight_decay: float
    """Of weight matrices and filters only, not of biases and normalization."""
    schedule: str = "cosine"
    """How the rate falls: ``cosine``, to 0 along half a cosine; or ``exponential``, in steps."""
    decay_factor: float = 0.97
    """Of the exponential schedule: the rate is multiplied by this at every step."""
    decay_epochs: float = 2.4
    """Epochs from one such step to the next."""
    warmup_epochs: float = 1.0
    """Epochs over which the rate rises linearly from 0."""
    label_smoothing: float = 0.1
    """Share of the target spread over all classes, 0 to 1 (paper, appendix A.7: 0.1)."""
    gradient_clip: float = 5.0
    """Greatest norm of the whole gradient; 0 for no limit."""
    dropout: float = 0.0
    """Share of the last features that training leaves out, 0 to 1."""
    auxiliary_weight: float = 0.0
    """Weight of the auxiliary head's loss; 0 builds none (paper, appendix A.7: 0.4)."""
    drop_path_keep: float = 1.0
    """ScheduledDropPath: share of operations that the last cell keeps at the end (paper,
    section 4); 1 drops none. Cells only."""
    ema_decay: float = 0.0
    """The weights that are validated and written are a moving average of this decay (paper,
    appendix A.7: 0.9999); 0 takes the last ones."""
    batch_norm_momentum: float = 0.1
    """Share of a batch in the running statistics; TensorFlow's decay is 1 minus this."""
    crop_padding_px: int = 8
    """Images are shifted by up to this many pixels, reflected at the border."""
    horizontal_flip: bool = True
    """Whether half of the images are mirrored."""
    vertical_flip: bool = False
    """Whether half of the images are turned upside down: right for images without an up."""
    image_side_px: int = 0
    """Images are resized to squares of this side; 0 leaves them, if all have one size."""
    random_crop_min_area: float = 0.0
    """Training takes random crops of at least this share of an image (Szegedy et al. 2015,
    section 6: 0.08), evaluation central ones; 0: all of every image. Needs ``image_side_px``."""
    evaluation_crop: float = 0.875
    """Share of an image's shorter side that its central crop takes."""
    cutout_side_px: int = 0
    """Side of a square that is made grey (DeVries & Taylor 2017; for CIFAR 16); 0: none."""
    trivial_augment: bool = False
    """Whether every image undergoes a random change of colour or shape (Mueller & Hutter 2021)."""
    mixup_alpha: float = 0.0
    """MixUp of images and labels, 0.2 being usual; 0: none."""
    cutmix_alpha: float = 0.0
    """CutMix likewise, 1.0 being usual."""
    checkpoint_every: int = 1000
    """A training can go on from its last checkpoint, which is at most so many steps back."""

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {self.optimizer!r}; choose from {OPTIMIZERS}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"unknown schedule {self.schedule!r}; choose from {SCHEDULES}")
        if self.random_crop_min_area and not self.image_side_px:
            raise ValueError("random_crop_min_area needs image_side_px, the side of the crops")
        self._check_ranges()

    def _check_ranges(self) -> None:
        for name in ("epochs", "batch_size", "checkpoint_every"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("learning_rate", "decay_epochs"):
            self._require(name, getattr(self, name) > 0, "above 0")
        for name in ("label_smoothing", "dropout", "ema_decay"):
            self._require(name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        for name in ("drop_path_keep", "evaluation_crop", "decay_factor", "batch_norm_momentum"):
            self._require(name, 0 < getattr(self, name) <= 1, "in (0, 1]")

    def _require(self, name: str, holds: bool, words: str) -> None:
        if not holds:
            raise ValueError(f"{name} must be {words}, not {getattr(self, name)}")


@dataclass(kw_only=True, slots=True)
class PretrainConfig:
    """One pretraining: which backbone, on which images, how."""

    backbone: str
    """Backbone spec, such as ``nasnet_a:4@1056`` or ``runs/search/cells.json:2@384``."""
    data_root: str
    """Image folder with ``train`` and ``val``, or the place of CIFAR-10."""
    recipe: ClassifierRecipe
    grayscale: bool = False
    """Whether the backbone sees images without their colours, here and wherever its weights go."""
    stem: str = "imagenet"
    """Of cells: ``imagenet``, or ``cifar``, which keeps the size of small images."""
    norm: str = "batch"
    """``batch``, ``sync`` over all processes, or ``group``."""
    activation_checkpointing: bool = False
    """Whether activations are computed again for the gradient: less memory, more time."""
    download: bool = False
    """Whether CIFAR-10 may be fetched into ``data_root``."""
    seed: int = 0
    """Seed of the initial weights, the order of images and their augmentation."""
    num_workers: int = 0
    """Processes that read images; 0 reads in the training process."""
    precision: str = "32-true"
    """Lightning's name of the arithmetic: ``32-true``, ``bf16-mixed``, ``16-mixed``."""
    accelerator: str = "auto"
    """Lightning's name of the device kind: ``auto``, ``cpu``, ``gpu``."""
