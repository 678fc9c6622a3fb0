"""Reward of a search: COCO AP of a detector after a short training.

``DetectionReward`` satisfies the protocol that ``search`` declares structurally; neither package
imports the other. Importing this module does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from backbone.cells.architecture import Architecture
from backbone.config import MIN_WIDTH, require_at_least, require_choice
from backbone.io.provenance import to_builtins
from backbone.io.runtime import choose_device, limited_threads
from detection.config import DetectionDataConfig, DetectorRecipe
from detection.models.config import DetectorConfig

if TYPE_CHECKING:
    import torch

    from detection.data.dataset import CocoDataset
    from detection.models.detector import Detector

REWARD_PRECISIONS = ("32-true", "bf16-mixed")


@dataclass(kw_only=True, slots=True)
class DetectionRewardConfig:
    """Settings of a reward: the AP of a short detector training."""

    num_cells: int
    """N: normal cells per stack of the backbone, at least 1."""
    first_filters: int
    """Filters of the first stack's cells, a multiple of 4. The same for every genotype, so F of
    N @ F varies with the number of states that a cell concatenates."""
    detector: DetectorConfig
    """The detector; the type of its config selects it."""
    data: DetectionDataConfig
    """The dataset; the reward is AP on its ``val`` split, which a comparison after the search
    should not use."""
    recipe: DetectorRecipe
    """Schedule, optimizer and augmentation; ``checkpoint_every`` is not used."""
    grayscale: bool = False
    """Whether the backbone converts images to grayscale, for data whose colors carry no
    information."""
    max_train_images: int = 0
    """Number of training images, the same for all genotypes; 0: all."""
    max_val_images: int = 0
    """Number of validation images, the same for all genotypes; 0: all."""
    report_every: int = 0
    """Number of steps between reports of the AP so far, each of which costs an evaluation; 0: only
    the last one."""
    precision: str = "32-true"
    """Lightning's precision: ``32-true``, or ``bf16-mixed`` on GPUs that support it."""
    accelerator: str = "auto"
    """Lightning's accelerator: ``auto``, ``cpu`` or ``gpu``."""
    num_threads: int = 0
    """Number of CPU threads; 1 where several trainings share the cores, 0: torch's default."""

    def __post_init__(self) -> None:
        lowest = {
            "num_cells": 1,
            "first_filters": MIN_WIDTH,
            "max_train_images": 0,
            "max_val_images": 0,
            "report_every": 0,
            "num_threads": 0,
        }
        for name, least in lowest.items():
            require_at_least(least, **{name: getattr(self, name)})
        require_choice("precision", self.precision, REWARD_PRECISIONS)


@dataclass(frozen=True)
class DetectionReward:
    """COCO AP, 0 to 1, of a small detector with new weights after a short training.

    Annotations are read once; images are decoded once and cached within the limit of
    ``CocoDataset``. Nothing is written. The reward depends on genotype and seed alone (on a GPU up
    to the order of summation), and the state of torch's global generators is restored.

    Raises:
        FileNotFoundError: if the data are missing.
        ValueError: if annotations are invalid, the validation images have no objects, or a GPU is
            requested and none is available.
    """

    config: DetectionRewardConfig

    def __post_init__(self) -> None:
        choose_device(self.config.accelerator)
        _, val = self._splits
        if val.num_objects == 0:
            raise ValueError(
                f"{val.annotations.path}: the {len(val)} validation images have no objects"
            )

    @cached_property
    def _splits(self) -> tuple[CocoDataset, CocoDataset]:
        from detection.data.dataset import load_splits

        config = self.config
        train, val = load_splits(config.data, config.recipe)
        return _at_most(train, config.max_train_images), _at_most(val, config.max_val_images)

    @cached_property
    def _fingerprints(self) -> Mapping[str, str]:
        from detection.data.dataset import fingerprint_splits

        return fingerprint_splits(*self._splits)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the config only; another process reads images and annotations itself."""
        return {"config": self.config}

    @property
    def test_reward(self) -> None:
        """None: COCO's test images have no public annotations."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The config, except for the location of the data, which their fingerprints replace."""
        from detection.data.dataset import data_arguments

        config = self.config
        recipe = to_builtins(config.recipe)
        del recipe["checkpoint_every"]
        names = (
            "num_cells", "first_filters", "grayscale", "max_train_images", "max_val_images",
            "report_every", "precision",
        )  # fmt: skip
        return {
            "reward": "detection_ap",
            "detector": to_builtins(config.detector),
            "recipe": recipe,
            "data": to_builtins(data_arguments(config.data)),
            **{name: getattr(config, name) for name in names},
        }

    @property
    def data(self) -> Mapping[str, str]:
        """Name of a part of the data -> fingerprint."""
        return self._fingerprints

    def __call__(
        self, architecture: Architecture, *, seed: int, report: Callable[[int, float], None]
    ) -> float:
        """Train, score and return AP.

        Args:
            architecture: the architecture of the backbone.
            seed: seed of the initial weights, the order of images, their augmentation and sampling.
            report: is called with the number of steps and the AP so far; its exceptions propagate.

        Raises:
            FloatingPointError: if the loss is not finite.
            RuntimeError, MemoryError: if memory runs out.
            ValueError: if the detector's anchors do not fit the maps, or an image is damaged.
            ImportError: if the detector needs detectron2 and that is not installed.
        """
        import torch

        from detection.engine.train_step import seed_step, training_steps

        config, (train, _) = self.config, self._splits
        device, last = choose_device(config.accelerator), config.recipe.iterations
        ap = math.nan
        gpus = [device] if device.type == "cuda" else []
        with limited_threads(config.num_threads), torch.random.fork_rng(devices=gpus):
            seed_step(seed, 0, device=device)
            detector = self._build(architecture)
            for step in training_steps(
                detector, train, config.recipe,
                seed=seed, device=device, precision=config.precision,
            ):  # fmt: skip
                if step == last or (config.report_every and step % config.report_every == 0):
                    ap = self._score(detector, device)
                    report(step, ap)
        return ap

    def _build(self, architecture: Architecture) -> Detector:
        from backbone.models.backbone import LEVELS, BackboneSpec
        from detection.models.build import build_detector

        config, (train, _) = self.config, self._splits
        spec = BackboneSpec.from_architecture(
            architecture,
            depth=config.num_cells,
            width=config.first_filters,
            grayscale=config.grayscale,
        )
        return build_detector(
            spec.build(out=LEVELS),
            num_classes=len(train.annotations.categories),
            config=config.detector,
        )

    def _score(self, detector: Detector, device: torch.device) -> float:
        from detection.engine.evaluate import EVALUATION_BATCH, evaluate_detector

        _, val = self._splits
        evaluation = evaluate_detector(
            detector,
            val,
            category_ids=val.annotations.category_ids,
            batch_size=EVALUATION_BATCH,
            device=device,
            progress=False,
        )
        return evaluation.metrics.ap / 100


def _at_most(dataset: CocoDataset, limit: int) -> CocoDataset:
    return dataset.sample(limit) if 0 < limit < len(dataset) else dataset
