"""Interface of all detectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from backbone.models.backbone import Backbone
from detection.structures import Detections, Target


class Detector(nn.Module, ABC):
    """Map images to boxes. Built by ``build_detector``.

    Images are (3, H, W) float in [0, 1], of any sizes; boxes are in the pixels of the input image.
    """

    backbone: Backbone
    num_classes: int

    @abstractmethod
    def losses(self, images: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return the training losses by name, each of shape (); training mode only."""

    @abstractmethod
    def predict(self, images: Sequence[Tensor]) -> list[Detections]:
        """Return the detections of each image; evaluation mode only."""
