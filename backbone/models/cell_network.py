"""Networks of stacked cells: N @ F, stems, and the taps ``c2`` to ``c5`` (paper, section 3).

The construction follows the paper's released code (TensorFlow's research/slim/nets/nasnet): a
stem, three stacks of N normal cells at F1, 2*F1 and 4*F1 filters, a reduction cell between stacks.
Cells without a reduction cell are stacked as PNASNet's released code does it.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from backbone.cells.genotype import NUM_STACKS, Genotype
from backbone.config import MIN_WIDTH
from backbone.models.cell import Cell
from backbone.models.normalization import BatchNorm, recomputation
from backbone.models.operations import OPERATIONS, NormFactory, SameConv2d, SamePool2d


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """Structure of a network, apart from its genotype."""

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

    average_counts_padding: bool = False
    """Whether strided average pooling counts the zeros of its padding, as timm's and Keras's
    networks do; the released code leaves them out."""

    convolutions: str = "full"
    """``full`` or ``bottleneck``: how convolutions that are not separable are built; see
    ``backbone.models.operations``."""

    def __post_init__(self) -> None:
        if self.num_cells < 1:
            raise ValueError(f"N must be at least 1 normal cell per stack, not {self.num_cells}")
        if self.stem not in ("imagenet", "cifar"):
            raise ValueError(f"unknown stem {self.stem!r}; choose 'imagenet' or 'cifar'")
        if self.convolutions not in OPERATIONS:
            raise ValueError(
                f"unknown convolutions {self.convolutions!r}; choose from {tuple(OPERATIONS)}"
            )
        if self.stem_filters < 1:
            raise ValueError(f"a stem needs at least 1 filter, not {self.stem_filters}")

    def to_dict(self) -> dict[str, Any]:
        """Return the members as JSON's types."""
        return {name: getattr(self, name) for name in self.__slots__}


def first_filters(genotype: Genotype, filters: int) -> int:
    """Return the width of the first stack's cells, given F of N @ F.

    Raises:
        ValueError: if ``filters`` does not divide; the message names the nearest that do.
    """
    step = genotype.penultimate_filters(1)
    if filters < MIN_WIDTH * step or filters % step:
        below = max(filters // step, MIN_WIDTH) * step
        raise ValueError(
            f"F = {filters} does not divide into these cells: the normal cell concatenates "
            f"{len(genotype.normal.concat)} states, so F must be a multiple of {step}, "
            f"{MIN_WIDTH * step} or more; the nearest are {below} and {below + step}"
        )
    return filters // step


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
        if config.stem == "imagenet":
            # The paper's first convolution is VALID: the border row that does not fit is dropped.
            conv: nn.Module = nn.Conv2d(3, config.stem_filters, 3, stride=2, bias=False)
            outputs = [(config.stem_filters, 2)]  # channels and stride of every output so far
        else:
            conv = SameConv2d(3, 3 * width, 3)
            outputs = [(3 * width, 1)]
        self.stem = nn.Sequential(conv, norm(outputs[0][0]))

        self.cells = nn.ModuleList()
        self.plan = plan_cells(config, width, reduction_cells=genotype.reduction is not None)
        self.channels: dict[str, int] = {}
        self.strides: dict[str, int] = {}
        for step in self.plan:
            channels, stride = outputs[-1]
            older_channels, older_stride = (
                (None, stride) if step.older is None else outputs[step.older]
            )
            halving = genotype.reduction or genotype.normal
            cell = Cell(
                halving if step.reduces else genotype.normal,
                older_channels=older_channels,
                newer_channels=channels,
                channels=step.filters,
                stride=2 if step.reduces else 1,
                older_stride=stride // older_stride,
                convolutions=config.convolutions,
                norm=norm,
            )
            self.cells.append(cell)
            outputs.append((cell.out_channels, stride * cell.stride))
            if step.tapped:
                level = _level_of(outputs[-1][1])
                self.channels[level], self.strides[level] = outputs[-1]
        self.last_reduction = max(i for i, step in enumerate(self.plan) if step.reduces)
        """Index of the last cell that halves the map."""
        self.last_reduction_inputs = outputs[self.last_reduction - 1 : self.last_reduction + 1]
        """Channels and stride of the two outputs that it reads, the older first; no later cell
        reads an earlier output."""

        for module in self.modules():
            if isinstance(module, SamePool2d) and module.stride > 1:
                module.count_padding = config.average_counts_padding

        self.checkpoints_cells = False
        """Whether training keeps only the cells' outputs and recomputes the rest for the
        gradient: the same gradients and running statistics for less memory and more time."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        outputs = self._run([self.stem(images)], last=len(self.cells))
        tapped = (out for out, step in zip(outputs[1:], self.plan, strict=True) if step.tapped)
        return dict(zip(self.channels, tapped, strict=True))

    def forward_to_last_reduction(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the older and the newer input of the last reduction cell."""
        older, newer = self._run([self.stem(images)], last=self.last_reduction)[-2:]
        return older, newer

    def forward_from_last_reduction(self, older: Tensor, newer: Tensor) -> Tensor:
        """Return the last map, given what the last reduction cell reads."""
        unread = [newer] * (self.last_reduction - 1)
        return self._run([*unread, older, newer], last=len(self.cells))[-1]

    def _run(self, outputs: list[Tensor], *, last: int) -> list[Tensor]:
        """Append the cells' outputs to ``outputs``, up to that of the ``last``-th cell."""
        saves_memory = self.checkpoints_cells and torch.is_grad_enabled()
        for index in range(len(outputs) - 1, last):
            cell, step = self.cells[index], self.plan[index]
            older = None if step.older is None else outputs[step.older]
            outputs.append(
                checkpoint(
                    cell, older, outputs[-1], use_reentrant=False,
                    context_fn=lambda cell=cell: (nullcontext(), recomputation(cell)),
                )
                if saves_memory
                else cell(older, outputs[-1])
            )  # fmt: skip
        return outputs

    def schedule_drop_path(self, *, keep: float, progress: float) -> None:
        """Set the drop probability of operations in training (paper, section 4: ScheduledDropPath).

        The probability rises linearly with a cell's depth and with time, as in the released code:
        in the last cell and at the end it is ``1 - keep``.

        Args:
            keep: fraction of operations kept there, above 0, at most 1.
            progress: fraction of the schedule that has passed; above 1 it stays at the end.
        """
        for number, cell in enumerate(self.cells, start=1):
            assert isinstance(cell, Cell)
            cell.drop_path = (1 - keep) * number / len(self.cells) * min(progress, 1.0)


@dataclass(frozen=True, slots=True)
class CellStep:
    """One cell of a network and its older input; its newer input is the output before it."""

    reduces: bool
    """Whether the cell halves the map."""
    filters: int
    """Width of its hidden states."""
    older: int | None
    """Index of the output that is its older input; output 0 is the stem convolution's, and cell
    i computes output i + 1. None for the first cell, which has only one input."""
    tapped: bool
    """Whether its output is one of the network's maps."""


def plan_cells(
    config: NetworkConfig, width: int, *, reduction_cells: bool = True
) -> list[CellStep]:
    """Return a network's cells in order; each one's newer input is the output before it.

    Args:
        config: the network.
        width: filters of the first stack's cells.
        reduction_cells: whether a reduction cell stands between two stacks, as in NASNet;
            otherwise the first of a stack's N cells halves the map, as in PNASNet.
    """
    steps: list[CellStep] = []

    def before_last() -> int | None:
        return len(steps) - 1 if steps else None

    if config.stem == "imagenet":
        steps.append(CellStep(reduces=True, filters=width // 4, older=None, tapped=True))
        steps.append(CellStep(reduces=True, filters=width // 2, older=before_last(), tapped=False))
    for stack in range(NUM_STACKS):
        filters = width * 2**stack
        older = before_last()
        if stack > 0 and reduction_cells:
            steps.append(CellStep(reduces=True, filters=filters, older=older, tapped=False))
            if not config.skip_reduction_input:
                older = before_last()
        for cell in range(config.num_cells):
            halves = stack > 0 and cell == 0 and not reduction_cells
            is_last = cell == config.num_cells - 1
            steps.append(CellStep(reduces=halves, filters=filters, older=older, tapped=is_last))
            older = before_last()
    return steps


def _level_of(stride: int) -> str:
    """Return the name of a map: c2 at stride 4, c5 at stride 32."""
    return f"c{stride.bit_length() - 1}"
