"""The candidate operations of a cell as modules (paper, section 3 and appendix A.4).

Every convolution is ReLU, convolution, batch normalization, in this order. Separable operations
are applied twice; stride and a change of channels happen in the first application. Padding is
TensorFlow's SAME, which for stride 2 depends on whether the side is odd or even, since the
published numbers were obtained with it.

No source states the width of the paper's convolutions that are not separable. ``FULL``
gives them the width of a hidden state; ``BOTTLENECK`` puts them between two 1x1 convolutions at a
quarter of it, as AmoebaNet's released code does (TensorFlow's tpu/models/official/amoeba_net).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbone.cells.genotype import OPERATION_NAMES


def same_padding(side: int, *, kernel: int, stride: int) -> tuple[int, int]:
    """Return the rows that TensorFlow's SAME padding adds before and after a side in pixels."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """Convolution without bias whose output has ``ceil(side / stride)`` rows and columns.

    Shape:
        - input: (B, C_in, H, W)
        - output: (B, C_out, ceil(H/stride), ceil(W/stride))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            dilation=dilation,
            groups=groups,
            bias=False,
        )
        # For stride 1 SAME is symmetric, and the convolution's own padding is faster.
        self._extents = [(k - 1) * dilation + 1 for k in self.kernel_size]
        self._pads_itself = all(
            s == 1 or e == 1 for s, e in zip(self.stride, self._extents, strict=True)
        )
        if self._pads_itself:
            self.padding = tuple(extent // 2 for extent in self._extents)
        self._only_skips = self._extents == [1, 1] and max(self.stride) > 1

    def forward(self, images: Tensor) -> Tensor:
        if self._only_skips:
            # The gradient of a strided 1x1 kernel with less than 16 input channels in channels-last
            # is computed by oneDNN beyond the end of its memory (torch 2.14.1, AVX-512), which can
            # crash the process.
            rows, columns = self.stride
            return F.conv2d(images[..., ::rows, ::columns], self.weight, groups=self.groups)
        if not self._pads_itself:
            top, bottom, left, right = (
                rows
                for side, extent, stride in zip(
                    _sides(images), self._extents, self.stride, strict=True
                )
                for rows in same_padding(side, kernel=extent, stride=stride)
            )
            images = F.pad(images, (left, right, top, bottom))
        return super().forward(images)


def _sides(images: Tensor) -> tuple[int, int]:
    """Return height and width, as numbers even while tracing, which fixes them."""
    height, width = images.shape[-2:]
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return (int(height), int(width)) if tracing else (height, width)


class SamePool2d(nn.Module):
    """Maximum or average over a window, SAME-padded; excluding the padding.

    With ``count_padding`` an average counts the padding as zeros.

    Shape:
        - input: (B, C, H, W)
        - output: (B, C, ceil(H/stride), ceil(W/stride))
    """

    def __init__(self, kind: str, kernel: int, *, stride: int) -> None:
        super().__init__()
        if kind not in ("max", "avg"):
            raise ValueError(f"unknown pooling {kind!r}; choose 'max' or 'avg'")
        if kernel % 2 == 0 and kind == "avg":
            raise ValueError(f"average pooling needs an odd window, not {kernel}")
        self.kind, self.kernel, self.stride = kind, kernel, stride
        self.count_padding = False

    def forward(self, images: Tensor) -> Tensor:
        if self.count_padding and self.kind == "avg":
            top, bottom, left, right = (
                rows
                for side in _sides(images)
                for rows in same_padding(side, kernel=self.kernel, stride=self.stride)
            )
            images = F.pad(images, (left, right, top, bottom))
            return F.avg_pool2d(images, self.kernel, self.stride)
        if self.kernel % 2 == 0 and self.stride == 1:  # an even window reaches one pixel further
            images = F.pad(images, (0, self.kernel - 1, 0, self.kernel - 1), value=-math.inf)
            return F.max_pool2d(images, self.kernel, 1)
        # SAME's surplus row, if any, is after the last pixel: pad symmetrically with the smaller
        # number and let ceil_mode add the rest, which keeps the padding out of the average.
        padding = [
            same_padding(side, kernel=self.kernel, stride=self.stride)[0] for side in _sides(images)
        ]
        if self.kind == "max":
            return F.max_pool2d(images, self.kernel, self.stride, padding, ceil_mode=True)
        return F.avg_pool2d(
            images, self.kernel, self.stride, padding, ceil_mode=True, count_include_pad=False
        )

    def extra_repr(self) -> str:
        return f"{self.kind}, kernel={self.kernel}, stride={self.stride}"


class FactorizedReduction(nn.Module):
    """Halve a map and keep all its pixels: two 1x1 convolutions on grids one pixel apart.

    There is no ReLU inside; the caller applies one where the paper's code does.

    Shape:
        - input: (B, C_in, H, W)
        - output: (B, C_out, ceil(H/2), ceil(W/2)); of an odd number of channels the shifted grid
          gives one more

    Raises:
        ValueError: if C_out is below 2.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: NormFactory) -> None:
        super().__init__()
        if out_channels < 2:
            raise ValueError("a factorized reduction needs at least 2 channels; take a larger F")
        self.even = nn.Conv2d(in_channels, out_channels // 2, 1, bias=False)
        self.odd = nn.Conv2d(in_channels, out_channels - out_channels // 2, 1, bias=False)
        self.norm = norm(out_channels)

    def forward(self, images: Tensor) -> Tensor:
        even = images[..., ::2, ::2]
        odd = F.pad(images, (0, 1, 0, 1))[..., 1::2, 1::2]
        return self.norm(torch.cat([self.even(even), self.odd(odd)], dim=1))


class NormFactory(Protocol):
    """A function that builds the normalization layer for a number of channels."""

    def __call__(self, channels: int, /) -> nn.Module: ...


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int | tuple[int, int],
    *,
    stride: int | tuple[int, int] = 1,
    dilation: int = 1,
    relu: bool = True,
    norm: NormFactory,
) -> nn.Sequential:
    """Return an optional ReLU, a convolution and its normalization."""
    layers: list[nn.Module] = [nn.ReLU()] if relu else []
    conv = SameConv2d(in_channels, out_channels, kernel, stride=stride, dilation=dilation)
    return nn.Sequential(*layers, conv, norm(out_channels))


def _separable(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    norm: NormFactory,
) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(),
        SameConv2d(
            in_channels, in_channels, kernel, stride=stride, dilation=dilation, groups=in_channels
        ),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        norm(out_channels),
    )


def _separable_twice(
    kernel: int, in_channels: int, out_channels: int, stride: int, norm: NormFactory
) -> nn.Module:
    return nn.Sequential(
        _separable(in_channels, out_channels, kernel, stride=stride, norm=norm),
        _separable(out_channels, out_channels, kernel, norm=norm),
    )


def _separable_dilated(
    kernel: int, in_channels: int, out_channels: int, stride: int, norm: NormFactory
) -> nn.Module:
    return _separable(in_channels, out_channels, kernel, stride=stride, dilation=2, norm=norm)


def _dilated(
    kernel: int, in_channels: int, out_channels: int, stride: int, norm: NormFactory
) -> nn.Module:
    return conv_norm(in_channels, out_channels, kernel, stride=stride, dilation=2, norm=norm)


def _convolution(
    kernel: int, in_channels: int, out_channels: int, stride: int, norm: NormFactory
) -> nn.Module:
    return conv_norm(in_channels, out_channels, kernel, stride=stride, norm=norm)


def _factored_convolution(
    kernel: int, in_channels: int, out_channels: int, stride: int, norm: NormFactory
) -> nn.Module:
    # Each half strides along itself: a 1xk convolution that skipped rows would never see them.
    return nn.Sequential(
        conv_norm(in_channels, out_channels, (1, kernel), stride=(1, stride), norm=norm),
        conv_norm(out_channels, out_channels, (kernel, 1), stride=(stride, 1), norm=norm),
    )


def _bottleneck(
    make: OperationFactory,
    fraction: float,
    in_channels: int,
    out_channels: int,
    stride: int,
    norm: NormFactory,
) -> nn.Module:
    narrow = int(fraction * out_channels)
    if narrow < 1:
        return make(in_channels, out_channels, stride, norm)
    return nn.Sequential(
        conv_norm(in_channels, narrow, 1, norm=norm),
        make(narrow, narrow, stride, norm),
        conv_norm(narrow, out_channels, 1, norm=norm),
    )


def _pool(
    kind: str, kernel: int, in_channels: int, out_channels: int, stride: int, norm: NormFactory
) -> nn.Module:
    pool = SamePool2d(kind, kernel, stride=stride)
    if in_channels == out_channels:
        return pool
    return nn.Sequential(pool, conv_norm(in_channels, out_channels, 1, relu=False, norm=norm))


def _identity(in_channels: int, out_channels: int, stride: int, norm: NormFactory) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return conv_norm(in_channels, out_channels, 1, stride=stride, norm=norm)


OperationFactory = Callable[[int, int, int, NormFactory], nn.Module]
"""(in_channels, out_channels, stride, norm) -> module"""

FULL: Mapping[str, OperationFactory] = MappingProxyType(
    {
        "identity": _identity,
        "conv_1x1": partial(_convolution, 1),
        "conv_3x3": partial(_convolution, 3),
        "conv_1x3_3x1": partial(_factored_convolution, 3),
        "conv_1x7_7x1": partial(_factored_convolution, 7),
        "dil_conv_3x3": partial(_separable_dilated, 3),
        "sep_conv_3x3": partial(_separable_twice, 3),
        "sep_conv_5x5": partial(_separable_twice, 5),
        "sep_conv_7x7": partial(_separable_twice, 7),
        "avg_pool_3x3": partial(_pool, "avg", 3),
        "max_pool_3x3": partial(_pool, "max", 3),
        "max_pool_5x5": partial(_pool, "max", 5),
        "max_pool_7x7": partial(_pool, "max", 7),
        "dil_conv_5x5": partial(_separable_dilated, 5),
        "max_pool_2x2": partial(_pool, "max", 2),
    }
)
"""Operation name -> function that builds its module; the names are the genotype's."""

BOTTLENECK: Mapping[str, OperationFactory] = MappingProxyType(
    {
        **FULL,
        "conv_3x3": partial(_bottleneck, FULL["conv_3x3"], 1 / 4),
        "conv_1x3_3x1": partial(_bottleneck, FULL["conv_1x3_3x1"], 3 / 8),
        "conv_1x7_7x1": partial(_bottleneck, FULL["conv_1x7_7x1"], 1 / 4),
        "dil_conv_3x3": partial(_bottleneck, partial(_dilated, 3), 1 / 4),
        "dil_conv_5x5": partial(_bottleneck, partial(_dilated, 5), 1 / 4),
    }
)

OPERATIONS = MappingProxyType({"full": FULL, "bottleneck": BOTTLENECK})
"""Kind of convolutions -> operation name -> module."""

assert tuple(FULL) == OPERATION_NAMES
