"""The first stages of a backbone kept as they are while the rest is trained.

Stages are counted as detectron2's ``MODEL.BACKBONE.FREEZE_AT`` does: the first is the stem, before
stride 4; the second goes on to ``c2``, the third to ``c3``, and so on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backbone.models.backbone import Backbone
from backbone.models.cell_network import CellNetwork
from backbone.models.normalization import FrozenBatchNorm2d, frozen_copy

PROBE_SIDE_PX = 64
STEM_STRIDE = 4
"""Where the stem ends."""


def freeze_stages(backbone: Backbone, num_stages: int) -> None:
    """Let the first stages of a backbone learn nothing; their batch normalization is frozen too.

    Its tensors keep their names. Frozen batch normalization uses its running statistics, in
    training too.

    Args:
        backbone: is changed.
        num_stages: 0 for none, 1 for the stem, 2 for all that ``c2`` comes from, ...

    Raises:
        ValueError: if the backbone does not have so many.
    """
    if num_stages == 0:
        return
    parameters = _first_parameters(backbone, num_stages)
    for parameter in backbone.body.parameters():
        if id(parameter) in parameters:
            parameter.requires_grad = False
    for parent in list(backbone.body.modules()):
        for name, child in parent.named_children():
            is_frozen = isinstance(child, FrozenBatchNorm2d)
            is_norm = isinstance(child, nn.BatchNorm2d | nn.SyncBatchNorm)
            if is_norm and not is_frozen and id(child.weight) in parameters:
                setattr(parent, name, frozen_copy(child))


def _first_parameters(backbone: Backbone, num_stages: int) -> set[int]:
    """Return the ids of the parameters of the first stages."""
    body = backbone.body
    if isinstance(body, CellNetwork):
        ends = [number + 1 for number, step in enumerate(body.plan) if step.tapped]
        _check(num_stages, last=len(ends) + 1)
        parts = [body.stem, *body.cells[: ends[num_stages - 2] if num_stages > 1 else 0]]
        return {id(p) for part in parts for p in part.parameters()}

    sides: dict[int, int] = {}

    def note_side(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            sides.update((id(p), output.shape[-1]) for p in module.parameters(recurse=False))

    was_training = body.training
    hooks = [module.register_forward_hook(note_side) for module in body.modules()]
    with torch.enable_grad():
        maps = body.eval()(torch.zeros(1, 3, PROBE_SIDE_PX, PROBE_SIDE_PX))
    for hook in hooks:
        hook.remove()
    body.train(was_training)
    last = max(int(level.removeprefix("c")) for level in maps)
    _check(num_stages, last=last)
    trained = [p for p in body.parameters() if p.requires_grad]
    # A stage is what its map depends on, and a map depends on what has a gradient.
    level = min(level for level in maps if int(level.removeprefix("c")) >= num_stages)
    gradients = torch.autograd.grad(maps[level].sum(), trained, allow_unused=True)
    in_stem = {p for p, side in sides.items() if side > PROBE_SIDE_PX // STEM_STRIDE}
    return {
        id(parameter)
        for parameter, gradient in zip(trained, gradients, strict=True)
        if gradient is not None and (num_stages > 1 or id(parameter) in in_stem)
    }


def _check(num_stages: int, *, last: int) -> None:
    if num_stages > last:
        raise ValueError(
            f"frozen_stages must be at most {last}, the stem and the stages that end in maps, "
            f"not {num_stages}"
        )
