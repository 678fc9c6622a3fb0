"""Optimizers and learning-rate schedules for pretraining and detector training."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from backbone.config import OPTIMIZERS, require_choice
from backbone.io.runtime import hidden_package

with hidden_package("wandb"):  # timm imports it if it is installed
    import timm.optim.muon as timm_muon
    from timm.optim.muon import Muon
    from timm.optim.rmsprop_tf import RMSpropTF


NORMALIZATIONS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


class PortableMuon(Muon):
    """timm's Muon, which orthogonalizes in float32 on CPUs without bfloat16 arithmetic.

    timm computes the Newton-Schulz iteration in bfloat16 and has no setting for it. A CPU without
    AVX-512 emulates bfloat16, and a step of a small detector takes 11 times as long as in float32.
    """

    def step(self, closure: Any = None) -> Any:
        with _newton_schulz_in(torch.float32 if self._is_emulated() else torch.bfloat16):
            return super().step(closure)  # type: ignore[no-untyped-call]

    def _is_emulated(self) -> bool:
        devices = {p.device.type for group in self.param_groups for p in group["params"]}
        return devices == {"cpu"} and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


@contextmanager
def _newton_schulz_in(dtype: torch.dtype) -> Iterator[None]:
    """Make timm's Muon orthogonalize in a dtype inside the block."""
    original = timm_muon.zeropower_via_newtonschulz
    timm_muon.zeropower_via_newtonschulz = partial(original, dtype=dtype)
    try:
        yield
    finally:
        timm_muon.zeropower_via_newtonschulz = original


def build_optimizer(
    parts: Iterable[tuple[nn.Module, float]],
    *,
    name: str,
    weight_decay: float,
    detectron2_sgd: bool = False,
) -> Optimizer:
    """Build an optimizer that decays weights but not biases and normalization.

    - ``adamw``: AdamW.
    - ``sgd``: momentum 0.9, Nesterov.
    - ``rmsprop``: as in TensorFlow, with decay 0.9 and epsilon 1.0 (Zoph et al. 2018, appendix A.7)
      and momentum 0.9, which the paper does not state (it is that of AmoebaNet's released code).
    - ``muon``: orthogonalizes the update of every matrix and filter bank (Jordan et al. 2024) and
      scales it to the size of AdamW's, so that AdamW's learning rates apply (Liu et al. 2025, "Muon
      is scalable for LLM training", section 2.2); biases and normalization use AdamW. A step costs
      more, and a short training needs fewer. See ``PortableMuon``.

    Args:
        parts: modules and their learning rates; a parameter belongs to the first that has it.
        name: one of ``OPTIMIZERS``.
        weight_decay: of tensors with at least two axes.
        detectron2_sgd: make ``sgd`` detectron2's (``SOLVER`` in its ``config/defaults.py``): no
            Nesterov momentum, and weight decay of biases, though not of normalization.

    Raises:
        ValueError: if the optimizer is unknown.
    """
    require_choice("optimizer", name, OPTIMIZERS)
    decay_biases = name == "sgd" and detectron2_sgd
    groups = list(_parameter_groups(parts, weight_decay=weight_decay, decay_biases=decay_biases))
    if name == "adamw":
        return torch.optim.AdamW(groups)
    if name == "muon":
        return PortableMuon(groups, momentum=0.95, nesterov=True, betas=(0.9, 0.99))
    if name == "rmsprop":
        return RMSpropTF(groups, alpha=0.9, eps=1.0, momentum=0.9)
    return torch.optim.SGD(groups, momentum=0.9, nesterov=not detectron2_sgd)


def _parameter_groups(
    parts: Iterable[tuple[nn.Module, float]], *, weight_decay: float, decay_biases: bool
) -> Iterator[dict[str, Any]]:
    taken: set[int] = set()
    for module, learning_rate in parts:
        own = [p for p in module.parameters() if p.requires_grad and id(p) not in taken]
        taken |= {id(p) for p in own}
        normalizing = {
            id(p)
            for layer in module.modules()
            if isinstance(layer, NORMALIZATIONS)
            for p in layer.parameters(recurse=False)
        }
        for decays in (True, False):
            members = [
                p
                for p in own
                if (p.ndim >= 2 or (decay_biases and id(p) not in normalizing)) == decays
            ]
            if members:
                decay = weight_decay if decays else 0.0
                yield {"params": members, "lr": learning_rate, "weight_decay": decay}


def cosine_schedule(optimizer: Optimizer, *, warmup_steps: int, total_steps: int) -> LambdaLR:
    """Return a schedule with linear warm-up, then half a cosine to 0 at ``total_steps``."""

    def scale(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1)))

    return LambdaLR(optimizer, scale)


def multistep_schedule(
    optimizer: Optimizer, *, warmup_steps: int, milestones: Sequence[int], gamma: float
) -> LambdaLR:
    """Return detectron2's ``WarmupMultiStepLR`` with its defaults.

    Warm-up is linear from a thousandth of the learning rate, which is multiplied by ``gamma`` at
    every milestone (ascending steps).
    """

    def scale(step: int) -> float:
        progress = min(step / warmup_steps, 1.0) if warmup_steps else 1.0
        warmup = 0.001 * (1 - progress) + progress
        return warmup * gamma ** bisect.bisect_right(milestones, step)

    return LambdaLR(optimizer, scale)


def exponential_schedule(
    optimizer: Optimizer, *, warmup_steps: int, gamma: float, step_size: float
) -> LambdaLR:
    """Return a schedule with linear warm-up that multiplies by ``gamma`` every ``step_size`` steps.

    Args:
        optimizer: its learning rates are the peak ones.
        warmup_steps: number of warm-up steps.
        gamma: factor.
        step_size: steps between two multiplications, counted from step 0; may be fractional.
    """

    def scale(step: int) -> float:
        warmup = (step + 1) / (warmup_steps + 1) if step < warmup_steps else 1.0
        return warmup * gamma ** int(step / step_size)

    return LambdaLR(optimizer, scale)
