"""Configuration of detector trainings. Importing this module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

from detection.config import DetectionDataConfig, DetectorRecipe
from detection.models.config import DetectorConfig


@dataclass(kw_only=True, slots=True)
class TrainDetectorConfig:
    """Settings of one detector training."""

    backbone: str
    """Backbone spec; a ``.safetensors`` file brings pretrained weights."""
    detector: DetectorConfig
    """The detector; the type of its config selects it."""
    data: DetectionDataConfig
    """The data set."""
    recipe: DetectorRecipe
    """Schedule, optimizer and augmentation."""
    pretrained: bool = False
    """Whether to load timm's or torchvision's released weights, which downloads them."""
    norm: str = "batch"
    """The backbone's normalization: ``batch``, ``frozen`` statistics, ``sync`` over all processes,
    or ``group`` for a backbone without pretrained weights."""
    activation_checkpointing: bool = False
    """Whether to recompute the backbone's activations in the backward pass: less memory, more
    time."""
    grayscale: bool = False
    """Whether the backbone converts images to grayscale; a ``.safetensors`` file keeps its own
    setting."""
    seed: int = 0
    """Seed of the initial weights, the order of images and their augmentation."""
    num_workers: int = 0
    """Number of worker processes that read images; 0 reads in the training process."""
    precision: str = "32-true"
    """Lightning's precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``."""
    accelerator: str = "auto"
    """Lightning's accelerator: ``auto``, ``cpu`` or ``gpu``."""


@dataclass(kw_only=True, slots=True)
class ComparisonConfig:
    """Settings of a comparison: the same detector training on several backbones."""

    backbones: list[str]
    """Backbone specs; ``.safetensors`` files come with their weights."""
    training: TrainDetectorConfig
    """The detector training, the same for all; its ``backbone`` is filled in."""
    side_px: int
    """Side of the square image for which multiply-adds are counted."""

    def __post_init__(self) -> None:
        if not self.backbones:
            raise ValueError("backbones needs at least one spec")
