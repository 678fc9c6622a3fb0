"""Zero-cost scores: scores of the untrained proxy network on one batch.

- ``synflow``: Tanaka et al. 2020, "Pruning neural networks without any data by iteratively
  conserving synaptic flow", as a score of a whole network by Abdelfattah et al. 2021, "Zero-cost
  proxies for lightweight NAS".
- ``naswot``: Mellor et al. 2021, "Neural architecture search without training".
- ``grad_norm`` and ``snip`` (Lee et al. 2019): Abdelfattah et al. 2021.
- ``num_parameters``: the network's size, a strong baseline for the other scores (Ning et al. 2021,
  "Evaluating efficient performance estimators of neural architectures").

Every score is at least 0 and higher is better. ``synflow``, ``naswot`` and ``num_parameters`` do
not depend on labels, ``synflow`` and ``num_parameters`` not on images either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbone.cells.architecture import Architecture
from backbone.cells.genotype import Genotype, require_cells
from backbone.io.provenance import to_builtins
from backbone.io.runtime import choose_device, limited_threads
from backbone.training.images import ImageSet, load_image_set
from search.randomness import stream
from search.rewards.base import ReportStep
from search.rewards.config import ZERO_COST_SCORES, ProxyConfig, ZeroCostConfig
from search.rewards.fit import ProxyNetwork
from search.rewards.image_tensors import ImageTensors, load_tensors, split_indices

POOL_IMAGES = 2000
"""Training images that ``ZeroCostReward`` decodes: enough for the batches of many seeds and for the
channels' means."""


def synflow(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the sum over all weights w of |w dR/dw|, R being the sum of the logits for ones.

    All parameters are replaced by their absolute values, so that no flow cancels and ReLUs pass
    everything. Computed in double precision, since R grows by a factor with every layer. Batch
    normalization, which would divide that factor out again, is removed as in Abdelfattah et al.'s
    code, and so is the proxy network's normalization of images. Biases, labels and pixel values
    have no effect; only the shape of the images has.
    """
    bare = deepcopy(network).double()
    for module in list(bare.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    if isinstance(bare, ProxyNetwork):
        bare.mean.zero_()
        bare.std.fill_(1)
    with torch.no_grad():
        for parameter in bare.parameters():
            parameter.abs_()
    ones = torch.ones(1, *images.shape[1:], dtype=torch.float64, device=images.device)
    weights = list(_weights(bare))
    return _sum(weight * flow for weight, flow in _gradients(bare(ones).sum(), weights))


def naswot(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return log det K, where K_ij counts the ReLUs that are on, or off, for both images i and j.

    Only ReLUs on which the logits depend are counted, as in Mellor et al.'s code; batch
    normalization uses the batch's statistics, as there. K's entries are whole numbers, so its
    determinant is at least 1 or exactly 0.

    Raises:
        FloatingPointError: if K is singular, as for two images with the same ReLU pattern.
    """
    counted = deepcopy(network).train()
    passed: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        passed.append(output)

    for module in counted.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(keep)
    used = _nodes(counted(images))
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64)
    for output in passed:
        if output.grad_fn in used:
            code = (output > 0).flatten(1).float()
            # Float32 counts exactly up to 2^24 units, of one layer.
            kernel += (code @ code.T + (1 - code) @ (1 - code).T).detach().double().cpu()
    values = torch.linalg.eigvalsh(kernel)
    if not values[0] > len(images) * torch.finfo(torch.float64).eps * values[-1]:
        raise FloatingPointError(
            f"NASWOT's kernel of {len(images)} images is singular: some have the same or linearly "
            "dependent ReLU patterns"
        )
    return max(float(values.log().sum()), 0.0)  # below 0 by rounding only


def grad_norm(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the sum over layers of the Euclidean norm of the loss's gradient by its weights.

    Layers are convolutions and linear layers; batch normalization uses the batch's statistics.
    """
    return _sum(gradient.norm() for _, gradient in _loss_gradients(network, images, labels))


def snip(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the sum over all weights w of |w dL/dw|, L being the loss; layers as ``grad_norm``."""
    return _sum((w * gradient).abs() for w, gradient in _loss_gradients(network, images, labels))


def num_parameters(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the number of parameters."""
    return float(sum(parameter.numel() for parameter in network.parameters()))


Score = Callable[[nn.Module, Tensor, Tensor], float]
"""(network, images (B, 3, H, W), labels (B,)) -> score; the network is not changed."""

SCORES: Mapping[str, Score] = MappingProxyType(
    {
        "synflow": synflow,
        "naswot": naswot,
        "grad_norm": grad_norm,
        "snip": snip,
        "num_parameters": num_parameters,
    }
)
"""Name -> score."""

assert tuple(SCORES) == ZERO_COST_SCORES


def zero_cost_score(
    genotype: Genotype,
    train: ImageTensors,
    *,
    config: ProxyConfig,
    score: str,
    batch_size: int,
    seed: int,
) -> float:
    """Score the network that ``train_proxy`` would train from the same seed, before its training.

    Initial weights and the batch depend on ``seed`` only. torch's global generators are left
    unchanged.

    Args:
        genotype: cells of the network.
        train: training images, from which the batch is drawn.
        config: configuration of the network; settings of the training have no effect.
        score: a name in ``SCORES``.
        batch_size: images in the batch.
        seed: seed of the weights and of the batch.

    Returns:
        A number of at least 0; higher is better. SynFlow's range over many powers of ten; compare
        them on a log scale.

    Raises:
        ValueError: if the score is unknown, or there are fewer images than a batch.
        FloatingPointError: if the score is not finite, or NASWOT's kernel is singular.
    """
    if score not in SCORES:
        raise ValueError(f"unknown score {score!r}; choose from {tuple(SCORES)}")
    if not 2 <= batch_size <= len(train):
        raise ValueError(
            f"batch_size must be from 2 to the {len(train)} training images, not {batch_size}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ProxyNetwork(genotype, config, train)
    network = network.to(train.images.device).to(memory_format=torch.channels_last)
    order = torch.randperm(len(train), generator=stream("zero_cost", seed))
    batch = order[:batch_size].to(train.images.device)
    with limited_threads(config.num_threads):
        value = SCORES[score](network, train.images[batch], train.labels[batch])
    if not math.isfinite(value):
        raise FloatingPointError(f"the score {score} is {value}")
    return value


@dataclass(frozen=True)
class ZeroCostReward:
    """A zero-cost score as a reward: ``log1p`` of it, which keeps the order of genotypes.

    Scores are at least 0, so rewards are too; SynFlow's range over many powers of ten. Images are
    decoded at the first call and then kept on the device.

    Raises:
        FileNotFoundError: if the data are missing.
        ValueError: if there are fewer training images than a batch.
    """

    config: ProxyConfig
    """Data and network."""
    zero_cost: ZeroCostConfig
    """Score and batch."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave the images out: another process decodes them itself."""
        return {"config": self.config, "zero_cost": self.zero_cost}

    @property
    def test_reward(self) -> None:
        """None: a score is not measured on validation data."""

    def __post_init__(self) -> None:
        available = len(self._set) - self.config.held_out_images
        if self.zero_cost.batch_size > available:
            raise ValueError(
                f"batch_size is {self.zero_cost.batch_size}, but {self.config.data_root} has only "
                f"{max(available, 0)} training images that are not held out"
            )

    @cached_property
    def _set(self) -> ImageSet:
        return load_image_set(self.config.data_root, "train", download=self.config.download)

    @cached_property
    def _tensors(self) -> ImageTensors:
        config = self.config
        _, indices = split_indices(len(self._set), config.held_out_images)
        return load_tensors(
            self._set,
            indices,
            limit=max(POOL_IMAGES, self.zero_cost.batch_size),
            grayscale=config.grayscale,
            device=choose_device(config.device),
        )

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The score and the network, without settings of the training."""
        names = ("num_cells", "first_filters", "stem_stride", "held_out_images", "grayscale")
        network = {name: getattr(self.config, name) for name in names}
        return {"reward": "zero_cost", "zero_cost": to_builtins(self.zero_cost), "network": network}

    @property
    def data(self) -> Mapping[str, str]:
        return {"train": self._set.fingerprint}

    def score(self, genotype: Genotype, *, seed: int) -> float:
        """Return the score itself; raises as ``zero_cost_score``."""
        return zero_cost_score(
            genotype,
            self._tensors,
            config=self.config,
            score=self.zero_cost.score,
            batch_size=self.zero_cost.batch_size,
            seed=seed,
        )

    def __call__(self, architecture: Architecture, *, seed: int, report: ReportStep) -> float:
        value = math.log1p(self.score(require_cells(architecture), seed=seed))
        report(1, value)
        return value


def _weights(network: nn.Module) -> Iterator[Tensor]:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            yield module.weight


def _gradients(value: Tensor, weights: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each weight on which a value depends, and the gradient of the value for it."""
    gradients = torch.autograd.grad(value, weights, allow_unused=True)
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is not None:
            yield weight.detach(), gradient


def _loss_gradients(
    network: nn.Module, images: Tensor, labels: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    copy = deepcopy(network).train()
    return _gradients(F.cross_entropy(copy(images), labels), list(_weights(copy)))


def _sum(terms: Iterator[Tensor]) -> float:
    return sum(float(term.double().sum()) for term in terms)


def _nodes(value: Tensor) -> set[Any]:
    """Return all nodes of the autograd graph of a value."""
    nodes: set[Any] = set()
    waiting = [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            waiting += (before for before, _ in node.next_functions)
    return nodes
