"""Configuration for pretraining, and the parts that all configurations share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from backbone.io.lazy import load_target
from backbone.presets import Preset

MIN_WIDTH = 4
"""Minimum filters of the first stack's cells: the two stem cells have a quarter and a half of them,
rounded down."""
MIN_SIDE_PX = 32
"""Minimum side of the images that a backbone takes."""

RENAMED_SETTINGS: Mapping[str, str] = {
    "decay_factor": "lr_gamma",
    "drop_path_keep": "drop_path_keep_prob",
}
"""Former name of a setting -> current name."""

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
    """Raise a ValueError that names the first value below ``least``; NaN is refused too."""
    for name, value in values.items():
        if not value >= least:
            raise ValueError(f"{name} must be at least {least}, not {value}")


def require_above(bound: float, **values: float) -> None:
    """Raise a ValueError that names the first value not above ``bound``; NaN is refused too."""
    for name, value in values.items():
        if not value > bound:
            raise ValueError(f"{name} must be above {bound}, not {value}")


def require_choice(
    name: str, value: str, choices: Collection[str], *, renamed: Mapping[str, str] | None = None
) -> None:
    """Raise a ValueError if a value is not one of the choices.

    Args:
        name: name of the setting, for the message.
        value: value of the setting.
        choices: valid values.
        renamed: former value -> current value.
    """
    if value in choices:
        return
    if renamed and value in renamed:
        raise ValueError(f"{name}={value} is now called {name}={renamed[value]}")
    raise ValueError(f"unknown {name} {value!r}; choose from {tuple(choices)}")


@dataclass(kw_only=True, slots=True)
class ClassifierRecipe(Preset):
    """Recipe for training a classifier."""

    preset_group: ClassVar[str] = "backbone/recipe"

    epochs: int
    """Number of passes over the training images."""
    batch_size: int
    """Images per step and process."""
    optimizer: str
    """``adamw``, ``muon``, ``rmsprop`` or ``sgd``; see ``backbone.training.optim``."""
    learning_rate: float
    """Peak learning rate, reached after warm-up."""
    weight_decay: float
    """Weight decay of matrices and filters; biases and normalization have none."""
    schedule: str = "cosine"
    """Learning-rate schedule after warm-up: ``cosine`` (to 0 along half a cosine) or
    ``exponential`` (times ``lr_gamma`` every ``decay_epochs``)."""
    lr_gamma: float = 0.97
    """Factor of the exponential schedule, in (0, 1]."""
    decay_epochs: float = 2.4
    """Epochs between two steps of the exponential schedule."""
    warmup_epochs: float = 1.0
    """Epochs of linear warm-up from 0."""
    label_smoothing: float = 0.1
    """Fraction of the target spread over all classes, in [0, 1) (paper, appendix A.7: 0.1)."""
    gradient_clip: float = 5.0
    """Maximum norm of the gradient of all parameters; 0 disables clipping."""
    dropout: float = 0.0
    """Dropout probability of the last features, in [0, 1)."""
    auxiliary_weight: float = 0.0
    """Weight of the auxiliary head's loss (paper, appendix A.7: 0.4); 0 builds no such head."""
    drop_path_keep_prob: float = 1.0
    """Probability that ScheduledDropPath (paper, section 4) keeps an operation of the last cell at
    the end of training, in (0, 1]; 1 disables it. Cells only."""
    ema_decay: float = 0.0
    """Decay of the moving average of the weights that is validated and saved, in [0, 1) (paper,
    appendix A.7: 0.9999); 0 disables averaging."""
    batch_norm_momentum: float = 0.1
    """Weight of a batch in the running statistics, in (0, 1]; 1 minus TensorFlow's decay."""
    crop_padding_px: int = 8
    """Maximum random shift in pixels, per axis; borders are reflected."""
    horizontal_flip: bool = True
    """Random horizontal flip (p=0.5)."""
    vertical_flip: bool = False
    """Random vertical flip (p=0.5); for data without a canonical orientation."""
    image_side_px: int = 0
    """Side to which images are resized; 0 keeps their size, which must then be the same for all."""
    random_crop_min_area: float = 0.0
    """Minimum area of random resized crops, as a fraction of the image (Szegedy et al. 2015,
    section 6: 0.08); evaluation takes central crops. 0 takes whole images. Needs
    ``image_side_px``."""
    evaluation_crop: float = 0.875
    """Side of the central crop as a fraction of the image's shorter side, in (0, 1]."""
    cutout_side_px: int = 0
    """Side of Cutout's gray square (DeVries & Taylor 2017; 16 for CIFAR); 0 disables it."""
    trivial_augment: bool = False
    """Apply TrivialAugment (Mueller & Hutter 2021): one random change of color or shape."""
    mixup_alpha: float = 0.0
    """Alpha of MixUp, usually 0.2; 0 disables it."""
    cutmix_alpha: float = 0.0
    """Alpha of CutMix, usually 1.0; 0 disables it."""
    checkpoint_every: int = 1000
    """Maximum number of steps between resume checkpoints."""

    def __post_init__(self) -> None:
        require_choice("optimizer", self.optimizer, OPTIMIZERS)
        require_choice("schedule", self.schedule, SCHEDULES)
        if self.random_crop_min_area and not self.image_side_px:
            raise ValueError("random_crop_min_area needs image_side_px, the side of the crops")
        counts = ("epochs", "batch_size", "checkpoint_every")
        require_at_least(1, **{name: getattr(self, name) for name in counts})
        require_above(0, learning_rate=self.learning_rate, decay_epochs=self.decay_epochs)
        require_at_least(0, weight_decay=self.weight_decay, gradient_clip=self.gradient_clip)
        for name in ("label_smoothing", "dropout", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        for name in ("lr_gamma", "drop_path_keep_prob", "evaluation_crop", "batch_norm_momentum"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in (0, 1], not {getattr(self, name)}")


@dataclass(kw_only=True, slots=True)
class PretrainConfig:
    """Configuration for one pretraining run."""

    backbone: str
    """Backbone spec, such as ``nasnet_a:4@1056`` or ``runs/search/cells.json:2@384``."""
    data_root: str
    """Image folder with ``train`` and ``val``, or the folder of CIFAR-10."""
    recipe: ClassifierRecipe
    grayscale: bool = False
    """Convert images to gray, here and wherever the trained backbone is used."""
    stem: str = "imagenet"
    """Stem of cells: ``imagenet``, or ``cifar``, which keeps the resolution of small images."""
    norm: str = "batch"
    """Normalization layers: ``batch``, ``sync`` (over all processes) or ``group``."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    download: bool = False
    """Download CIFAR-10 into ``data_root`` if it is missing."""
    seed: int = 0
    """Seed of the initial weights, the order of images and their augmentation."""
    num_workers: int = 0
    """Data-loading processes; 0 loads in the training process."""
    precision: str = "32-true"
    """Lightning precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``."""
    accelerator: str = "auto"
    """Lightning accelerator: ``auto``, ``cpu`` or ``gpu``."""
