"""Faster R-CNN without a pyramid: one map at stride 16, and the backbone's end as the box head.

So Zoph et al. 2018, section 4.3, and the released code that ``C4Split`` names.
Crops of the map are read as RoIAlign does, one point per cell of 17 x 17, which is the part of both
engines' that comes nearest to the released code's bilinear crop: that one's outermost points lie on
the box's border, these half a cell inside it.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from backbone.models.backbone import C4Split

SINGLE_LEVEL = "c4"
"""The name that the one map has here."""


class SingleMap(nn.Module):
    """The neck that is none. It has no weights; those of the first part are the backbone's.

    Shape:
        - images: (B, 3, H, W) in [0, 1]
        - output: ``{"c4": (B, C, H/16, W/16)}``
    """

    def __init__(self, split: C4Split) -> None:
        super().__init__()
        self.split = split

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {SINGLE_LEVEL: self.split.forward_c4(images)}


class CropHead(nn.Module):
    """The backbone's second part on crops, then a ReLU. It has no weights of its own either.

    Shape:
        - crops: (R, C, h, w)
        - output: (R, C5, h/2, w/2), sides rounded up
    """

    def __init__(self, split: C4Split) -> None:
        super().__init__()
        self.split = split

    def forward(self, crops: Tensor) -> Tensor:
        return F.relu(self.split.forward_c5(crops))
