"""Supernet: one network that contains every genotype of a space and is trained once.

A genotype is one path through it. Each batch trains the path of one random genotype (Guo et al.
2020, "Single path one-shot neural architecture search with uniform sampling", section 3.3); then
genotypes are ranked by their accuracy with the shared weights, without any further training.

A path is the genotype's own ``ProxyNetwork``, whose parameters are assembled from the shared
tensors. They are shared as in ENAS (Pham et al. 2018, "Efficient neural architecture search via
parameter sharing"):

- Parameters of an operation are shared by genotypes that have it in the same cell, block and side,
  reading the same state. Weights per source cost memory, but states differ in channels, stride and
  meaning.
- Parameters that read a concatenation, those of the 1x1 convolutions of the next cells and of the
  head, are shared state by state: a genotype uses the input channels of the states that it
  concatenates.
- All other parameters are shared by all genotypes.

Genotypes are made canonical first, so that two that compute the same function share all weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from backbone.cells.genotype import NUM_INPUTS, Block, CellSpec, Edge, Genotype
from backbone.io.runtime import limited_threads
from backbone.io.weights import check_tensors
from search.randomness import stream
from search.rewards.config import ProxyConfig
from search.rewards.fit import (
    ProxyNetwork,
    build_sgd,
    fit,
    measure_accuracy,
    recalibrate_batch_norm,
)
from search.rewards.image_tensors import ImageTensors
from search.space import SearchSpace


class Supernet:
    """Shared tensors of a search space, from which the network of each genotype is assembled.

    Initial tensors depend on ``seed`` only. torch's global generators are left unchanged.

    Args:
        space: search space whose genotypes are the paths.
        config: configuration of the networks.
        train: training images, for their classes and statistics; tensors are on their device.
        seed: seed of the initial tensors.
    """

    def __init__(
        self, space: SearchSpace, config: ProxyConfig, train: ImageTensors, *, seed: int
    ) -> None:
        self.space, self._config, self._train = space, config, train
        self.tensors: dict[str, nn.Parameter] = {}
        """Name, as in ``shared_names``, -> tensor."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for genotype in covering_genotypes(space):
                network = ProxyNetwork(genotype, config, train)
                names = shared_names(network)
                for name, parameter in network.named_parameters():
                    for shared, part in _parts(names[name], parameter.detach()):
                        if shared not in self.tensors:
                            self.tensors[shared] = nn.Parameter(self._to_device(part))

    def _to_device(self, tensor: Tensor) -> Tensor:
        layout = torch.channels_last if tensor.dim() == 4 else torch.contiguous_format
        return tensor.to(self._train.images.device).clone(memory_format=layout)

    def logits(self, genotype: Genotype, images: Tensor) -> Tensor:
        """Return a path's logits, (B, num_classes), normalized by the batch's statistics.

        Args:
            genotype: path of the space.
            images: (B, 3, H, W), uint8.

        Raises:
            ValueError: if the genotype is not in the space.
        """
        network = self._build(genotype).train()
        return functional_call(network, self._gather(network), (images,))

    def names(self, genotype: Genotype) -> set[str]:
        """Return the names of the shared tensors on a genotype's path; raises as ``logits``."""
        return {name for names in shared_names(self._build(genotype)).values() for name in names}

    def extract(self, genotype: Genotype) -> ProxyNetwork:
        """Return a genotype's network with copies of its weights; raises as ``logits``.

        Its batch normalization has to be recalibrated, since statistics of other paths do not apply
        (Guo et al. 2020, section 3.4).
        """
        network = self._build(genotype)
        gathered = self._gather(network)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(gathered[name])
        return network

    def load(self, tensors: Mapping[str, Tensor], *, source: str) -> None:
        """Replace all tensors.

        Raises:
            ValueError: if a tensor is missing, unknown or of another shape; the message names it.
        """
        check_tensors(tensors, self.tensors, source=source)
        with torch.no_grad():
            for name, tensor in tensors.items():
                self.tensors[name].copy_(tensor)

    def _build(self, genotype: Genotype) -> ProxyNetwork:
        canonical = genotype.canonical()
        self.space.to_decisions(canonical)  # raises if the genotype is not in the space
        with torch.random.fork_rng(devices=[]):
            network = ProxyNetwork(canonical, self._config, self._train)
        return network.to(self._train.images.device).to(memory_format=torch.channels_last)

    def _gather(self, network: ProxyNetwork) -> dict[str, Tensor]:
        return {
            name: torch.cat([self.tensors[shared] for shared in names], dim=1)
            if len(names) > 1
            else self.tensors[names[0]]
            for name, names in shared_names(network).items()
        }


def shared_names(network: ProxyNetwork) -> dict[str, tuple[str, ...]]:
    """Return parameter name -> names of the shared tensors that it is assembled from.

    Several tensors are concatenated along the input channels.
    """
    trunk = network.trunk
    specs: list[Any] = [cell.spec for cell in trunk.cells]

    def by_state(name: str, output: int | None) -> tuple[str, ...]:
        """Name a parameter that reads output 0, the stem's, or output i + 1, that of cell i."""
        if not output:
            return (name,)
        return tuple(f"{name}.state{state}" for state in specs[output - 1].concat)

    names: dict[str, tuple[str, ...]] = {}
    for name, parameter in network.named_parameters():
        match name.split("."):
            case ["trunk", "cells", cell, "left" | "right" as side, block, *rest]:
                edge = getattr(specs[int(cell)].blocks[int(block)], side)
                prefix = f"trunk.cells.{cell}.{side}.{block}.state{edge.source}.{edge.operation}"
                names[name] = (".".join([prefix, *rest]),)
            case ["trunk", "cells", cell, "align_newer", *_] if parameter.dim() > 1:
                names[name] = by_state(name, int(cell))
            case ["trunk", "cells", cell, "align_older", *_] if parameter.dim() > 1:
                names[name] = by_state(name, trunk.plan[int(cell)].older)
            case ["head", "weight"]:
                names[name] = by_state(name, len(specs))
            case _:
                names[name] = (name,)
    return names


def covering_genotypes(space: SearchSpace) -> Iterator[Genotype]:
    """Yield some genotypes of a space whose networks together contain all of its weights.

    The first ones concatenate all blocks, so that the layers that read a cell have all their input
    channels. A network does not adapt an older input that happens to be as wide as the cell that
    reads it; the last genotypes, each of which concatenates one block, have another width.
    """
    combine = "concat" if "concat" in space.combinations else space.combinations[0]
    states = tuple(range(NUM_INPUTS, NUM_INPUTS + space.num_blocks))
    concats = [states] + [(state,) for state in states if space.concat == "unused"]
    for concat in concats:
        whole = concat == states
        for operation in space.operations if whole else space.operations[:1]:
            for source in range(NUM_INPUTS + space.num_blocks - 1 if whole else 1):
                # A block in front of the source reads the newest state that exists.
                edges = [Edge(operation, min(source, state - 1)) for state in states]
                blocks = tuple(Block(edge, edge, combine) for edge in edges)
                cell = CellSpec(blocks, concat)
                yield Genotype(cell, cell if "reduction" in space.cells else None)


def _parts(names: tuple[str, ...], parameter: Tensor) -> Iterator[tuple[str, Tensor]]:
    parts = parameter.chunk(len(names), dim=1) if len(names) > 1 else (parameter,)
    yield from zip(names, parts, strict=True)


def train_supernet(
    network: Supernet,
    train: ImageTensors,
    *,
    config: ProxyConfig,
    seed: int,
    report: Callable[[int, float], None] = lambda _epoch, _loss: None,
) -> None:
    """Train a supernet, each batch on the path of a genotype drawn uniformly from the space.

    Weights off the path are neither updated nor decayed in that step. Genotypes, the order of
    images and their augmentation depend on ``seed`` only.

    Args:
        network: trained in place.
        train: training images.
        config: configuration of the training.
        seed: seed of the training.
        report: called after each epoch with its number, from 1, and its mean loss.

    Raises:
        FloatingPointError: if the loss is not finite.
    """
    parameters = list(network.tensors.values())
    optimizer = build_sgd(parameters, config)
    for parameter in parameters:
        # Fused SGD needs momentum for all of its tensors or for none; from 0 the steps are equal.
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    paths = stream("shared paths", seed)

    def backpropagate(images: Tensor, labels: Tensor) -> Tensor:
        genotype = network.space.to_genotype(network.space.sample(paths))
        loss = F.cross_entropy(network.logits(genotype, images).float(), labels)
        optimizer.zero_grad(set_to_none=True)  # the optimizer skips tensors without a gradient
        torch.autograd.backward(loss)
        return loss.detach()

    random = stream("shared", seed)
    with limited_threads(config.num_threads):
        for epoch, loss in fit(optimizer, backpropagate, train, config=config, random=random):
            report(epoch, loss)


def supernet_accuracy(
    network: Supernet,
    genotype: Genotype,
    train: ImageTensors,
    val: ImageTensors,
    *,
    num_threads: int = 0,
) -> float:
    """Return the accuracy of a genotype's path on ``val``, 0 to 1; the supernet is not changed.

    Batch normalization is recalibrated on training images first, for this path alone (Guo et al.
    2020, section 3.4).

    Raises:
        ValueError: if the genotype is not in the space.
    """
    with limited_threads(num_threads):
        path = network.extract(genotype)
        recalibrate_batch_norm(path, train)
        return measure_accuracy(path, val)
