"""RetinaNet from detectron2's parts, with the defaults of its ``configs/Base-RetinaNet.yaml``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backbone.models.backbone import Backbone
from detection.models.config import RetinaNetConfig
from detection.models.detector import Detector
from detection.models.detectron2.parts import (
    Box2BoxTransform,
    DefaultAnchorGenerator,
    EventStorage,
    ImageList,
    LastLevelP6P7,
    Matcher,
    RetinaNet,
    RetinaNetHead,
    ShapeSpec,
    build_pyramid,
    detector_postprocess,
    known_warnings_hidden,
    to_instances,
)
from detection.models.retinanet import HEAD_CONVOLUTIONS, anchor_octaves, pyramid_levels
from detection.structures import Detections, Target, batch_images

INITIAL_NORMALIZER = 100.0
"""detectron2's first guess at how many anchors of a batch are objects."""


class Detectron2RetinaNet(Detector):
    """``Detector`` from ``detectron2.modeling``'s ``RetinaNet``, without its own way in and out."""

    def __init__(self, backbone: Backbone, *, num_classes: int, config: RetinaNetConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_classes = num_classes
        self.box_loss_weight = config.box_loss_weight
        levels, extended = pyramid_levels(backbone, config)
        last = levels[-1]
        top = LastLevelP6P7(backbone.channels[last], config.fpn_channels, in_feature=last)
        neck = build_pyramid(backbone, config, levels=levels, top=top if extended else None)
        shapes: dict[str, ShapeSpec] = neck.output_shape()
        sizes = anchor_octaves(config)
        self.network = RetinaNet(
            backbone=neck,
            head=RetinaNetHead(
                input_shape=list(shapes.values()),
                num_classes=num_classes,
                num_anchors=len(sizes[0]) * len(config.anchor_ratios),
                conv_dims=[config.fpn_channels] * HEAD_CONVOLUTIONS,
            ),
            head_in_features=list(shapes),
            anchor_generator=DefaultAnchorGenerator(
                sizes=sizes,
                aspect_ratios=[list(config.anchor_ratios)],
                strides=[shape.stride for shape in shapes.values()],
                offset=0.0,
            ),
            box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
            anchor_matcher=Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True),
            num_classes=num_classes,
            test_score_thresh=config.score_threshold,
            test_topk_candidates=config.topk_candidates,
            test_nms_thresh=config.nms_threshold,
            max_detections_per_image=config.max_detections,
            # Never used: the backbone normalizes.
            pixel_mean=(0.0, 0.0, 0.0),
            pixel_std=(1.0, 1.0, 1.0),
        )
        self.normalizer: Tensor
        # detectron2 keeps it out of the state, so that a resumed training would differ.
        self.register_buffer("normalizer", torch.tensor(INITIAL_NORMALIZER, dtype=torch.float64))

    def losses(self, images: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        assert self.training
        batch, sizes = batch_images(images)
        maps = self._maps(batch)
        self.network.loss_normalizer = self.normalizer.item()
        with EventStorage(), known_warnings_hidden():
            losses: dict[str, Tensor] = self.network.forward_training(
                ImageList(batch, sizes), maps, self.network.head(maps), to_instances(targets, sizes)
            )
        self.normalizer.fill_(self.network.loss_normalizer)
        return losses | {"loss_box_reg": losses["loss_box_reg"] * self.box_loss_weight}

    def predict(self, images: Sequence[Tensor]) -> list[Detections]:
        assert not self.training
        batch, sizes = batch_images(images)
        maps = self._maps(batch)
        with known_warnings_hidden():
            instances = self.network.forward_inference(
                ImageList(batch, sizes), maps, self.network.head(maps)
            )
        # Clips boxes to their images without resizing.
        clipped = [detector_postprocess(i, *size) for i, size in zip(instances, sizes, strict=True)]
        return [Detections(i.pred_boxes.tensor, i.scores.float(), i.pred_classes) for i in clipped]

    def _maps(self, batch: Tensor) -> list[Tensor]:
        maps = self.network.backbone(batch)
        return [maps[level] for level in self.network.head_in_features]
