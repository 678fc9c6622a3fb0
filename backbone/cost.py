"""What a backbone costs: parameters and multiply-adds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backbone.specs import Backbone


@dataclass(frozen=True, slots=True)
class Cost:
    """Size and work of a backbone."""

    parameters: int
    """Numbers that are learned."""
    mult_adds: int
    """Multiply-adds of all convolutions and linear layers for one image, as papers count them."""


def measure_cost(backbone: Backbone, *, side_px: int) -> Cost:
    """Count a backbone's parameters and its multiply-adds for one square image.

    Args:
        backbone: its mode and weights are left as they are.
        side_px: height and width of the image.
    """
    total = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            height, width = module.kernel_size
            per_value = module.in_channels // module.groups * height * width
        else:
            assert isinstance(module, nn.Linear)
            per_value = module.in_features
        total += per_value * output.numel()

    hooks = [
        module.register_forward_hook(count)
        for module in backbone.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    training = backbone.training
    device = next(backbone.parameters()).device
    try:
        with torch.inference_mode():
            backbone.eval()(torch.zeros(1, 3, side_px, side_px, device=device))
    finally:
        backbone.train(training)
        for hook in hooks:
            hook.remove()
    return Cost(sum(p.numel() for p in backbone.parameters()), total)
