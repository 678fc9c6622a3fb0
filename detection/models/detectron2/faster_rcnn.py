"""Faster R-CNN from detectron2's parts: with FPN or without a neck, with one box head or a cascade.

``GeneralizedRCNN`` is left out: resizing and normalization are the data's and the backbone's
business here, the same for both engines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from backbone.models.backbone import SPLIT_STRIDE, Backbone
from detection.models.c4 import C4_LEVEL, C4Neck, Res5Head
from detection.models.config import Detectron2CascadeConfig, FasterRCNNConfig
from detection.models.detector import Detector
from detection.models.detectron2.parts import (
    RPN,
    Box2BoxTransform,
    CascadeROIHeads,
    DefaultAnchorGenerator,
    EventStorage,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    ImageList,
    LastLevelMaxPool,
    Matcher,
    Res5ROIHeads,
    ROIPooler,
    ShapeSpec,
    StandardROIHeads,
    StandardRPNHead,
    build_pyramid,
    known_warnings_hidden,
    to_instances,
)
from detection.structures import Detections, Target, batch_images

BOX_CODE = (10.0, 10.0, 5.0, 5.0)
"""Factors of the box head's places and sizes, ``ROI_BOX_HEAD.BBOX_REG_WEIGHTS``."""
CASCADE = {0.5: BOX_CODE, 0.6: (20.0, 20.0, 10.0, 10.0), 0.7: (30.0, 30.0, 15.0, 15.0)}
"""IoU from which on a proposal is an object -> factors, of each of a cascade's heads
(``ROI_BOX_CASCADE_HEAD``)."""


class Detectron2FasterRCNN(Detector):
    """``Detector`` from ``detectron2.modeling``."""

    def __init__(self, backbone: Backbone, *, num_classes: int, config: FasterRCNNConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_classes = num_classes
        sampling: dict[str, Any] = {
            "num_classes": num_classes,
            "batch_size_per_image": config.roi_batch_size_per_image,
            "positive_fraction": config.roi_positive_fraction,
        }
        self.neck: nn.Module
        if config.neck == "c4":
            split = backbone.c4_split()
            self.neck = C4Neck(split)
            shapes = {C4_LEVEL: ShapeSpec(channels=split.channels, stride=SPLIT_STRIDE)}
            self.rpn = _build_rpn(config, shapes)
            self.roi_heads = Res5ROIHeads(
                in_features=[C4_LEVEL],
                pooler=_build_pooler(config, shapes),
                res5=Res5Head(split),
                box_predictor=_build_predictor(config, split.out_channels, num_classes),
                proposal_matcher=_build_matcher(0.5),
                **sampling,
            )
        else:
            has_top = len(config.anchor_sizes) > len(backbone.out)
            top = _pooled_level(backbone) if has_top else None
            pyramid = build_pyramid(backbone, config, levels=backbone.out, top=top)
            self.neck, shapes = pyramid, pyramid.output_shape()
            self.rpn = _build_rpn(config, shapes)
            self.roi_heads = _build_pyramid_heads(
                config,
                shapes,
                num_crop_levels=config.roi_num_levels or len(backbone.out),
                **sampling,
            )

    def losses(self, images: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        assert self.training
        batch, sizes = batch_images(images)
        truths = to_instances(targets, sizes)
        maps = self.neck(batch)
        # The parts log to detectron2's event storage; Lightning logs what is worth it.
        with EventStorage(), known_warnings_hidden():
            proposals, rpn_losses = self.rpn(ImageList(batch, sizes), maps, truths)
            _, head_losses = self.roi_heads(ImageList(batch, sizes), maps, proposals, truths)
        return {**rpn_losses, **head_losses}

    def predict(self, images: Sequence[Tensor]) -> list[Detections]:
        assert not self.training
        batch, sizes = batch_images(images)
        maps = self.neck(batch)
        with known_warnings_hidden():
            proposals, _ = self.rpn(ImageList(batch, sizes), maps, None)
        instances, _ = self.roi_heads(ImageList(batch, sizes), maps, proposals, None)
        # Under bf16 autocast scores are bf16.
        return [
            Detections(i.pred_boxes.tensor, i.scores.float(), i.pred_classes) for i in instances
        ]


def _pooled_level(backbone: Backbone) -> LastLevelMaxPool:
    level = LastLevelMaxPool()
    level.in_feature = backbone.out[-1].replace("c", "p")
    return level


def _build_rpn(config: FasterRCNNConfig, shapes: Mapping[str, ShapeSpec]) -> RPN:
    # One map has anchors of all sizes; of several each has its own.
    sizes = [config.anchor_sizes] if config.neck == "c4" else [[s] for s in config.anchor_sizes]
    channels = next(iter(shapes.values())).channels
    return RPN(
        in_features=list(shapes),
        head=StandardRPNHead(
            in_channels=channels,
            num_anchors=len(sizes[0]) * len(config.anchor_ratios),
            conv_dims=[config.rpn_channels or channels],
        ),
        anchor_generator=DefaultAnchorGenerator(
            sizes=[list(level) for level in sizes],
            aspect_ratios=[list(config.anchor_ratios)],
            strides=[shape.stride for shape in shapes.values()],
            offset=0.0,  # as its configs have it; the class's own default is another
        ),
        anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=config.rpn_batch_size_per_image,
        positive_fraction=0.5,
        pre_nms_topk=(config.rpn_pre_nms_top_n_train, config.rpn_pre_nms_top_n_test),
        post_nms_topk=(config.rpn_post_nms_top_n_train, config.rpn_post_nms_top_n_test),
        nms_thresh=0.7,
        loss_weight={"loss_rpn_cls": 1.0, "loss_rpn_loc": config.box_loss_weight},
    )


def _build_pyramid_heads(
    config: FasterRCNNConfig,
    shapes: Mapping[str, ShapeSpec],
    *,
    num_crop_levels: int,
    num_classes: int,
    **sampling: Any,
) -> StandardROIHeads:
    crops = {level: shapes[level] for level in list(shapes)[:num_crop_levels]}
    shared = {
        "num_classes": num_classes,
        "box_in_features": list(crops),
        "box_pooler": _build_pooler(config, crops),
        **sampling,
    }
    if not isinstance(config, Detectron2CascadeConfig):
        return StandardROIHeads(
            box_head=_build_box_head(config),
            box_predictor=_build_predictor(config, config.box_head_dim, num_classes),
            proposal_matcher=_build_matcher(0.5),
            **shared,
        )
    return CascadeROIHeads(
        box_heads=[_build_box_head(config) for _ in CASCADE],
        box_predictors=[
            _build_predictor(config, config.box_head_dim, num_classes, box_code=code)
            for code in CASCADE.values()
        ],
        proposal_matchers=[_build_matcher(iou) for iou in CASCADE],
        **shared,
    )


def _build_matcher(iou: float) -> Matcher:
    return Matcher([iou], [0, 1], allow_low_quality_matches=False)


def _build_pooler(config: FasterRCNNConfig, shapes: Mapping[str, ShapeSpec]) -> ROIPooler:
    return ROIPooler(
        output_size=config.roi_pool_size,
        scales=[1 / shape.stride for shape in shapes.values()],
        sampling_ratio=config.roi_sampling_ratio,
        pooler_type="ROIAlignV2",
    )


def _build_box_head(config: FasterRCNNConfig) -> FastRCNNConvFCHead:
    return FastRCNNConvFCHead(
        ShapeSpec(
            channels=config.fpn_channels, height=config.roi_pool_size, width=config.roi_pool_size
        ),
        conv_dims=[],
        fc_dims=[config.box_head_dim, config.box_head_dim],
    )


def _build_predictor(
    config: FasterRCNNConfig,
    channels: int,
    num_classes: int,
    *,
    box_code: tuple[float, ...] = BOX_CODE,
) -> FastRCNNOutputLayers:
    return FastRCNNOutputLayers(
        ShapeSpec(channels=channels),
        box2box_transform=Box2BoxTransform(weights=box_code),
        num_classes=num_classes,
        cls_agnostic_bbox_reg=config.class_agnostic_boxes,
        test_score_thresh=config.score_threshold,
        test_nms_thresh=config.nms_threshold,
        test_topk_per_image=config.max_detections,
        loss_weight={"loss_cls": 1.0, "loss_box_reg": config.box_loss_weight},
    )
