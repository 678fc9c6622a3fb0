"""The proxy reward: validation accuracy of a small network after a short training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from backbone.cells.architecture import Architecture
from backbone.cells.genotype import require_cells
from backbone.io.provenance import to_builtins
from backbone.io.runtime import choose_device
from backbone.training.images import ImageSet, load_image_set
from search.rewards.base import ReportStep
from search.rewards.config import ProxyConfig
from search.rewards.fit import train_proxy, uses_bfloat16
from search.rewards.image_tensors import ImageTensors, load_tensors, split_indices


@dataclass(frozen=True)
class ProxyReward:
    """Validation accuracy, 0 to 1, of a small network of the cells after a short training.

    Images are decoded at the first call and then kept on the device.

    Raises:
        FileNotFoundError: if the data are missing.
        ValueError: if training and validation images have different classes.
    """

    config: ProxyConfig
    is_test: bool = False
    """Score on the ``val`` split instead of the held-out images that trials are scored on."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave the images out: another process decodes them itself."""
        return {"config": self.config, "is_test": self.is_test}

    @property
    def test_reward(self) -> ProxyReward | None:
        """The same training, scored on images that no trial is scored on; None without them."""
        if not self.config.held_out_images:
            return None
        try:
            return ProxyReward(self.config, is_test=True)
        except FileNotFoundError:
            return None

    def __post_init__(self) -> None:
        train, val = self._sets
        if train.classes != val.classes:
            raise ValueError(
                f"{self.config.data_root}: train has the classes {train.classes}, val {val.classes}"
            )
        if self.config.held_out_images >= len(train):
            raise ValueError(
                f"held_out_images is {self.config.held_out_images}, but {self.config.data_root} "
                f"has only {len(train)} training images"
            )

    @cached_property
    def _sets(self) -> tuple[ImageSet, ImageSet]:
        root, download = self.config.data_root, self.config.download
        train = load_image_set(root, "train", download=download)
        held_out = self.config.held_out_images > 0 and not self.is_test
        return train, train if held_out else load_image_set(root, "val", download=download)

    @cached_property
    def tensors(self) -> tuple[ImageTensors, ImageTensors]:
        """Training and validation images."""
        config = self.config
        train, val = self._sets
        val_indices, train_indices = split_indices(len(train), config.held_out_images)
        if self.is_test or not config.held_out_images:
            val_indices = split_indices(len(val), 0)[1]
        device = choose_device(config.device)
        load = partial(load_tensors, grayscale=config.grayscale, device=device)
        return (
            load(train, train_indices, limit=config.max_train_images),
            load(val, val_indices, limit=0 if self.is_test else config.max_val_images),
        )

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The config without paths and without settings that do not change the reward."""
        arguments = to_builtins(self.config)
        for name in ("data_root", "download", "device", "num_threads", "cuda_graphs"):
            del arguments[name]
        # The precision that ``auto`` resolves to changes rewards, so it is part of a search's key.
        is_mixed = uses_bfloat16(self.config.precision, choose_device(self.config.device))
        arguments["precision"] = "bfloat16" if is_mixed else "float32"
        return {"reward": "proxy_accuracy", "proxy": arguments}

    @property
    def data(self) -> Mapping[str, str]:
        train, val = self._sets
        return {"train": train.fingerprint, "val": val.fingerprint}

    def __call__(self, architecture: Architecture, *, seed: int, report: ReportStep) -> float:
        genotype = require_cells(architecture)
        train, val = self.tensors
        return train_proxy(genotype, train, val, config=self.config, seed=seed, report=report)
