"""Small detectors of every kind, for the tests of the engines."""

from dataclasses import fields
from importlib.util import find_spec

import pytest
import torch

from backbone.models.backbone import LEVELS, build_backbone
from detection.models.build import build_detector
from detection.models.config import (
    Detectron2CascadeConfig,
    Detectron2FasterRCNNConfig,
    Detectron2RetinaNetConfig,
    TorchvisionFasterRCNNConfig,
    TorchvisionRetinaNetConfig,
)
from detection.structures import Target

needs_detectron2 = (
    pytest.mark.detectron2,
    pytest.mark.skipif(not find_spec("detectron2"), reason="detectron2 is not installed"),
)
SMALL = {
    "anchor_sizes": [8, 16, 32, 64],
    "fpn_channels": 16,
    "box_head_dim": 32,
    "rpn_batch_size_per_image": 32,
    "rpn_pre_nms_top_n_train": 50,
    "rpn_pre_nms_top_n_test": 50,
    "rpn_post_nms_top_n_train": 20,
    "rpn_post_nms_top_n_test": 20,
    "roi_batch_size_per_image": 16,
    "score_threshold": 0.0,
}
"""Settings of small detectors; each kind takes those that it has."""
C4 = {"neck": "c4", "roi_pool_size": 17, "roi_sampling_ratio": 1, "rpn_channels": 24}
RCNNS = [
    pytest.param((TorchvisionFasterRCNNConfig, {}), id="torchvision"),
    pytest.param((Detectron2FasterRCNNConfig, {}), id="detectron2", marks=needs_detectron2),
]
KINDS = [
    pytest.param((TorchvisionFasterRCNNConfig, {}), id="torchvision"),
    pytest.param((TorchvisionFasterRCNNConfig, C4), id="torchvision-c4"),
    pytest.param((TorchvisionRetinaNetConfig, {}), id="torchvision-retinanet"),
    pytest.param((Detectron2FasterRCNNConfig, {}), id="detectron2", marks=needs_detectron2),
    pytest.param((Detectron2FasterRCNNConfig, C4), id="detectron2-c4", marks=needs_detectron2),
    pytest.param((Detectron2CascadeConfig, {}), id="detectron2-cascade", marks=needs_detectron2),
    pytest.param(
        (Detectron2RetinaNetConfig, {}), id="detectron2-retinanet", marks=needs_detectron2
    ),
]


def make(kind, *, spec="nasnet_a:1@96", num_classes=3, out=LEVELS, **changes):
    """Build a small detector with the weights of seed 0."""
    torch.manual_seed(0)
    config = small_config(kind, **changes)
    return build_detector(build_backbone(spec, out=out), num_classes=num_classes, config=config)


def small_config(kind, **changes):
    """The config of such a detector."""
    config_type, options = kind
    names = {field.name for field in fields(config_type)}
    sizes = {name: value for name, value in SMALL.items() if name in names}
    return config_type(**(sizes | options | changes))


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
