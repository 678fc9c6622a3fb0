"""Configuration of the demonstration data."""

from __future__ import annotations

from dataclasses import dataclass

STAGES = ("search", "pretrain", "detection")
SPLITS = ("train", "val")
OBJECT_SIDE_PX = (8.0, 64.0)
"""Range of the longest side of a whole object's upright box, in pixels."""


@dataclass(kw_only=True, slots=True)
class ShapesConfig:
    """Amount of demonstration data."""

    seed: int = 0
    """Seed of all randomness, 0 to 2**32 - 1."""
    num_search_train: int = 3000
    """Images of 32 x 32 px to train cells with in a search."""
    num_search_val: int = 1000
    """Images of 32 x 32 px to reward cells with."""
    num_pretrain_train: int = 6000
    """Images of 64 x 64 px to train a backbone with."""
    num_pretrain_val: int = 1000
    """Images of 64 x 64 px to validate a backbone with."""
    num_detection_train: int = 2500
    """Scenes to train a detector with."""
    num_detection_val: int = 200
    """Scenes to evaluate a detector with."""
    detection_size_px: int = 128
    """Side of the scenes, at least 128 px. Objects stay 8 to 64 px long."""
    crowd_fraction: float = 0.04
    """Fraction of scenes, 0 to 1, in which one annotation is an ``iscrowd`` group."""
    num_workers: int = 0
    """Processes that draw; 0: one per CPU core. The data do not depend on it."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; it must be from 0 to {2**32 - 1}")
        for name in (f"num_{stage}_{split}" for stage in STAGES for split in SPLITS):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.detection_size_px < 2 * OBJECT_SIDE_PX[1]:
            raise ValueError(
                f"detection_size_px is {self.detection_size_px}; it must be at least 128, "
                "since objects are up to 64 px long"
            )
        if not 0 <= self.crowd_fraction <= 1:
            raise ValueError(f"crowd_fraction is {self.crowd_fraction}; it must be from 0 to 1")
        if self.num_workers < 0:
            raise ValueError(
                f"num_workers is {self.num_workers}; it must be at least 0 (one per core)"
            )
