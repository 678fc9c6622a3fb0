"""One step's forward and backward pass; on CUDA recorded once and replayed.

A small network's step is a thousand short kernels, and a GPU waits for Python between any two of
them. A captured graph starts all of them by one call.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn
from torch.nn import functional as F

logger = logging.getLogger(__name__)

WARMUP_STEPS = 3
"""Before a capture, so that lazily made things (cuDNN's plans, workspaces) exist already."""


class TrainingStep:
    """Computes a batch's loss and puts its gradients into the parameters' ``grad``.

    Weights are left alone: stepping is the caller's. With a captured graph the gradients are the
    ones of uncaptured steps; the moving averages of batch normalization have seen the first batch
    a few times more.
    """

    def __init__(self, network: nn.Module, *, use_graph: bool, num_steps: int) -> None:
        """Bind a step to a network in training mode.

        Args:
            network: takes images, (B, 3, H, W), uint8, and returns logits, (B, num_classes).
            use_graph: whether full batches are captured where the device can.
            num_steps: of the whole training; a short one does not earn its capture back.
        """
        self._network = network
        self._wants_graph = use_graph and num_steps > 10 * WARMUP_STEPS
        self._graph: _CapturedStep | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the batch's mean cross-entropy, a scalar without gradient, without waiting."""
        if self._wants_graph and images.is_cuda and self._graph is None:
            self._wants_graph = False  # one attempt
            self._graph = _try_to_capture(self._network, images, labels)
        if self._graph is not None and self._graph.fits(images):
            return self._graph(images, labels)
        # A graph writes its gradients where they lay at its capture: these tensors have to stay.
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
        # Warm-up on a side stream, as torch.cuda.graph asks: what it allocates must not end up
        # in the pool of the stream that is captured.
        side: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        current = torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARMUP_STEPS):
                network.zero_grad(set_to_none=True)
                _forward_and_backward(network, self._images, self._labels)
        current.wait_stream(side)
        # Captured without gradients there, backward makes them: a replay overwrites, and adds not.
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
