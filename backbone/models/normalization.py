"""Normalization layers, and their conversion in a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from backbone.io.runtime import hidden_package

with hidden_package("wandb"):  # timm imports it where it is installed, unasked
    from timm.layers.norm_act import (
        BatchNormAct2d,
        SyncBatchNormAct,
        convert_sync_batchnorm,
    )

NORMS = ("batch", "frozen", "sync", "group")
MAX_GROUPS = 32
"""Groups of a group normalization (Wu & He 2018, section 4: 32), if the channels divide by it."""

BatchNorm: Callable[[int], nn.BatchNorm2d] = partial(nn.BatchNorm2d, eps=1e-3)
"""Batch normalization with the released code's epsilon."""


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization that always uses, and never changes, its running statistics.

    Scale and shift are not trained either. The tensors have ``BatchNorm2d``'s names, so the two
    exchange weights.

    Args:
        num_features: channels.
        eps: added to the variance.
        then: applied to the result; timm's layers include their activation.
    """

    def __init__(
        self, num_features: int, eps: float = 1e-3, *, then: nn.Module | None = None
    ) -> None:
        super().__init__(num_features, eps=eps)
        self.requires_grad_(requires_grad=False)
        self.then = then
        super().train(mode=False)

    def forward(self, images: Tensor) -> Tensor:
        normalized = super().forward(images)
        return normalized if self.then is None else self.then(normalized)

    def train(self, mode: bool = True) -> FrozenBatchNorm2d:
        """Stay in evaluation mode."""
        super().train(mode=False)
        return self


def convert_norm(module: nn.Module, norm: str) -> nn.Module:
    """Convert the batch normalization of a network to another kind, in place.

    Args:
        module: any network; its other normalization layers stay.
        norm: ``batch`` changes nothing; ``frozen`` keeps the statistics, scale and shift;
            ``sync`` takes the statistics over all processes of a training (on GPUs); ``group``
            normalizes each image separately, in groups of channels (Wu & He 2018).

    Raises:
        ValueError: if the kind is unknown.
    """
    match norm:
        case "batch":
            return module
        case "frozen":
            return _replace(module, frozen_copy)
        case "sync":
            converted: nn.Module = convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
            return converted
        case "group":
            return _replace(module, _group)
        case _:
            raise ValueError(f"unknown norm {norm!r}; choose from {NORMS}")


def _replace(module: nn.Module, make: Callable[[nn.BatchNorm2d], nn.Module]) -> nn.Module:
    if isinstance(module, nn.BatchNorm2d):
        return module if isinstance(module, FrozenBatchNorm2d) else make(module)
    for name, child in module.named_children():
        setattr(module, name, _replace(child, make))
    return module


def frozen_copy(norm: Any) -> FrozenBatchNorm2d:
    """Return a layer that always normalizes as a batch normalization does in evaluation."""
    frozen = FrozenBatchNorm2d(norm.num_features, norm.eps, then=_activation(norm))
    frozen.load_state_dict(norm.state_dict())
    return frozen


def _group(norm: nn.BatchNorm2d) -> nn.Module:
    channels = norm.num_features
    group = nn.GroupNorm(math.gcd(channels, MAX_GROUPS), channels, eps=norm.eps)
    activation = _activation(norm)
    return group if activation is None else nn.Sequential(group, activation)


def _activation(norm: Any) -> nn.Module | None:
    has_one = isinstance(norm, BatchNormAct2d | SyncBatchNormAct)
    return nn.Sequential(norm.drop, norm.act) if has_one else None


@contextmanager
def recomputation(module: nn.Module) -> Iterator[None]:
    """Run a part of a network again without updating its running statistics again."""
    norms = [
        m
        for m in module.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training and m.track_running_stats
    ]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            # A copy is incremented instead; SyncBatchNorm requires one.
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, num_batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, num_batches
