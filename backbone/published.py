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

PNASNET_5 = Genotype(
    normal=CellSpec(
        blocks=(
            Block(Edge("sep_conv_5x5", 0), Edge("max_pool_3x3", 0)),
            Block(Edge("sep_conv_7x7", 1), Edge("max_pool_3x3", 1)),
            Block(Edge("sep_conv_5x5", 1), Edge("sep_conv_3x3", 1)),
            Block(Edge("sep_conv_3x3", 4), Edge("max_pool_3x3", 1)),
            Block(Edge("sep_conv_3x3", 0), Edge("identity", 1)),
        ),
        concat=(2, 3, 4, 5, 6),
    ),
    reduction=None,
)
"""Liu et al. 2018, "Progressive neural architecture search", figure 1; blocks as in TensorFlow's
research/slim/nets/nasnet. One cell serves at both strides."""

DARTS_V1 = Genotype(
    normal=CellSpec(
        blocks=(
            Block(Edge("sep_conv_3x3", 1), Edge("sep_conv_3x3", 0)),
            Block(Edge("identity", 0), Edge("sep_conv_3x3", 1)),
            Block(Edge("identity", 0), Edge("sep_conv_3x3", 1)),
            Block(Edge("sep_conv_3x3", 0), Edge("identity", 2)),
        ),
        concat=(2, 3, 4, 5),
    ),
    reduction=CellSpec(
        blocks=(
            Block(Edge("max_pool_3x3", 0), Edge("max_pool_3x3", 1)),
            Block(Edge("identity", 2), Edge("max_pool_3x3", 0)),
            Block(Edge("max_pool_3x3", 0), Edge("identity", 2)),
            Block(Edge("identity", 2), Edge("avg_pool_3x3", 0)),
        ),
        concat=(2, 3, 4, 5),
    ),
)
"""Liu et al. 2019, "DARTS", first order; lists as in quark0/darts. There a strided identity is a
factorized reduction and pools are normalized; here they are NASNet's."""

DARTS_V2 = Genotype(
    normal=CellSpec(
        blocks=(
            Block(Edge("sep_conv_3x3", 0), Edge("sep_conv_3x3", 1)),
            Block(Edge("sep_conv_3x3", 0), Edge("sep_conv_3x3", 1)),
            Block(Edge("sep_conv_3x3", 1), Edge("identity", 0)),
            Block(Edge("identity", 0), Edge("dil_conv_3x3", 2)),
        ),
        concat=(2, 3, 4, 5),
    ),
    reduction=CellSpec(
        blocks=(
            Block(Edge("max_pool_3x3", 0), Edge("max_pool_3x3", 1)),
            Block(Edge("identity", 2), Edge("max_pool_3x3", 1)),
            Block(Edge("max_pool_3x3", 0), Edge("identity", 2)),
            Block(Edge("identity", 2), Edge("max_pool_3x3", 1)),
        ),
        concat=(2, 3, 4, 5),
    ),
)
"""Liu et al. 2019, "DARTS", second order, figures 4 and 5; lists as in quark0/darts."""

ENAS = Genotype(
    normal=CellSpec(
        blocks=(
            Block(Edge("avg_pool_3x3", 0), Edge("sep_conv_3x3", 0)),
            Block(Edge("identity", 0), Edge("sep_conv_5x5", 0)),
            Block(Edge("identity", 0), Edge("sep_conv_5x5", 1)),
            Block(Edge("sep_conv_3x3", 1), Edge("sep_conv_5x5", 0)),
            Block(Edge("avg_pool_3x3", 0), Edge("sep_conv_5x5", 1)),
        ),
        concat=(2, 3, 4, 5, 6),
    ),
    reduction=CellSpec(
        blocks=(
            Block(Edge("sep_conv_3x3", 1), Edge("sep_conv_3x3", 1)),
            Block(Edge("max_pool_3x3", 0), Edge("avg_pool_3x3", 0)),
            Block(Edge("sep_conv_5x5", 1), Edge("sep_conv_5x5", 3)),
            Block(Edge("sep_conv_3x3", 1), Edge("identity", 0)),
            Block(Edge("max_pool_3x3", 0), Edge("sep_conv_5x5", 1)),
        ),
        concat=(2, 4, 5, 6),
    ),
)
"""Pham et al. 2018, "Efficient neural architecture search", figure 6; lists as in
melodyguan/enas, cifar10_micro_final.sh."""

PUBLISHED: Mapping[str, Genotype] = MappingProxyType(
    {
        "nasnet_a": NASNET_A,
        "pnasnet_5": PNASNET_5,
        "darts_v1": DARTS_V1,
        "darts_v2": DARTS_V2,
        "enas": ENAS,
    }
)
"""Name in a backbone spec -> genotype."""
