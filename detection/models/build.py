"""Build a detector from its config."""

from __future__ import annotations

from backbone.models.backbone import Backbone
from detection.models.config import DETECTORS, DetectorConfig, detector_name
from detection.models.detector import Detector


def build_detector(backbone: Backbone, *, num_classes: int, config: DetectorConfig) -> Detector:
    """Build a detector with new weights around a backbone.

    Args:
        backbone: provides the feature maps; all of its levels are used. Its first stages are frozen
            if the config asks for it.
        num_classes: K, the number of classes of objects, without background.
        config: its type selects the detector; see ``detection.models.config.DETECTORS``.

    Raises:
        TypeError: if no detector has a config of this type.
        ValueError: if the anchors do not fit the backbone's levels, the backbone has fewer stages
            than are to be frozen, or it cannot be split for a C4 detector.
        ImportError: if the detector needs detectron2 and that is not installed.
    """
    if num_classes < 1:
        raise ValueError(f"a detector needs at least 1 class, not {num_classes}")
    choice = DETECTORS[detector_name(config)]
    config.check_levels(tuple(backbone.out))
    backbone.freeze_stages(config.frozen_stages)
    build = choice.load()
    detector: Detector = build(backbone, num_classes=num_classes, config=config)
    return detector
