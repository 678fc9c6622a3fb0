"""Levels and anchors of the RetinaNets of both libraries (Lin et al. 2017, "Focal loss")."""

from __future__ import annotations

from backbone.models.backbone import Backbone
from detection.models.config import RetinaNetConfig

OCTAVES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
"""Sizes of the anchors at each location, as multiples of their level's size."""
HEAD_CONVOLUTIONS = 4
"""Number of hidden layers of each head."""


def pyramid_levels(backbone: Backbone, config: RetinaNetConfig) -> tuple[list[str], bool]:
    """Return the inputs of the FPN, and whether it has two extra levels on top.

    With one anchor size more than the backbone has maps, the finest map is left out and there are
    two extra levels: p3 to p7 from c3 to c5, as published. Otherwise there is one level per map.
    """
    extended = len(config.anchor_sizes) > len(backbone.out)
    return list(backbone.out[1:] if extended else backbone.out), extended


def anchor_octaves(config: RetinaNetConfig) -> list[list[float]]:
    """Return the sides of the square anchors on each level, in pixels."""
    return [[size * octave for octave in OCTAVES] for size in config.anchor_sizes]
