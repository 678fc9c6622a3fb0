"""The parts of a Faster R-CNN on a C4 backbone: proposals on one map, and c5 as the box head.

As in Zoph et al. 2018, section 4.3, and the released code that ``C4Split`` names. RoIAlign reads
one point per bin of 17 x 17, which comes nearest to the released code's bilinear crop: the
outermost points of that one are on the box's border, those of RoIAlign half a bin inside.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from backbone.models.backbone import C4Split

C4_LEVEL = "c4"
"""Name of the only level."""


class C4Neck(nn.Module):
    """Identity neck: exposes the stride-16 map as the only level (C4).

    It has no weights; those of the first part are the backbone's.

    Shape:
        - images: (B, 3, H, W) in [0, 1]
        - output: ``{"c4": (B, C, H/16, W/16)}``
    """

    def __init__(self, split: C4Split) -> None:
        super().__init__()
        self.split = split

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {C4_LEVEL: self.split.forward_c4(images)}


class Res5Head(nn.Module):
    """Box head: the second part of the backbone on crops, then a ReLU. It has no weights either.

    Shape:
        - crops: (R, C, h, w)
        - output: (R, C5, h/2, w/2), sides rounded up
    """

    def __init__(self, split: C4Split) -> None:
        super().__init__()
        self.split = split

    def forward(self, crops: Tensor) -> Tensor:
        return F.relu(self.split.forward_c5(crops))
