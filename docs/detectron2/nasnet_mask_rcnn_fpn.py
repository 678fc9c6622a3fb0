"""Mask R-CNN with FPN on one of our backbones, for detectron2's lazyconfig_train_net.py.

As nasnet_fpn.py beside it, with detectron2's mask head and masks from its own data loader; see
docs/detectron2.md.
"""

from pathlib import Path

import detectron2
from detectron2.config import LazyConfig

from .nasnet_fpn import dataloader, lr_multiplier, model, optimizer, train  # noqa: TID252

_models = Path(detectron2.__file__).parent / "model_zoo" / "configs" / "common" / "models"
_published = LazyConfig.load(str(_models / "mask_rcnn_fpn.py")).model.roi_heads

for _part in ("mask_in_features", "mask_pooler", "mask_head"):
    model.roi_heads[_part] = _published[_part]
dataloader.train.mapper.use_instance_mask = True

__all__ = ["dataloader", "lr_multiplier", "model", "optimizer", "train"]
