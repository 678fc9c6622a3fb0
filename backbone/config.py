"""What the stages of this package can be told."""

from __future__ import annotations

from dataclasses import dataclass

OPTIMIZERS = ("adamw", "muon", "sgd")


@dataclass(kw_only=True, slots=True)
class ClassifierRecipe:
    """How a classifier is trained."""

    epochs: int
    """Passes over the training images."""
    batch_size: int
    """Images per step and process."""
    optimizer: str
    """``adamw``, ``muon`` or ``sgd``; see ``backbone.optimization.build_optimizer``."""
    learning_rate: float
    """Highest rate; reached after the warm-up, then lowered to 0 along half a cosine."""
    weight_decay: float
    """Of weight matrices and filters only, not of biases and normalization."""
    warmup_epochs: float = 1.0
    """Epochs over which the rate rises linearly from 0."""
    label_smoothing: float = 0.1
    """Share of the target spread over all classes, 0 to 1 (paper, appendix A.7: 0.1)."""
    gradient_clip: float = 5.0
    """Greatest norm of the whole gradient; 0 for no limit."""
    crop_padding_px: int = 8
    """Images are shifted by up to this many pixels, reflected at the border."""
    horizontal_flip: bool = True
    """Whether half of the images are mirrored."""
    vertical_flip: bool = False
    """Whether half of the images are turned upside down: right for images without an up."""
    image_side_px: int = 0
    """Images are resized to squares of this side; 0 leaves them, if all have one size."""

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {self.optimizer!r}; choose from {OPTIMIZERS}")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, not {self.learning_rate}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), not {self.label_smoothing}")


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
