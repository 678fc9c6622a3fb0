"""Peak memory of tensors, counted from the tensors themselves.

Memory that an allocator or a library adds (fragments, workspaces) is not included.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count the bytes of all live tensors; works on torch's meta device, too.

    Args:
        tensors: existing tensors to count.
    """

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        """Live bytes."""
        self.peak = 0
        """Maximum of live bytes so far."""
        self._counted: set[int] = set()
        for tensor in tensors:
            self._count(tensor)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._counted:
            return
        self._counted.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._counted.discard(key)
        self.now -= size


def inference_bytes(module: nn.Module, images: Tensor) -> int:
    """Return the peak of a forward pass without gradients: weights and activations.

    Args:
        module: put into evaluation mode. On torch's meta device nothing is computed.
        images: (B, 3, H, W).
    """
    module.eval()
    with LiveBytes([*module.parameters(), *module.buffers(), images]) as live, torch.no_grad():
        module(images)
    return live.peak


def training_step_bytes(module: nn.Module, images: Tensor) -> int:
    """Return the peak of a training step without the optimizer: weights, gradients, activations.

    Args:
        module: takes the images and returns a tensor or a dict of them; left in training mode. On
            torch's meta device nothing is computed.
        images: (B, 3, H, W).
    """
    module.train()
    with LiveBytes([*module.parameters(), *module.buffers(), images]) as live:
        outputs = tree_leaves(module(images))
        torch.autograd.backward(outputs, [torch.empty_like(o) for o in outputs])
    for parameter in module.parameters():
        parameter.grad = None
    return live.peak
