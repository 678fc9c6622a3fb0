"""What the RetinaNets of both engines have in common (Lin et al. 2017, "Focal loss")."""

from __future__ import annotations

from backbone.models.backbone import Backbone
from detection.models.config import RetinaNetConfig

OCTAVES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
"""Sizes of the anchors at each place, as multiples of their level's."""
HEAD_CONVOLUTIONS = 4
"""Hidden layers of each head."""


def pyramid_levels(backbone: Backbone, config: RetinaNetConfig) -> tuple[list[str], bool]:
    """Return the maps under the pyramid, and whether two levels are convolved on top of it.

    With one anchor size more than the backbone has maps the finest map is left out and there are
    two more levels, p3 to p7 of c3 to c5, as published; else the levels are the maps'.
    """
    extended = len(config.anchor_sizes) > len(backbone.out)
    return list(backbone.out[1:] if extended else backbone.out), extended


def anchor_octaves(config: RetinaNetConfig) -> list[list[float]]:
    """Return the sides of the square anchors on each level, in pixels."""
    return [[size * octave for octave in OCTAVES] for size in config.anchor_sizes]
