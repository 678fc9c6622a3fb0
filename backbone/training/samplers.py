"""Samplers whose order of images is a function of seed and step alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence

import torch
from torch.utils.data import Sampler

SEED_STEP = 1_000_003
"""Distance between the seeds of consecutive items, so that those of nearby base seeds differ."""


class IterationSampler(Sampler[tuple[int, int]]):
    """Infinite shuffle of a dataset, sharded over processes and split into epochs of equal length.

    Every pass over the images is a new permutation that depends on the seed alone. The start of an
    epoch depends on the number of steps taken, not on the number of epochs, so a training resumed
    within an epoch sees the same images as an uninterrupted one. Items are (image index,
    augmentation seed).

    Args:
        num_images: size of the dataset.
        items_per_epoch: images per epoch and process.
        items_done: returns the number of images that this process has consumed so far.
        seed: of the permutations.
        rank: rank of this process.
        world_size: number of processes that share the stream.
    """

    def __init__(
        self,
        num_images: int,
        *,
        items_per_epoch: int,
        items_done: Callable[[], int],
        seed: int,
        rank: int,
        world_size: int,
    ) -> None:
        self._num_images, self._items = num_images, items_per_epoch
        self._items_done, self._seed = items_done, seed
        self._rank, self._world_size = rank, world_size

    def __len__(self) -> int:
        return self._items

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return itertools.islice(
            shuffled_stream(
                self._num_images,
                seed=self._seed,
                rank=self._rank,
                world_size=self._world_size,
                first=self._items_done(),
            ),
            self._items,
        )


class GroupedBatchSampler(Sampler[list[tuple[int, int]]]):
    """The shuffle of ``IterationSampler`` in batches of one group each, to reduce padding.

    Images are buffered per group until a batch is full (as in detectron2's
    ``AspectRatioGroupedDataset``), so each image appears once per pass, in the stream's order. A
    resumed training iterates over the stream from its start, which takes about a second per million
    images.

    Args:
        groups: the group of each image, such as its orientation.
        batch_size: images per batch.
        batches_per_epoch: batches per epoch and process.
        batches_done: returns the number of batches that this process has consumed so far.
        seed: of the permutations.
        rank: rank of this process.
        world_size: number of processes that share the stream.
    """

    def __init__(
        self,
        groups: Sequence[Hashable],
        *,
        batch_size: int,
        batches_per_epoch: int,
        batches_done: Callable[[], int],
        seed: int,
        rank: int,
        world_size: int,
    ) -> None:
        self._groups, self._batch_size = groups, batch_size
        self._batches, self._batches_done = batches_per_epoch, batches_done
        self._seed, self._rank, self._world_size = seed, rank, world_size

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        done = self._batches_done()
        return itertools.islice(self._all_batches(), done, done + self._batches)

    def _all_batches(self) -> Iterator[list[tuple[int, int]]]:
        buffers: dict[Hashable, list[tuple[int, int]]] = {}
        for item in shuffled_stream(
            len(self._groups), seed=self._seed, rank=self._rank, world_size=self._world_size
        ):
            batch = buffers.setdefault(self._groups[item[0]], [])
            batch.append(item)
            if len(batch) == self._batch_size:
                yield batch
                buffers[self._groups[item[0]]] = []


def shuffled_stream(
    num_images: int, *, seed: int, rank: int, world_size: int, first: int = 0
) -> Iterator[tuple[int, int]]:
    """Yield (image index, seed) for one process without end, starting at its item ``first``."""
    permutation: list[int] = []
    current = -1
    for item in itertools.count(first):
        index = item * world_size + rank
        if index // num_images != current:
            current = index // num_images
            generator = torch.Generator().manual_seed(seed + SEED_STEP * current)
            permutation = torch.randperm(num_images, generator=generator).tolist()
        yield permutation[index % num_images], seed + SEED_STEP * index
