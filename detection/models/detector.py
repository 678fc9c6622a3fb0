"""The interface that every detector satisfies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from backbone.models.backbone import Backbone
from detection.structures import Detections, Target


class Detector(nn.Module, ABC):
    """Images to boxes. Build one with ``build_detector``.

    Images are (3, H, W) float in [0, 1], of any sizes; boxes are in the pixels of the image given.
    """

    backbone: Backbone
    num_classes: int

    @abstractmethod
    def losses(self, images: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return the training losses by name, each of shape (); training mode only."""

    @abstractmethod
    def predict(self, images: Sequence[Tensor]) -> list[Detections]:
        """Return the detections of each image; evaluation mode only."""
