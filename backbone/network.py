"""Cells stacked to a network: N @ F, stems, and the taps ``c2`` to ``c5`` (paper, section 3).

The construction follows the paper's released code (TensorFlow's research/slim/nets/nasnet): a
stem, three stacks of N normal cells at F1, 2*F1 and 4*F1 filters, a reduction cell between stacks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from backbone.cell import Cell
from backbone.genotype import Genotype
from backbone.operations import NormFactory, SameConv2d

NUM_STACKS = 3
WIDTH_STEP = 4
"""The first stack's filters must divide by 4: two stem cells run at a quarter and a half of them,
and a factorized reduction needs an even width."""

BatchNorm: Callable[[int], nn.BatchNorm2d] = partial(nn.BatchNorm2d, eps=1e-3)
"""Batch normalization with the released code's epsilon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """What, beside the genotype, decides a network's shape."""

    num_cells: int
    """N: normal cells per stack, at least 1."""
    filters: int
    """F: filters of the penultimate layer, as in the paper's N @ F; ``first_filters`` divides it
    down to the width of the first stack's cells."""
    stem: Literal["imagenet", "cifar"] = "imagenet"
    """``imagenet``: a strided convolution and two reduction cells, stride 8 before the first
    stack. ``cifar``: one convolution that keeps the size."""
    stem_filters: int = 32
    """Channels of the ImageNet stem's convolution: 32 in the paper's mobile network, 96 in its
    large one. The CIFAR stem always has three times the first stack's filters."""
    skip_reduction_input: bool = False
    """Whether the first cell of a stack reads, as its older input, the output before the one that
    the reduction cell read last (True in the paper's large network)."""

    def __post_init__(self) -> None:
        if self.num_cells < 1:
            raise ValueError(f"N must be at least 1 normal cell per stack, not {self.num_cells}")
        if self.stem not in ("imagenet", "cifar"):
            raise ValueError(f"unknown stem {self.stem!r}; choose 'imagenet' or 'cifar'")
        if self.stem_filters < 1:
            raise ValueError(f"a stem needs at least 1 filter, not {self.stem_filters}")

    def to_dict(self) -> dict[str, Any]:
        """Return the members as JSON's types."""
        return {name: getattr(self, name) for name in self.__slots__}


def penultimate_filters(genotype: Genotype, first_filters: int) -> int:
    """Return F of N @ F for a first stack that many filters wide."""
    return 2 ** (NUM_STACKS - 1) * len(genotype.normal.concat) * first_filters


def first_filters(genotype: Genotype, filters: int) -> int:
    """Return the width of the first stack's cells, given F of N @ F.

    Raises:
        ValueError: if ``filters`` does not divide; the message names the nearest that do.
    """
    step = penultimate_filters(genotype, WIDTH_STEP)
    if filters < step or filters % step:
        below = max(filters // step, 1) * step
        raise ValueError(
            f"F = {filters} does not divide into these cells: the normal cell concatenates "
            f"{len(genotype.normal.concat)} states, so F must be a multiple of {step}; "
            f"the nearest are {below} and {below + step}"
        )
    return filters // penultimate_filters(genotype, 1)


class CellNetwork(nn.Module):
    """The trunk: images to feature maps, without a head.

    Shape:
        - images: (B, 3, H, W), normalized, H and W at least 32
        - output: a dict of maps, finest first. ImageNet stem: ``c2`` to ``c5`` at strides 4 to 32;
          sides that divide by 32 are divided exactly, others may be one row or column short,
          since the first convolution does not pad. CIFAR stem: ``c0`` to ``c2``, strides 1 to 4.

    Maps are sums and concatenations before a ReLU; what reads them applies one.
    """

    def __init__(
        self, genotype: Genotype, config: NetworkConfig, *, norm: NormFactory = BatchNorm
    ) -> None:
        super().__init__()
        self.genotype, self.config = genotype, config
        width = first_filters(genotype, config.filters)
        self.cells = nn.ModuleList()
        self._inputs: list[tuple[int | None, int]] = []  # of each cell: outputs it reads
        self._taps: dict[str, int] = {}
        self.channels: dict[str, int] = {}
        self.strides: dict[str, int] = {}

        if config.stem == "imagenet":
            # The paper's first convolution is VALID: the border row that does not fit is dropped.
            conv: nn.Module = nn.Conv2d(3, config.stem_filters, 3, stride=2, bias=False)
            stem_channels, stem_stride = config.stem_filters, 2
        else:
            conv = SameConv2d(3, 3 * width, 3)
            stem_channels, stem_stride = 3 * width, 1
        self.stem = nn.Sequential(conv, norm(stem_channels))

        outputs = [(stem_channels, stem_stride)]  # channels and stride of every output so far

        def append(kind: Literal["normal", "reduction"], filters: int, older: int | None) -> None:
            channels, stride = outputs[-1]
            older_channels, older_stride = (None, stride) if older is None else outputs[older]
            cell = Cell(
                genotype.normal if kind == "normal" else genotype.reduction,
                older_channels=older_channels,
                newer_channels=channels,
                channels=filters,
                stride=1 if kind == "normal" else 2,
                older_stride=stride // older_stride,
                norm=norm,
            )
            self._inputs.append((older, len(outputs) - 1))
            self.cells.append(cell)
            outputs.append((cell.out_channels, stride * cell.stride))

        def before_last() -> int | None:
            return len(outputs) - 2 if len(outputs) > 1 else None

        def tap() -> None:
            channels, stride = outputs[-1]
            name = f"c{stride.bit_length() - 1}"
            self._taps[name] = len(outputs) - 1
            self.channels[name], self.strides[name] = channels, stride

        if config.stem == "imagenet":
            append("reduction", width // 4, None)
            tap()
            append("reduction", width // 2, before_last())
        for stack in range(NUM_STACKS):
            filters = width * 2**stack
            older = before_last()
            if stack > 0:
                append("reduction", filters, older)
                if not config.skip_reduction_input:
                    older = before_last()
            for _ in range(config.num_cells):
                append("normal", filters, older)
                older = before_last()
            tap()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        outputs = [self.stem(images)]
        for cell, (older, newer) in zip(self.cells, self._inputs, strict=True):
            outputs.append(cell(None if older is None else outputs[older], outputs[newer]))
        return {name: outputs[index] for name, index in self._taps.items()}


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization that always uses, and never changes, its running statistics.

    Scale and shift do not learn either. The tensors have ``BatchNorm2d``'s names, so weights move
    between the two.
    """

    def __init__(self, num_features: int, eps: float = 1e-3) -> None:
        super().__init__(num_features, eps=eps)
        self.requires_grad_(requires_grad=False)
        super().train(mode=False)

    def train(self, mode: bool = True) -> FrozenBatchNorm2d:
        """Stay in evaluation mode whatever is asked for."""
        super().train(mode=False)
        return self


def freeze_batch_norm(module: nn.Module) -> None:
    """Replace every ``BatchNorm2d`` inside ``module`` by a frozen one with the same tensors."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and not isinstance(child, FrozenBatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, eps=child.eps)
            frozen.load_state_dict(child.state_dict())
            setattr(module, name, frozen)
        else:
            freeze_batch_norm(child)


def level_names(strides: Sequence[int]) -> tuple[str, ...]:
    """Return the names of maps at these strides: 4 is ``c2``, 32 is ``c5``."""
    return tuple(f"c{stride.bit_length() - 1}" for stride in strides)
