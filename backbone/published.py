"""Cells from papers, each with its reference."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from backbone.genotype import Block, CellSpec, Edge, Genotype

NASNET_A = Genotype(
    normal=CellSpec(
        blocks=(
            Block(Edge("sep_conv_5x5", 1), Edge("sep_conv_3x3", 0)),
            Block(Edge("sep_conv_5x5", 0), Edge("sep_conv_3x3", 0)),
            Block(Edge("avg_pool_3x3", 1), Edge("identity", 0)),
            Block(Edge("avg_pool_3x3", 0), Edge("avg_pool_3x3", 0)),
            Block(Edge("sep_conv_3x3", 1), Edge("identity", 1)),
        ),
        # The older input is read and concatenated all the same.
        concat=(0, 2, 3, 4, 5, 6),
    ),
    reduction=CellSpec(
        blocks=(
            Block(Edge("sep_conv_5x5", 1), Edge("sep_conv_7x7", 0)),
            Block(Edge("max_pool_3x3", 1), Edge("sep_conv_7x7", 0)),
            Block(Edge("avg_pool_3x3", 1), Edge("sep_conv_5x5", 0)),
            Block(Edge("identity", 3), Edge("avg_pool_3x3", 2)),
            Block(Edge("sep_conv_3x3", 2), Edge("max_pool_3x3", 1)),
        ),
        concat=(3, 4, 5, 6),
    ),
)
"""Zoph et al. 2018, figure 4; lists as in TensorFlow's research/slim/nets/nasnet."""

PUBLISHED: Mapping[str, Genotype] = MappingProxyType({"nasnet_a": NASNET_A})
"""Name in a backbone spec -> genotype."""
