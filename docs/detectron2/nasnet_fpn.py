"""Faster R-CNN with FPN on one of our backbones, for detectron2's lazyconfig_train_net.py.

Its 1x schedule on COCO 2017; see docs/detectron2.md. It stands on the files that come with
detectron2, found without ``detectron2.model_zoo``, which needs setuptools' ``pkg_resources``.
"""

from pathlib import Path

import detectron2
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig

from detection.models.detectron2.registry import nasdet_backbone

_common = Path(detectron2.__file__).parent / "model_zoo" / "configs" / "common"


def _load(name):  # noqa: ANN001, ANN202
    return LazyConfig.load(str(_common / name))


model = _load("models/mask_rcnn_fpn.py").model
model.backbone.bottom_up = L(nasdet_backbone)(
    spec="nasnet_a:4@1056",  # or runs/pretrain/backbone.safetensors, timm:resnet50, ...
    norm="batch",  # frozen for a pretrained backbone, sync on several GPUs
    frozen_stages=0,  # 2 for a pretrained backbone
)
model.backbone.in_features = ["c2", "c3", "c4", "c5"]
# Raw pixels: the backbone normalizes by itself.
model.pixel_mean = [0.0, 0.0, 0.0]
model.pixel_std = [1.0, 1.0, 1.0]
# Boxes alone.
model.roi_heads.mask_in_features = None
model.roi_heads.mask_pooler = None
model.roi_heads.mask_head = None

dataloader = _load("data/coco.py").dataloader
dataloader.train.mapper.use_instance_mask = False

optimizer = _load("optim.py").SGD
lr_multiplier = _load("coco_schedule.py").lr_multiplier_1x
train = _load("train.py").train
