"""Small detectors of every kind, for the tests of the engines."""

from importlib.util import find_spec

import pytest
import torch

from backbone.models.backbone import build_backbone
from detection.config import (
    Detectron2CascadeConfig,
    Detectron2DetectorConfig,
    Detectron2RetinaNetConfig,
    TorchvisionDetectorConfig,
    TorchvisionRetinaNetConfig,
)
from detection.models.build import build_detector
from detection.structures import Target

needs_detectron2 = (
    pytest.mark.detectron2,
    pytest.mark.skipif(not find_spec("detectron2"), reason="detectron2 is not installed"),
)
SMALL = {
    "anchor_sizes": [8, 16, 32, 64],
    "neck_channels": 16,
    "head_features": 32,
    "rpn_batch": 32,
    "rpn_candidates_train": 50,
    "rpn_candidates_test": 50,
    "proposals_train": 20,
    "proposals_test": 20,
    "roi_batch": 16,
    "score_threshold": 0.0,
}
SINGLE = {"neck": "none", "crop_side": 17, "roi_samples": 1, "rpn_channels": 24}
KINDS = [
    pytest.param((TorchvisionDetectorConfig, {}), id="torchvision"),
    pytest.param((TorchvisionDetectorConfig, SINGLE), id="torchvision-none"),
    pytest.param((TorchvisionRetinaNetConfig, {}), id="torchvision-retinanet"),
    pytest.param((Detectron2DetectorConfig, {}), id="detectron2", marks=needs_detectron2),
    pytest.param((Detectron2DetectorConfig, SINGLE), id="detectron2-none", marks=needs_detectron2),
    pytest.param((Detectron2CascadeConfig, {}), id="detectron2-cascade", marks=needs_detectron2),
    pytest.param(
        (Detectron2RetinaNetConfig, {}), id="detectron2-retinanet", marks=needs_detectron2
    ),
]


def make(kind, *, spec="nasnet_a:1@96", num_classes=3, **changes):
    """Build a small detector with the weights of seed 0."""
    torch.manual_seed(0)
    config_type, options = kind
    config = config_type(**(SMALL | options | changes))
    return build_detector(build_backbone(spec), num_classes=num_classes, config=config)


def examples():
    """Two images of different sizes with one and two objects."""
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.rand(3, 64, 96, generator=generator),
        torch.rand(3, 50, 70, generator=generator),
    ]
    boxes = [[[8.0, 8, 40, 40]], [[1.0, 2, 20, 30], [30, 5, 60, 45]]]
    labels = [[2], [0, 1]]
    targets = [Target(torch.tensor(b), torch.tensor(n)) for b, n in zip(boxes, labels, strict=True)]
    return images, targets
