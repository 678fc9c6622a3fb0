"""Faster R-CNN from torchvision's parts, with FPN or without a neck.

Its ``GeneralizedRCNN`` is left out: resizing and normalization are the data's and the backbone's
business here, the same for both engines.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import (
    Conv2dNormActivation,
    FeaturePyramidNetwork,
    MultiScaleRoIAlign,
    RoIAlign,
)
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from backbone.models.backbone import SPLIT_STRIDE, Backbone
from detection.models.c4 import C4_LEVEL, C4Neck, Res5Head
from detection.models.config import FasterRCNNConfig
from detection.models.detector import Detector
from detection.structures import Detections, Target, batch_images

BOX_LOSSES = ("loss_rpn_box_reg", "loss_box_reg")
"""Torchvision's names of the losses of places."""


class ClassAgnosticPredictor(nn.Module):
    """Class scores, and one refined box for all classes, repeated as ``RoIHeads`` expects it."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.cls_score = nn.Linear(in_channels, num_classes)
        self.bbox_pred = nn.Linear(in_channels, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (R, in_channels) to scores (R, num_classes) and boxes (R, 4 * num_classes)."""
        return self.cls_score(x), self.bbox_pred(x).repeat(1, self.num_classes)


class C4RoIAlign(nn.Module):
    """Crops of the one map, as ``RoIHeads`` asks for them.

    ``MultiScaleRoIAlign`` would read it half a pixel off: it has no ``aligned``.
    """

    def __init__(self, config: FasterRCNNConfig) -> None:
        super().__init__()
        self.align = RoIAlign(
            config.roi_pool_size, 1 / SPLIT_STRIDE, config.roi_sampling_ratio, aligned=True
        )

    def forward(
        self, maps: dict[str, Tensor], boxes: list[Tensor], image_sizes: list[tuple[int, int]]
    ) -> Tensor:
        """Return (R, C, roi_pool_size, roi_pool_size) for R boxes in all."""
        return self.align(maps[C4_LEVEL], boxes)


class TorchvisionFasterRCNN(Detector):
    """``Detector`` from ``torchvision.models.detection``."""

    def __init__(self, backbone: Backbone, *, num_classes: int, config: FasterRCNNConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_classes = num_classes
        self.box_loss_weight = config.box_loss_weight
        self.neck: nn.Module
        if config.neck == "c4":
            split = backbone.c4_split()
            self.neck = C4Neck(split)
            self.rpn = _build_rpn(config, split.channels)
            features = split.out_channels
            crops: nn.Module = C4RoIAlign(config)
            box_head: nn.Module = nn.Sequential(
                Res5Head(split), nn.AdaptiveAvgPool2d(1), nn.Flatten()
            )
        else:
            self.neck = _build_pyramid(backbone, config)
            self.rpn = _build_rpn(config, config.fpn_channels)
            features = config.box_head_dim
            crops = MultiScaleRoIAlign(
                list(backbone.out)[: config.roi_num_levels or None],
                output_size=config.roi_pool_size,
                sampling_ratio=config.roi_sampling_ratio,
            )
            box_head = TwoMLPHead(config.fpn_channels * config.roi_pool_size**2, features)
        predictor = ClassAgnosticPredictor if config.class_agnostic_boxes else FastRCNNPredictor
        self.roi_heads = RoIHeads(
            crops,
            box_head,
            predictor(features, num_classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=config.roi_batch_size_per_image,
            positive_fraction=config.roi_positive_fraction,
            bbox_reg_weights=None,
            score_thresh=config.score_threshold,
            nms_thresh=config.nms_threshold,
            detections_per_img=config.max_detections,
        )

    def losses(self, images: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        assert self.training
        # torchvision counts the background as class 0.
        truths = [{"boxes": t.boxes, "labels": t.labels + 1} for t in targets]
        _, losses = self._run(images, truths)
        return {n: v * self.box_loss_weight if n in BOX_LOSSES else v for n, v in losses.items()}

    def predict(self, images: Sequence[Tensor]) -> list[Detections]:
        assert not self.training
        detections, _ = self._run(images, None)
        return [Detections(d["boxes"], d["scores"], d["labels"] - 1) for d in detections]

    def _run(
        self, images: Sequence[Tensor], truths: list[dict[str, Tensor]] | None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        batch, sizes = batch_images(images)
        is_pyramid = not isinstance(self.neck, C4Neck)
        maps = self.neck(self.backbone(batch) if is_pyramid else batch)
        proposals, rpn_losses = self.rpn(ImageList(batch, sizes), maps, truths)
        detections, head_losses = self.roi_heads(maps, proposals, sizes, truths)
        return detections, {**rpn_losses, **head_losses}


def _build_pyramid(backbone: Backbone, config: FasterRCNNConfig) -> FeaturePyramidNetwork:
    pooled = len(config.anchor_sizes) > len(backbone.out)
    return FeaturePyramidNetwork(
        list(backbone.channels.values()),
        config.fpn_channels,
        extra_blocks=LastLevelMaxPool() if pooled else None,
        norm_layer=nn.BatchNorm2d if config.fpn_norm == "batch" else None,
    )


def _build_rpn(config: FasterRCNNConfig, channels: int) -> RegionProposalNetwork:
    # One map has anchors of all sizes; of several each has its own.
    sizes = [config.anchor_sizes] if config.neck == "c4" else [[s] for s in config.anchor_sizes]
    ratios = tuple(config.anchor_ratios)
    anchors = AnchorGenerator(tuple(tuple(level) for level in sizes), (ratios,) * len(sizes))
    return RegionProposalNetwork(
        anchors,
        _build_rpn_head(config, channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=config.rpn_batch_size_per_image,
        positive_fraction=0.5,
        pre_nms_top_n={
            "training": config.rpn_pre_nms_top_n_train,
            "testing": config.rpn_pre_nms_top_n_test,
        },
        post_nms_top_n={
            "training": config.rpn_post_nms_top_n_train,
            "testing": config.rpn_post_nms_top_n_test,
        },
        nms_thresh=0.7,
    )


def _build_rpn_head(config: FasterRCNNConfig, channels: int, num_anchors: int) -> RPNHead:
    width = config.rpn_channels or channels
    head = RPNHead(width, num_anchors)
    if width != channels:  # its own hidden layer is always as wide as the maps
        convolution = Conv2dNormActivation(channels, width, kernel_size=3, norm_layer=None)
        nn.init.normal_(convolution[0].weight, std=0.01)
        nn.init.zeros_(convolution[0].bias)
        head.conv = nn.Sequential(convolution)
    return head
