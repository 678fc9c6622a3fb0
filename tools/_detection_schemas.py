"""What the tools around detectors take; registered with Hydra in ``_schemas``."""

from __future__ import annotations

from dataclasses import dataclass

from _run import LoggerConfig
from detection.config import TrainDetectorConfig


@dataclass(kw_only=True, slots=True)
class TrainDetector(TrainDetectorConfig):
    """What ``train_detector`` takes."""

    out: str
    """The run's folder."""
    logger: LoggerConfig
    """Where figures are logged."""
    dry_run: bool = False
    """Only overfit one batch, within a minute, and say whether the set-up is sound; ``--dry-run``
    is short for it."""


@dataclass(kw_only=True, slots=True)
class EvaluateDetector:
    """What ``evaluate_detector`` takes."""

    out: str
    """The folder for ``results.json`` and ``metrics.json``."""
    annotations: str
    """COCO JSON with the truth."""
    weights: str = ""
    """A ``detector.safetensors`` to run on ``images``; or give ``results``."""
    images: str = ""
    """Folder of the images."""
    results: str = ""
    """Detections in COCO's results format, of any program, to score instead."""
    batch_size: int = 8
    """Images at a time."""
    bad_boxes: str = "error"
    """What to do about boxes without area or outside their image: ``error`` or ``drop``."""

    def __post_init__(self) -> None:
        if bool(self.weights) == bool(self.results):
            raise ValueError("give either weights=... (and images=...) or results=...")
        if self.weights and not self.images:
            raise ValueError("weights=... needs images=..., the folder of the images")


@dataclass(kw_only=True, slots=True)
class Predict:
    """What ``predict`` takes."""

    out: str
    """The folder for the drawn images and ``predictions.json``."""
    weights: str
    """A ``detector.safetensors``."""
    images: str
    """An image, a folder of images, or a glob in quotes."""
    score_threshold: float = 0.5
    """Detections below this score are neither drawn nor written, 0 to 1."""


@dataclass(kw_only=True, slots=True)
class CompareBackbones:
    """What ``compare_backbones`` takes."""

    out: str
    """The run's folder; each backbone has one of its own in it."""
    backbones: list[str]
    """Backbone specs; ``.safetensors`` files come with their weights."""
    training: TrainDetectorConfig
    """The detector training, the same for all; its ``backbone`` is filled in."""
    side_px: int
    """Side of the square image for which multiply-adds are counted."""
    logger: LoggerConfig
    """Where figures are logged."""

    def __post_init__(self) -> None:
        if not self.backbones:
            raise ValueError("backbones needs at least one spec")
