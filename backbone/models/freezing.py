"""Freeze the first stages of a network while the rest is trained.

Stages are counted as by detectron2's ``MODEL.BACKBONE.FREEZE_AT``: the first is the stem, before
stride 4; the second ends in ``c2``, the third in ``c3``, and so on.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from backbone.models.normalization import FrozenBatchNorm2d, frozen_copy

STEM_STRIDE = 4
"""Stride at which the stem ends."""
PROBE_SIDE_PX = 64


def freeze_parameters(body: nn.Module, parameters: Collection[int]) -> None:
    """Freeze parameters, and the statistics of the batch normalization that they belong to.

    Args:
        body: changed in place; its tensors keep their names.
        parameters: ids of the parameters.
    """
    for parameter in body.parameters():
        if id(parameter) in parameters:
            parameter.requires_grad = False
    for parent in list(body.modules()):
        for name, child in parent.named_children():
            is_frozen = isinstance(child, FrozenBatchNorm2d)
            is_norm = isinstance(child, nn.BatchNorm2d | nn.SyncBatchNorm)
            if is_norm and not is_frozen and id(child.weight) in parameters:
                setattr(parent, name, frozen_copy(child))


def probe_stage_parameters(body: nn.Module, num_stages: int) -> set[int]:
    """Return the ids of the parameters on which the first stages' maps depend.

    One small image is passed forward and backward: a map depends on what then has a gradient.

    Raises:
        ValueError: if the network has fewer stages.
    """
    sides: dict[int, int] = {}

    def record_side(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            # The second-last axis is one of height and width in either layout.
            sides.update((id(p), output.shape[-2]) for p in module.parameters(recurse=False))

    was_training = body.training
    hooks = [module.register_forward_hook(record_side) for module in body.modules()]
    with torch.enable_grad():
        maps = body.eval()(torch.zeros(1, 3, PROBE_SIDE_PX, PROBE_SIDE_PX))
    for hook in hooks:
        hook.remove()
    body.train(was_training)
    check_num_stages(num_stages, last=max(int(level.removeprefix("c")) for level in maps))
    trained = [p for p in body.parameters() if p.requires_grad]
    level = min(level for level in maps if int(level.removeprefix("c")) >= num_stages)
    gradients = torch.autograd.grad(maps[level].sum(), trained, allow_unused=True)
    in_stem = {p for p, side in sides.items() if side > PROBE_SIDE_PX // STEM_STRIDE}
    return {
        id(parameter)
        for parameter, gradient in zip(trained, gradients, strict=True)
        if gradient is not None and (num_stages > 1 or id(parameter) in in_stem)
    }


def check_num_stages(num_stages: int, *, last: int) -> None:
    """Raise a ValueError if there are fewer than ``num_stages`` stages."""
    if num_stages > last:
        raise ValueError(
            f"frozen_stages must be at most {last}, the stem and the stages that end in maps, "
            f"not {num_stages}"
        )
