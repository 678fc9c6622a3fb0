"""How well a genotype's cells detect after a short training: a reward for a search.

It fits the protocol that ``search`` declares by its shape; neither package imports the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from backbone.cells.genotype import Genotype
from backbone.io.provenance import to_builtins
from backbone.io.runtime import choose_device, limited_threads
from backbone.models.backbone import LEVELS, describe_cells, rebuild_backbone
from backbone.models.cell_network import penultimate_filters
from detection.config import DetectionRewardConfig
from detection.data.dataset import CocoDataset, data_arguments, fingerprint_splits, load_splits
from detection.engine.evaluate import EVALUATION_BATCH, evaluate_detector
from detection.engine.train_step import seed_step, training_steps
from detection.evaluation.tables import CocoTruth
from detection.models.build import build_detector
from detection.models.detector import Detector


@dataclass(frozen=True)
class DetectionReward:
    """COCO's AP, 0 to 1, of a small detector with new weights after a short training.

    Annotations are read once; images are decoded once and kept, as far as ``CocoDataset`` keeps
    them. Nothing is written. A value depends on genotype and seed alone (on a GPU up to the order
    in which it adds), and torch's own generators are left as they were.

    Raises:
        FileNotFoundError: if the data are missing.
        ValueError: if annotations are wrong, there is nothing to find in the validation images, or
            a GPU is asked for that is not there.
    """

    config: DetectionRewardConfig

    def __post_init__(self) -> None:
        choose_device(self.config.accelerator)
        _, val = self._splits
        if val.num_objects == 0:
            raise ValueError(
                f"{val.annotations.path}: the {len(val)} images to score on have no objects"
            )

    @cached_property
    def _splits(self) -> tuple[CocoDataset, CocoDataset]:
        config = self.config
        train, val = load_splits(config.data, config.recipe)
        return _at_most(train, config.max_train_images), _at_most(val, config.max_val_images)

    @cached_property
    def _truth(self) -> CocoTruth:
        return CocoTruth.load(self._splits[1].annotations.path)

    @cached_property
    def _fingerprints(self) -> Mapping[str, str]:
        return fingerprint_splits(*self._splits)

    def __getstate__(self) -> dict[str, Any]:
        """Leave images and annotations behind: another process reads its own."""
        return {"config": self.config}

    @property
    def unseen(self) -> None:
        """COCO's test images have no public annotations."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The config without where the data lie, which their fingerprints tell better."""
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
        self, genotype: Genotype, *, seed: int, report: Callable[[int, float], None]
    ) -> float:
        """Train, score and return AP.

        Args:
            genotype: the cells.
            seed: of the initial weights, the order of images, their flips, and what is sampled.
            report: is called with steps taken and AP so far; what it raises is let through.

        Raises:
            FloatingPointError: if the loss stops being finite.
            RuntimeError, MemoryError: if memory runs out.
            ValueError: if the detector's anchors do not fit the maps, or an image is damaged.
            ImportError: if the engine is not installed.
        """
        config, (train, _) = self.config, self._splits
        device, last = choose_device(config.accelerator), config.recipe.iterations
        ap = math.nan
        gpus = [device] if device.type == "cuda" else []
        with limited_threads(config.num_threads), torch.random.fork_rng(devices=gpus):
            seed_step(seed, 0, device=device)
            detector = self._build(genotype)
            for step in training_steps(
                detector, train, config.recipe,
                seed=seed, device=device, precision=config.precision,
            ):  # fmt: skip
                if step == last or (config.report_every and step % config.report_every == 0):
                    ap = self._score(detector, device)
                    report(step, ap)
        return ap

    def _build(self, genotype: Genotype) -> Detector:
        config, (train, _) = self.config, self._splits
        description = describe_cells(
            genotype,
            num_cells=config.num_cells,
            filters=penultimate_filters(genotype, config.first_filters),
            grayscale=config.grayscale,
        )
        return build_detector(
            rebuild_backbone(description, out=LEVELS),
            num_classes=len(train.annotations.categories),
            config=config.detector,
        )

    def _score(self, detector: Detector, device: torch.device) -> float:
        _, val = self._splits
        evaluation = evaluate_detector(
            detector,
            val,
            category_ids=val.annotations.category_ids,
            batch_size=EVALUATION_BATCH,
            device=device,
            progress=False,
            truth=self._truth,
        )
        return evaluation.metrics.ap / 100


def _at_most(dataset: CocoDataset, limit: int) -> CocoDataset:
    return dataset.sample(limit) if 0 < limit < len(dataset) else dataset
