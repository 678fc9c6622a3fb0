"""The order in which a training meets its images: a function of seed and step alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence

import torch
from torch.utils.data import Sampler

SEED_STEP = 1_000_003
"""Seeds of things that are numbered are this far apart, so that nearby base seeds do not meet."""


class IterationSampler(Sampler[tuple[int, int]]):
    """An endless shuffle of a data set, shared by processes and handed out in equal epochs.

    Every pass over the images is a new permutation that depends on the seed alone, and where an
    epoch starts depends on the steps that were taken, not on how epochs were counted; so a training
    that goes on in the middle sees the images that it would have seen. Items are an image's number
    and the seed of its augmentation.

    Args:
        num_images: size of the data set.
        items_per_epoch: images per epoch and process.
        items_done: returns how many images this process has used up so far.
        seed: of the permutations.
        rank: this process's number.
        world_size: how many processes share the stream.
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
    """The same shuffle in batches whose images are of one kind, so that little padding is needed.

    Images wait in their kind's batch until it is full (as in detectron2's training), so every one
    is met once a pass and the batches come in the stream's order. A training that goes on walks
    through the stream from its start, which takes about a second per million images.

    Args:
        kinds: the kind of each image.
        batch_size: images per batch.
        batches_per_epoch: batches per epoch and process.
        batches_done: returns how many batches this process has used up so far.
        seed: of the permutations.
        rank: this process's number.
        world_size: how many processes share the stream.
    """

    def __init__(
        self,
        kinds: Sequence[Hashable],
        *,
        batch_size: int,
        batches_per_epoch: int,
        batches_done: Callable[[], int],
        seed: int,
        rank: int,
        world_size: int,
    ) -> None:
        self._kinds, self._batch_size = kinds, batch_size
        self._batches, self._batches_done = batches_per_epoch, batches_done
        self._seed, self._rank, self._world_size = seed, rank, world_size

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        done = self._batches_done()
        return itertools.islice(self._all_batches(), done, done + self._batches)

    def _all_batches(self) -> Iterator[list[tuple[int, int]]]:
        waiting: dict[Hashable, list[tuple[int, int]]] = {}
        for item in shuffled_stream(
            len(self._kinds), seed=self._seed, rank=self._rank, world_size=self._world_size
        ):
            batch = waiting.setdefault(self._kinds[item[0]], [])
            batch.append(item)
            if len(batch) == self._batch_size:
                yield batch
                waiting[self._kinds[item[0]]] = []


def shuffled_stream(
    num_images: int, *, seed: int, rank: int, world_size: int, first: int = 0
) -> Iterator[tuple[int, int]]:
    """Yield a process's images without end, from its item ``first`` on: number, and item's seed."""
    permutation: list[int] = []
    current = -1
    for item in itertools.count(first):
        place = item * world_size + rank
        if place // num_images != current:
            current = place // num_images
            generator = torch.Generator().manual_seed(seed + SEED_STEP * current)
            permutation = torch.randperm(num_images, generator=generator).tolist()
        yield permutation[place % num_images], seed + SEED_STEP * place
