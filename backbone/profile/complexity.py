"""What a backbone costs: parameters, multiply-adds, activations, memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from backbone.cells.genotype import Genotype
from backbone.config import MIN_WIDTH
from backbone.models.backbone import Backbone, describe_spec, unbuilt
from backbone.models.cell_network import penultimate_filters
from backbone.profile.memory import inference_bytes, training_step_bytes

MEASURED_WIDTH = 16
"""Of the network whose multiply-adds say how wide another one has to be."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Size and work of a backbone."""

    parameters: int
    """Numbers that are learned."""
    mult_adds: int
    """Multiply-adds of all convolutions and linear layers for one image, as papers count them."""
    activations: int
    """Numbers that these layers give out for one image (Radosavovic et al. 2020, section 3.1)."""


def measure_cost(backbone: Backbone, *, side_px: int) -> Cost:
    """Count a backbone's parameters, multiply-adds and activations for one square image.

    Nothing is computed: a copy without weights passes the shapes on.
    """
    return describe_cost(backbone.description, side_px=side_px)


def describe_cost(description: Mapping[str, Any], *, side_px: int) -> Cost:
    """Count the same of a backbone that is only described; see ``backbone.models.backbone``."""
    twin = unbuilt(description)
    for module in twin.modules():
        # What leaves shapes alone is left out: without weights it takes most of the time.
        if type(module) in (nn.BatchNorm2d, nn.ReLU):
            module.forward = _unchanged
    images = torch.empty(1, 3, side_px, side_px, device="meta")
    mult_adds, activations = _count(twin, images)
    return Cost(sum(p.numel() for p in twin.parameters()), mult_adds, activations)


def sized_spec(
    cells: str, genotype: Genotype, *, num_cells: int, mult_adds: float, side_px: int
) -> str:
    """Return the backbone spec of some cells whose multiply-adds come nearest to a number.

    Args:
        cells: how a spec names them: published cells, or the path of a ``cells.json``.
        genotype: the same cells.
        num_cells: N.
        mult_adds: of one image.
        side_px: its height and width.

    Raises:
        ValueError: if even the narrowest network has more than twice as many.
    """

    def spec(width: int) -> str:
        return f"{cells}:{num_cells}@{penultimate_filters(genotype, width)}"

    def cost(width: int) -> int:
        return describe_cost(describe_spec(spec(width)), side_px=side_px).mult_adds

    @cache
    def distance(width: int) -> float:
        return abs(math.log(cost(width) / mult_adds))

    # Nearly all multiply-adds grow with the square of the width; so the guess is near.
    guess = MEASURED_WIDTH * math.sqrt(mult_adds / cost(MEASURED_WIDTH))
    # Strided layers halve widths, and odd ones are rounded there; so widths are even.
    best, previous = max(2 * round(guess / 2), MIN_WIDTH), 0
    while best != previous:
        previous = best
        best = min(best, max(best - 2, MIN_WIDTH), best + 2, key=distance)
    if distance(best) > math.log(2):
        raise ValueError(
            f"even the narrowest network of {cells} at N = {num_cells} has "
            f"{cost(best) / 1e6:.1f} million multiply-adds at {side_px} px; "
            f"{mult_adds / 1e6:.1f} were asked for"
        )
    return spec(best)


def _unchanged(images: Tensor) -> Tensor:
    return images


def count_mult_adds(module: nn.Module, images: Tensor) -> int:
    """Return the multiply-adds of a module's convolutions and linear layers for some images."""
    return _count(module, images)[0]


def _count(module: nn.Module, images: Tensor) -> tuple[int, int]:
    mult_adds = activations = 0

    def count(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal mult_adds, activations
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        mult_adds += layer.weight[0].numel() * output.numel()
        activations += output.numel()

    layers = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        with torch.no_grad():
            module(images)
    finally:
        for hook in hooks:
            hook.remove()
    return mult_adds, activations


@dataclass(frozen=True, slots=True)
class Memory:
    """Most bytes that tensors take at once, without what an allocator or a library adds."""

    inference: int
    training: int
    """Of a training step: weights, gradients, activations, but not the optimizer's state."""
    checkpointed: int | None
    """The same with activation checkpointing; None if the backbone cannot."""


def measure_memory(backbone: Backbone, *, side_px: int, batch_size: int) -> Memory:
    """Return what a backbone takes for a batch of square images; nothing is computed."""

    def twin() -> Backbone:
        return unbuilt(backbone.description, out=backbone.out)

    images = torch.empty(batch_size, 3, side_px, side_px, device="meta")
    saving = twin()
    try:
        saving.checkpoint_activations()
        checkpointed = training_step_bytes(saving, images)
    except ValueError:
        checkpointed = None
    return Memory(
        inference_bytes(twin(), images), training_step_bytes(twin(), images), checkpointed
    )
