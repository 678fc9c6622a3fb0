"""Faster R-CNN with FPN from torchvision's parts.

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
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from backbone.specs import Backbone
from detection.config import DetectorConfig
from detection.detector import Detections, Detector, Target, batch_images

POOLED_SIDE = 7
"""Rows and columns of the crop that the box head sees (Lin et al. 2017)."""


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


class TorchvisionDetector(Detector):
    """``Detector`` from ``torchvision.models.detection``."""

    def __init__(self, backbone: Backbone, *, num_classes: int, config: DetectorConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_classes = num_classes
        pooled_level = len(config.anchor_sizes) > len(backbone.out)
        self.neck = FeaturePyramidNetwork(
            list(backbone.channels.values()),
            config.neck_channels,
            extra_blocks=LastLevelMaxPool() if pooled_level else None,
            norm_layer=nn.BatchNorm2d if config.neck_norm == "batch" else None,
        )
        ratios = tuple(config.anchor_ratios)
        anchors = AnchorGenerator(
            tuple((size,) for size in config.anchor_sizes), (ratios,) * len(config.anchor_sizes)
        )
        self.rpn = RegionProposalNetwork(
            anchors,
            RPNHead(config.neck_channels, len(ratios)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=config.rpn_batch,
            positive_fraction=0.5,
            pre_nms_top_n={
                "training": config.rpn_candidates_train,
                "testing": config.rpn_candidates_test,
            },
            post_nms_top_n={
                "training": config.proposals_train,
                "testing": config.proposals_test,
            },
            nms_thresh=0.7,
        )
        predictor = ClassAgnosticPredictor if config.class_agnostic_boxes else FastRCNNPredictor
        self.roi_heads = RoIHeads(
            MultiScaleRoIAlign(
                list(backbone.out)[: config.crop_levels or None],
                output_size=POOLED_SIDE,
                sampling_ratio=config.roi_samples,
            ),
            TwoMLPHead(config.neck_channels * POOLED_SIDE**2, config.head_features),
            predictor(config.head_features, num_classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=config.roi_batch,
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
        return losses

    def predict(self, images: Sequence[Tensor]) -> list[Detections]:
        assert not self.training
        found, _ = self._run(images, None)
        return [Detections(f["boxes"], f["scores"], f["labels"] - 1) for f in found]

    def _run(
        self, images: Sequence[Tensor], truths: list[dict[str, Tensor]] | None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        batch, sizes = batch_images(images)
        maps = self.neck(self.backbone(batch))
        proposals, rpn_losses = self.rpn(ImageList(batch, sizes), maps, truths)
        found, head_losses = self.roi_heads(maps, proposals, sizes, truths)
        return found, {**rpn_losses, **head_losses}
