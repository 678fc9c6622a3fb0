"""Faster R-CNN with FPN from detectron2's parts; the one module that imports detectron2.

The parts are called as ``detectron2/model_zoo/configs/Base-RCNN-FPN.yaml`` configures them, without
its config system and without ``GeneralizedRCNN``: resizing and normalization are the data's and the
backbone's business here, the same for both engines.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from backbone.specs import Backbone
from detection.config import DetectorConfig
from detection.detector import Detections, Detector, Target, batch_images

try:
    # On import detectron2 scripts functions, which torch calls outdated.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from detectron2.layers import ShapeSpec
        from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
        from detectron2.modeling.backbone import FPN
        from detectron2.modeling.backbone import Backbone as Detectron2Backbone
        from detectron2.modeling.backbone.fpn import LastLevelMaxPool
        from detectron2.modeling.box_regression import Box2BoxTransform
        from detectron2.modeling.matcher import Matcher
        from detectron2.modeling.poolers import ROIPooler
        from detectron2.modeling.proposal_generator import RPN
        from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
        from detectron2.modeling.roi_heads import (
            FastRCNNConvFCHead,
            FastRCNNOutputLayers,
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

POOLED_SIDE = 7
"""Rows and columns of the crop that the box head sees (Lin et al. 2017)."""


class _BottomUp(Detectron2Backbone):  # type: ignore[misc]  # untyped package
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
        backbone = self._backbone[0]
        return {
            level: ShapeSpec(channels=backbone.channels[level], stride=backbone.strides[level])
            for level in backbone.out
        }


class Detectron2Detector(Detector):
    """``Detector`` from ``detectron2.modeling``."""

    def __init__(self, backbone: Backbone, *, num_classes: int, config: DetectorConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_classes = num_classes
        self.neck = FPN(
            _BottomUp(backbone),
            list(backbone.out),
            config.neck_channels,
            norm="BN" if config.neck_norm == "batch" else "",
            top_block=_pooled_level(backbone)
            if len(config.anchor_sizes) > len(backbone.out)
            else None,
        )
        shapes = self.neck.output_shape()
        crops = list(shapes)[: config.crop_levels or len(backbone.out)]
        self.rpn = _build_rpn(config, shapes)
        self.roi_heads = StandardROIHeads(
            num_classes=num_classes,
            batch_size_per_image=config.roi_batch,
            positive_fraction=config.roi_positive_fraction,
            proposal_matcher=Matcher([0.5], [0, 1], allow_low_quality_matches=False),
            box_in_features=crops,
            box_pooler=ROIPooler(
                output_size=POOLED_SIDE,
                scales=[1 / shapes[level].stride for level in crops],
                sampling_ratio=config.roi_samples,
                pooler_type="ROIAlignV2",
            ),
            box_head=FastRCNNConvFCHead(
                ShapeSpec(channels=config.neck_channels, height=POOLED_SIDE, width=POOLED_SIDE),
                conv_dims=[],
                fc_dims=[config.head_features, config.head_features],
            ),
            box_predictor=FastRCNNOutputLayers(
                ShapeSpec(channels=config.head_features),
                box2box_transform=Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)),
                num_classes=num_classes,
                cls_agnostic_bbox_reg=config.class_agnostic_boxes,
                test_score_thresh=config.score_threshold,
                test_nms_thresh=config.nms_threshold,
                test_topk_per_image=config.max_detections,
            ),
        )

    def losses(self, images: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        assert self.training
        batch, sizes = batch_images(images)
        truths = [_instances(t, size) for t, size in zip(targets, sizes, strict=True)]
        maps = self.neck(batch)
        # The parts log to detectron2's event storage; Lightning logs what is worth it.
        with EventStorage(), _known_warnings_hidden():
            proposals, rpn_losses = self.rpn(ImageList(batch, sizes), maps, truths)
            _, head_losses = self.roi_heads(ImageList(batch, sizes), maps, proposals, truths)
        return {**rpn_losses, **head_losses}

    def predict(self, images: Sequence[Tensor]) -> list[Detections]:
        assert not self.training
        batch, sizes = batch_images(images)
        maps = self.neck(batch)
        with _known_warnings_hidden():
            proposals, _ = self.rpn(ImageList(batch, sizes), maps, None)
        found, _ = self.roi_heads(ImageList(batch, sizes), maps, proposals, None)
        # Under bf16 autocast scores come in bf16.
        return [Detections(f.pred_boxes.tensor, f.scores.float(), f.pred_classes) for f in found]


@contextmanager
def _known_warnings_hidden() -> Iterator[None]:
    """Hide torch's complaint about how detectron2's anchors call ``meshgrid``."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.meshgrid: in an upcoming release")
        yield


def _pooled_level(backbone: Backbone) -> LastLevelMaxPool:
    level = LastLevelMaxPool()
    level.in_feature = backbone.out[-1].replace("c", "p")
    return level


def _build_rpn(config: DetectorConfig, shapes: dict[str, ShapeSpec]) -> RPN:
    return RPN(
        in_features=list(shapes),
        head=StandardRPNHead(
            in_channels=config.neck_channels, num_anchors=len(config.anchor_ratios)
        ),
        anchor_generator=DefaultAnchorGenerator(
            sizes=[[size] for size in config.anchor_sizes],
            aspect_ratios=[list(config.anchor_ratios)],
            strides=[shape.stride for shape in shapes.values()],
            offset=0.0,  # as its configs have it; the class's own default is another
        ),
        anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=config.rpn_batch,
        positive_fraction=0.5,
        pre_nms_topk=(config.rpn_candidates_train, config.rpn_candidates_test),
        post_nms_topk=(config.proposals_train, config.proposals_test),
        nms_thresh=0.7,
    )


def _instances(target: Target, size: tuple[int, int]) -> Instances:
    return Instances(size, gt_boxes=Boxes(target.boxes), gt_classes=target.labels)
