"""Optimizers and schedules that both trainings use."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from backbone.io.runtime import hidden_package

with hidden_package("wandb"):  # timm imports it where it is installed, unasked
    from timm.optim.muon import Muon
    from timm.optim.rmsprop_tf import RMSpropTF


NORMALIZATIONS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


def build_optimizer(
    parts: Iterable[tuple[nn.Module, float]],
    *,
    name: str,
    weight_decay: float,
    plain_sgd: bool = False,
) -> Optimizer:
    """Make an optimizer that decays weights but not biases and normalization.

    Args:
        parts: modules and their learning rates; a parameter belongs to the first that has it.
        name: ``adamw``; ``sgd`` (momentum 0.9, Nesterov); ``rmsprop``, as TensorFlow's, with decay
            0.9 and epsilon 1.0 (Zoph et al. 2018, appendix A.7) and momentum 0.9, which the paper
            does not tell (AmoebaNet's released code has it); or ``muon``, which makes the update of
            every matrix and filter bank orthogonal (Jordan et al. 2024) and scales it to the size
            of AdamW's, so that AdamW's rates serve (Liu et al. 2025, "Muon is scalable for LLM
            training", section 2.2), and leaves biases and normalization to AdamW. A step costs
            more, and a short training needs fewer.
        weight_decay: of tensors with at least two axes.
        plain_sgd: whether ``sgd`` is detectron2's (``SOLVER`` in its ``config/defaults.py``):
            without Nesterov's momentum, and decaying biases, though not normalization.
    """
    groups: list[dict[str, Any]] = []
    taken: set[int] = set()
    decay_biases = name == "sgd" and plain_sgd
    for module, rate in parts:
        own = [p for p in module.parameters() if p.requires_grad and id(p) not in taken]
        taken |= {id(p) for p in own}
        normalizing = {
            id(p)
            for part in module.modules()
            if isinstance(part, NORMALIZATIONS)
            for p in part.parameters(recurse=False)
        }
        for decays in (True, False):
            members = [
                p
                for p in own
                if (p.ndim >= 2 or (decay_biases and id(p) not in normalizing)) == decays
            ]
            if members:
                decay = weight_decay if decays else 0.0
                groups.append({"params": members, "lr": rate, "weight_decay": decay})
    if name == "adamw":
        return torch.optim.AdamW(groups)
    if name == "muon":
        return Muon(groups, momentum=0.95, nesterov=True, betas=(0.9, 0.99))
    if name == "rmsprop":
        return RMSpropTF(groups, alpha=0.9, eps=1.0, momentum=0.9)
    return torch.optim.SGD(groups, momentum=0.9, nesterov=not plain_sgd)


def warmup_cosine(optimizer: Optimizer, *, warmup: int, total: int) -> LambdaLR:
    """Raise the rate linearly over ``warmup`` steps, then lower it to 0 along half a cosine."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / max(total - warmup, 1), 1)))

    return LambdaLR(optimizer, factor)


def warmup_steps(
    optimizer: Optimizer, *, warmup: int, decay_at: Sequence[int], factor: float
) -> LambdaLR:
    """Raise the rate linearly from a thousandth over ``warmup`` steps; lower it at given steps.

    So detectron2's ``WarmupMultiStepLR`` does, with its defaults.
    """

    def scale(step: int) -> float:
        share = min(step / warmup, 1.0) if warmup else 1.0
        rise = 0.001 * (1 - share) + share
        return rise * factor ** bisect.bisect_right(decay_at, step)

    return LambdaLR(optimizer, scale)


def warmup_exponential(
    optimizer: Optimizer, *, warmup: int, factor: float, every: float
) -> LambdaLR:
    """Raise the rate linearly over ``warmup`` steps; multiply it by ``factor`` ``every`` steps."""

    def scale(step: int) -> float:
        rise = (step + 1) / (warmup + 1) if step < warmup else 1.0
        return rise * factor ** int(step / every)

    return LambdaLR(optimizer, scale)
