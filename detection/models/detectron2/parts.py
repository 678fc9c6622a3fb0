"""detectron2 components of our detectors. No other module imports detectron2's modeling package.

They are configured as in ``detectron2/model_zoo/configs/Base-RCNN-FPN.yaml`` and its siblings,
without detectron2's config system.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from backbone.models.backbone import Backbone
from detection.models.config import DetectorConfig
from detection.structures import Target

try:
    # On import detectron2 scripts functions, which torch calls outdated.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from detectron2.layers import ShapeSpec
        from detectron2.modeling import BACKBONE_REGISTRY
        from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
        from detectron2.modeling.backbone import FPN
        from detectron2.modeling.backbone import Backbone as Detectron2Backbone
        from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
        from detectron2.modeling.box_regression import Box2BoxTransform
        from detectron2.modeling.matcher import Matcher
        from detectron2.modeling.meta_arch.retinanet import RetinaNet, RetinaNetHead
        from detectron2.modeling.poolers import ROIPooler
        from detectron2.modeling.postprocessing import detector_postprocess
        from detectron2.modeling.proposal_generator import RPN
        from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
        from detectron2.modeling.roi_heads import (
            CascadeROIHeads,
            FastRCNNConvFCHead,
            FastRCNNOutputLayers,
            Res5ROIHeads,
            StandardROIHeads,
        )
        from detectron2.structures import Boxes, ImageList, Instances
        from detectron2.utils.events import EventStorage
except ImportError as error:
    raise ImportError(
        "detector=detectron2 needs detectron2, which cannot be imported "
        f"({error}); install it as "
        "https://detectron2.readthedocs.io/en/latest/tutorials/install.html says, "
        "or use detector=torchvision"
    ) from error

# Its poolers call a function of torch's that has another name by now, which is logged every time.
logging.getLogger("torch.fx._symbolic_trace").addFilter(
    lambda record: "is_fx_tracing" not in record.getMessage()
)

__all__ = [
    "BACKBONE_REGISTRY",
    "FPN",
    "RPN",
    "Box2BoxTransform",
    "CascadeROIHeads",
    "DefaultAnchorGenerator",
    "Detectron2Backbone",
    "EventStorage",
    "FastRCNNConvFCHead",
    "FastRCNNOutputLayers",
    "ImageList",
    "LastLevelMaxPool",
    "LastLevelP6P7",
    "Matcher",
    "ROIPooler",
    "Res5ROIHeads",
    "RetinaNet",
    "RetinaNetHead",
    "ShapeSpec",
    "StandardROIHeads",
    "StandardRPNHead",
    "build_pyramid",
    "detector_postprocess",
    "known_warnings_hidden",
    "shapes_of",
    "to_instances",
]


class BottomUp(Detectron2Backbone):  # type: ignore[misc]  # untyped package
    """A ``Backbone`` of ours as detectron2's FPN wants it.

    It does not register the backbone as its child: the detector already has it, and its weights
    would be in every file twice.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self._backbone = (backbone,)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self._backbone[0](images)

    def output_shape(self) -> dict[str, ShapeSpec]:
        return shapes_of(self._backbone[0])


def shapes_of(backbone: Backbone) -> dict[str, ShapeSpec]:
    """Return what detectron2 wants to know of a backbone's maps."""
    return {
        level: ShapeSpec(channels=backbone.channels[level], stride=backbone.strides[level])
        for level in backbone.out
    }


def build_pyramid(
    backbone: Backbone,
    config: DetectorConfig,
    *,
    levels: Sequence[str],
    top: nn.Module | None,
) -> FPN:
    """Return detectron2's FPN on a backbone that is not its child."""
    return FPN(
        BottomUp(backbone),
        list(levels),
        config.fpn_channels,
        norm="BN" if config.fpn_norm == "batch" else "",
        top_block=top,
    )


def to_instances(targets: Sequence[Target], sizes: Sequence[tuple[int, int]]) -> list[Instances]:
    """Return targets as detectron2 takes them, given the images' heights and widths."""
    return [
        Instances(size, gt_boxes=Boxes(target.boxes), gt_classes=target.labels)
        for target, size in zip(targets, sizes, strict=True)
    ]


@contextmanager
def known_warnings_hidden() -> Iterator[None]:
    """Hide torch's complaint about how detectron2's anchors call ``meshgrid``."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.meshgrid: in an upcoming release")
        yield
