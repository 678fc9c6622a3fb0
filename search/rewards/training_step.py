"""Forward and backward pass of a training step; on CUDA captured once as a graph and replayed.

A small network's step consists of a thousand short kernels, and launching each from Python leaves
the GPU idle in between. A captured graph launches all of them by one call.
``torch.cuda.make_graphed_callables`` would capture the forward and the backward pass as two graphs;
here both are one.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn
from torch.nn import functional as F

logger = logging.getLogger(__name__)

WARMUP_STEPS = 3
"""Steps before a capture, in which cuDNN's plans and workspaces are created."""


class TrainingStep:
    """Compute a batch's loss, and write its gradients into the parameters' ``grad``.

    The optimizer step is left to the caller. A captured graph gives the gradients of uncaptured
    steps; batch normalization's moving averages contain the first batch a few more times.
    """

    def __init__(self, network: nn.Module, *, use_graph: bool, num_steps: int) -> None:
        """Bind a step to a network in training mode.

        Args:
            network: takes images, (B, 3, H, W), uint8, and returns logits, (B, num_classes).
            use_graph: capture full batches on CUDA devices.
            num_steps: steps of the whole training; in a short one a capture does not pay off.
        """
        self._network = network
        self._wants_graph = use_graph and num_steps > 10 * WARMUP_STEPS
        self._graph: _CapturedStep | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the batch's mean cross-entropy, a detached scalar, without synchronizing."""
        if self._wants_graph and images.is_cuda and self._graph is None:
            self._wants_graph = False  # one attempt
            self._graph = _try_to_capture(self._network, images, labels)
        if self._graph is not None and self._graph.fits(images):
            return self._graph(images, labels)
        # A graph writes gradients to the addresses of its capture, so these tensors must be kept.
        self._network.zero_grad(set_to_none=self._graph is None)
        return _forward_and_backward(self._network, images, labels)


def _forward_and_backward(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    loss = F.cross_entropy(network(images).float(), labels)
    torch.autograd.backward(loss)
    return loss.detach()


def _try_to_capture(network: nn.Module, images: Tensor, labels: Tensor) -> _CapturedStep | None:
    try:
        return _CapturedStep(network, images, labels)
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:  # an operation that cannot be captured
        logger.warning("training without a captured graph: %s", str(error).splitlines()[0])
        return None


class _CapturedStep:
    def __init__(self, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        self._images, self._labels = images.clone(), labels.clone()
        # Warm-up on a side stream, as torch.cuda.graph requires: its allocations must not end up in
        # the pool of the captured stream.
        side: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        current = torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARMUP_STEPS):
                network.zero_grad(set_to_none=True)
                _forward_and_backward(network, self._images, self._labels)
        current.wait_stream(side)
        # Captured without gradients, so that a replay overwrites them instead of accumulating.
        network.zero_grad(set_to_none=True)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._loss = _forward_and_backward(network, self._images, self._labels)

    def fits(self, images: Tensor) -> bool:
        return images.shape == self._images.shape

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._graph.replay()
        return self._loss
