"""Cost of a backbone: parameters, multiply-adds, activations, memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from backbone.cells.architecture import Architecture
from backbone.config import MIN_WIDTH
from backbone.models.backbone import Backbone, BackboneSpec
from backbone.profile.memory import inference_bytes, training_step_bytes

MEASURED_WIDTH = 16
"""Width of the network from whose multiply-adds the width for a given cost is estimated."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Parameters, multiply-adds and activations of a backbone."""

    parameters: int
    """Number of learned parameters."""
    mult_adds: int
    """Multiply-adds of all convolutions and linear layers for one image, as papers count them."""
    activations: int
    """Number of outputs of these layers for one image (Radosavovic et al. 2020, section 3.1)."""


def measure_cost(backbone: Backbone | BackboneSpec, *, side_px: int) -> Cost:
    """Count a backbone's parameters, multiply-adds and activations for one square image.

    Nothing is computed: a copy on the meta device passes the shapes on. All its maps count,
    whichever ones the backbone returns.
    """
    spec = backbone if isinstance(backbone, BackboneSpec) else backbone.spec
    twin = spec.build_meta()
    for module in twin.modules():
        # Skip shape-preserving layers; they dominate the run time on the meta device.
        if type(module) in (nn.BatchNorm2d, nn.ReLU):
            module.forward = _unchanged
    images = torch.empty(1, 3, side_px, side_px, device="meta")
    mult_adds, activations = _count(twin, images)
    return Cost(sum(p.numel() for p in twin.parameters()), mult_adds, activations)


def sized_spec(
    name: str, architecture: Architecture, *, depth: int, mult_adds: float, side_px: int
) -> str:
    """Return the backbone spec of an architecture whose mult-adds are nearest to a number.

    Args:
        name: the architecture in a spec: published cells, or the path of a ``cells.json``.
        architecture: the same architecture.
        depth: N of cells.
        mult_adds: of one image.
        side_px: its height and width.

    Raises:
        ValueError: if even the narrowest network has more than twice as many.
    """

    def text(width: int) -> str:
        return f"{name}:{architecture.spec_size(depth=depth, width=width)}"

    def count(width: int) -> int:
        return measure_cost(BackboneSpec.parse(text(width)), side_px=side_px).mult_adds

    # Strided layers halve widths, and odd ones are rounded there; so widths are even.
    width = nearest_width(count, mult_adds=mult_adds, step=2, subject=f"{name} at depth {depth}")
    return text(width)


def nearest_width(
    count: Callable[[int], float], *, mult_adds: float, step: int = 1, subject: str
) -> int:
    """Return the width at which a network's mult-adds are nearest to a number, by their ratio.

    Args:
        count: width, the filters of the first stage, to mult-adds; must rise with the width.
        mult_adds: the number wanted.
        step: widths are multiples of it, and at least ``MIN_WIDTH``.
        subject: the network's name in the message.

    Raises:
        ValueError: if even the narrowest network has more than twice as many.
    """
    count = cache(count)

    def distance(width: int) -> float:
        return abs(math.log(count(width) / mult_adds))

    # Nearly all mult-adds grow with the square of the width; so the guess is near.
    guess = MEASURED_WIDTH * math.sqrt(mult_adds / count(MEASURED_WIDTH))
    best, previous = max(step * round(guess / step), MIN_WIDTH), 0
    while best != previous:
        previous = best
        best = min(best, max(best - step, MIN_WIDTH), best + step, key=distance)
    if distance(best) > math.log(2):
        raise ValueError(
            f"even the narrowest network of {subject} has {count(best) / 1e6:.2f} million "
            f"mult-adds; {mult_adds / 1e6:.2f} were requested"
        )
    return best


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
    """Peak bytes of tensors, without what an allocator or a library adds."""

    inference: int
    training: int
    """Peak of a training step: weights, gradients, activations, but not the optimizer's state."""
    checkpointed: int | None
    """The same with activation checkpointing; None if the backbone does not support it."""


def measure_memory(backbone: Backbone, *, side_px: int, batch_size: int) -> Memory:
    """Return the memory of a backbone for a batch of square images, from shapes alone."""

    def twin() -> Backbone:
        return backbone.spec.build_meta(out=backbone.out)

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
