"""One cell of a genotype as a module (paper, section 3, figures 3 and 4; appendix A.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import stochastic_depth

from backbone.cells.genotype import NEWER, NUM_INPUTS, OLDER, CellSpec, Edge
from backbone.models.operations import OPERATIONS, FactorizedReduction, NormFactory, conv_norm


class Cell(nn.Module):
    """Compute one ``CellSpec``.

    Every hidden state has ``channels`` channels: 1x1 convolutions are inserted where shapes do not
    match (appendix A.4), after a concatenating block too. The one exception is the raw older input
    of a network's first cell, to which the first operations adapt.

    Args:
        spec: the cell.
        older_channels: channels of the output before last; ``None`` for a network's first cell,
            which then reads its one input twice, raw as the older and squeezed as the newer.
        newer_channels: channels of the last output.
        channels: channels of every hidden state.
        stride: 1 for a normal cell, 2 for a reduction cell.
        older_stride: how many times larger the older input's sides are, 1 or 2.
        convolutions: ``full`` or ``bottleneck``; see ``backbone.models.operations``.
        norm: makes the normalization layers.

    Shape:
        - older: (B, C_older, r*H, r*W), r = ``older_stride`` (sides rounded up after division)
        - newer: (B, C_newer, H, W)
        - output: (B, len(spec.concat) * channels, ceil(H/stride), ceil(W/stride))
    """

    def __init__(  # noqa: PLR0913  # a cell has that many independent settings
        self,
        spec: CellSpec,
        *,
        older_channels: int | None,
        newer_channels: int,
        channels: int,
        stride: int,
        older_stride: int = 1,
        convolutions: str = "full",
        norm: NormFactory = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.stride = stride
        self.out_channels = len(spec.concat) * channels
        self.align_newer = conv_norm(newer_channels, channels, 1, norm=norm)
        self.align_older: nn.Module = nn.Identity()
        raw_channels = newer_channels  # of state 0 as the operations meet it
        if older_channels is not None:
            raw_channels = channels
            if older_stride == 2:
                self.align_older = nn.Sequential(
                    nn.ReLU(), FactorizedReduction(older_channels, channels, norm=norm)
                )
            elif older_channels != channels:
                self.align_older = conv_norm(older_channels, channels, 1, norm=norm)

        widths = [raw_channels] + [channels] * (1 + len(spec.blocks))

        def operation(edge: Edge) -> nn.Module:
            # Only the cell's inputs still have the full size in a reduction cell.
            edge_stride = stride if edge.source < NUM_INPUTS else 1
            make = OPERATIONS[convolutions][edge.operation]
            return make(widths[edge.source], channels, edge_stride, norm)

        self.left = nn.ModuleList(operation(block.left) for block in spec.blocks)
        self.right = nn.ModuleList(operation(block.right) for block in spec.blocks)
        self.squeeze = nn.ModuleList(
            conv_norm(2 * channels, channels, 1, norm=norm)
            if block.combine == "concat"
            else nn.Identity()
            for block in spec.blocks
        )
        self.output = nn.ModuleList(
            _output_path(widths[state], channels, stride if state < NUM_INPUTS else 1, norm)
            for state in spec.concat
        )
        self.drop_path = 0.0
        """Probability in training that an operation's result is dropped, per image; the remaining
        results are scaled up accordingly. Identities are never dropped."""

    def forward(self, older: Tensor | None, newer: Tensor) -> Tensor:
        states = [
            newer if older is None else self.align_older(older),
            self.align_newer(newer),
        ]
        assert (OLDER, NEWER) == (0, 1)
        for block, left, right, squeeze in zip(
            self.spec.blocks, self.left, self.right, self.squeeze, strict=True
        ):
            a = self._dropped(left(states[block.left.source]), block.left)
            b = self._dropped(right(states[block.right.source]), block.right)
            states.append(a + b if block.combine == "add" else squeeze(torch.cat([a, b], dim=1)))
        return torch.cat(
            [path(states[i]) for i, path in zip(self.spec.concat, self.output, strict=True)], dim=1
        )

    def _dropped(self, result: Tensor, edge: Edge) -> Tensor:
        if not self.training or self.drop_path == 0 or edge.operation == "identity":
            return result
        return stochastic_depth(result, self.drop_path, mode="row")


def _output_path(in_channels: int, out_channels: int, stride: int, norm: NormFactory) -> nn.Module:
    """Bring an input that is itself concatenated to the output's shape (slim's rule: no ReLU)."""
    if stride == 2:
        return FactorizedReduction(in_channels, out_channels, norm=norm)
    if in_channels != out_channels:
        return conv_norm(in_channels, out_channels, 1, relu=False, norm=norm)
    return nn.Identity()
