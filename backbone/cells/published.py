"""Cells from papers, each with its reference."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from backbone.cells.genotype import Block, CellSpec, Edge, Genotype

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

AMOEBANET_A = Genotype(
    normal=CellSpec(
        blocks=(
            Block(Edge("avg_pool_3x3", 1), Edge("max_pool_3x3", 1)),
            Block(Edge("sep_conv_3x3", 0), Edge("identity", 0)),
            Block(Edge("identity", 1), Edge("avg_pool_3x3", 0)),
            Block(Edge("sep_conv_3x3", 1), Edge("sep_conv_5x5", 2)),
            Block(Edge("avg_pool_3x3", 5), Edge("sep_conv_3x3", 1)),
        ),
        concat=(0, 3, 4, 6),
    ),
    reduction=CellSpec(
        blocks=(
            Block(Edge("sep_conv_3x3", 0), Edge("avg_pool_3x3", 1)),
            Block(Edge("max_pool_3x3", 1), Edge("sep_conv_7x7", 2)),
            Block(Edge("max_pool_3x3", 0), Edge("max_pool_3x3", 1)),
            Block(Edge("sep_conv_3x3", 4), Edge("conv_1x7_7x1", 1)),
            Block(Edge("avg_pool_3x3", 0), Edge("sep_conv_7x7", 1)),
        ),
        concat=(2, 3, 4, 5, 6),
    ),
)
"""Real et al. 2019, "Regularized evolution for image classifier architecture search"; lists
as in TensorFlow's tpu/models/official/amoeba_net. The four use bottleneck convolutions."""

AMOEBANET_B = Genotype(
    normal=CellSpec(
        blocks=(
            Block(Edge("conv_1x1", 0), Edge("max_pool_3x3", 0)),
            Block(Edge("identity", 0), Edge("sep_conv_3x3", 1)),
            Block(Edge("conv_1x1", 0), Edge("sep_conv_3x3", 1)),
            Block(Edge("conv_1x1", 2), Edge("identity", 2)),
            Block(Edge("avg_pool_3x3", 0), Edge("conv_1x1", 5)),
        ),
        concat=(1, 3, 4, 6),
    ),
    reduction=CellSpec(
        blocks=(
            Block(Edge("max_pool_2x2", 1), Edge("max_pool_3x3", 1)),
            Block(Edge("identity", 2), Edge("conv_3x3", 0)),
            Block(Edge("sep_conv_5x5", 2), Edge("max_pool_3x3", 2)),
            Block(Edge("identity", 3), Edge("sep_conv_3x3", 0)),
            Block(Edge("avg_pool_3x3", 4), Edge("conv_1x1", 3)),
        ),
        concat=(5, 6),
    ),
)
"""Same sources; the reduction cell's dilated separable operation is the plain one,
as that code reads it."""

AMOEBANET_C = Genotype(
    normal=CellSpec(
        blocks=(
            Block(Edge("avg_pool_3x3", 1), Edge("sep_conv_3x3", 1)),
            Block(Edge("identity", 1), Edge("sep_conv_3x3", 1)),
            Block(Edge("avg_pool_3x3", 2), Edge("sep_conv_3x3", 0)),
            Block(Edge("identity", 1), Edge("sep_conv_3x3", 0)),
            Block(Edge("avg_pool_3x3", 3), Edge("sep_conv_3x3", 1)),
        ),
        concat=(0, 2, 4, 5, 6),
    ),
    reduction=CellSpec(
        blocks=(
            Block(Edge("max_pool_3x3", 1), Edge("max_pool_3x3", 1)),
            Block(Edge("sep_conv_7x7", 2), Edge("sep_conv_3x3", 1)),
            Block(Edge("sep_conv_7x7", 1), Edge("max_pool_3x3", 0)),
            Block(Edge("sep_conv_5x5", 4), Edge("sep_conv_5x5", 4)),
            Block(Edge("max_pool_3x3", 0), Edge("sep_conv_3x3", 0)),
        ),
        concat=(1, 2, 3, 4, 5, 6),
    ),
)
"""Same sources."""

AMOEBANET_D = Genotype(
    normal=CellSpec(
        blocks=(
            Block(Edge("conv_1x1", 0), Edge("max_pool_3x3", 0)),
            Block(Edge("identity", 0), Edge("conv_1x7_7x1", 1)),
            Block(Edge("conv_1x1", 1), Edge("conv_1x7_7x1", 1)),
            Block(Edge("max_pool_3x3", 2), Edge("identity", 2)),
            Block(Edge("avg_pool_3x3", 0), Edge("conv_1x1", 5)),
        ),
        concat=(1, 3, 4, 6),
    ),
    reduction=CellSpec(
        blocks=(
            Block(Edge("max_pool_2x2", 1), Edge("max_pool_3x3", 1)),
            Block(Edge("identity", 2), Edge("conv_3x3", 0)),
            Block(Edge("conv_1x7_7x1", 2), Edge("max_pool_3x3", 2)),
            Block(Edge("identity", 3), Edge("max_pool_2x2", 0)),
            Block(Edge("avg_pool_3x3", 2), Edge("conv_1x1", 3)),
        ),
        concat=(4, 5, 6),
    ),
)
"""Same sources."""

PUBLISHED: Mapping[str, Genotype] = MappingProxyType(
    {
        "nasnet_a": NASNET_A,
        "pnasnet_5": PNASNET_5,
        "amoebanet_a": AMOEBANET_A,
        "amoebanet_b": AMOEBANET_B,
        "amoebanet_c": AMOEBANET_C,
        "amoebanet_d": AMOEBANET_D,
        "darts_v1": DARTS_V1,
        "darts_v2": DARTS_V2,
        "enas": ENAS,
    }
)
"""Name in a backbone spec -> genotype."""

CONVENTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        name: {"stem_filters": 32, "skip_reduction_input": False, "convolutions": "bottleneck"}
        for name in PUBLISHED
        if name.startswith("amoebanet")
    }
)
"""Name -> members of ``NetworkConfig`` by which the released code of these cells differs."""
