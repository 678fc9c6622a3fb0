"""RetinaNet from torchvision's parts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from backbone.models.backbone import Backbone
from detection.models.config import RetinaNetConfig
from detection.models.detector import Detector
from detection.models.retinanet import anchor_octaves, pyramid_levels
from detection.structures import Detections, Target, batch_images


class TorchvisionRetinaNet(Detector):
    """``Detector`` from torchvision's ``RetinaNet``, without its own way in and out."""

    def __init__(self, backbone: Backbone, *, num_classes: int, config: RetinaNetConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_classes = num_classes
        self.box_loss_weight = config.box_loss_weight
        self.levels, extended = pyramid_levels(backbone, config)
        channels = [backbone.channels[level] for level in self.levels]
        neck = FeaturePyramidNetwork(
            channels,
            config.fpn_channels,
            extra_blocks=LastLevelP6P7(channels[-1], config.fpn_channels) if extended else None,
            norm_layer=nn.BatchNorm2d if config.fpn_norm == "batch" else None,
        )
        neck.out_channels = config.fpn_channels  # which RetinaNet insists on
        anchors = AnchorGenerator(
            tuple(tuple(sizes) for sizes in anchor_octaves(config)),
            (tuple(config.anchor_ratios),) * len(config.anchor_sizes),
        )
        self.network = RetinaNet(
            neck,
            num_classes,
            anchor_generator=anchors,
            head=RetinaNetHead(
                config.fpn_channels, anchors.num_anchors_per_location()[0], num_classes
            ),
            score_thresh=config.score_threshold,
            nms_thresh=config.nms_threshold,
            detections_per_img=config.max_detections,
            topk_candidates=config.topk_candidates,
        )

    def losses(self, images: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        assert self.training
        _, outputs, anchors, _ = self._run(images)
        truths = [{"boxes": t.boxes, "labels": t.labels} for t in targets]
        losses: dict[str, Tensor] = self.network.compute_loss(truths, outputs, anchors)
        box_loss = losses["bbox_regression"] * self.box_loss_weight
        return {"loss_cls": losses["classification"], "loss_box_reg": box_loss}

    def predict(self, images: Sequence[Tensor]) -> list[Detections]:
        assert not self.training
        maps, outputs, anchors, sizes = self._run(images)
        num_anchors = self.network.anchor_generator.num_anchors_per_location()
        counts = [m[0, 0].numel() * n for m, n in zip(maps, num_anchors, strict=True)]
        detections = self.network.postprocess_detections(
            {name: list(torch.split(output, counts, dim=1)) for name, output in outputs.items()},
            [list(torch.split(boxes, counts)) for boxes in anchors],
            sizes,
        )
        return [Detections(d["boxes"], d["scores"].float(), d["labels"]) for d in detections]

    def _run(
        self, images: Sequence[Tensor]
    ) -> tuple[list[Tensor], dict[str, Tensor], list[Tensor], list[tuple[int, int]]]:
        batch, sizes = batch_images(images)
        maps = self.backbone(batch)
        features = list(
            self.network.backbone({level: maps[level] for level in self.levels}).values()
        )
        anchors = self.network.anchor_generator(ImageList(batch, sizes), features)
        return features, self.network.head(features), anchors, sizes
