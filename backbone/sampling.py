"""The order in which a training meets its images: a function of seed and step alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
        first = self._items_done()
        permutation, current = torch.empty(0), -1
        for item in range(first, first + self._items):
            place = item * self._world_size + self._rank
            if place // self._num_images != current:
                current = place // self._num_images
                generator = torch.Generator().manual_seed(self._seed + SEED_STEP * current)
                permutation = torch.randperm(self._num_images, generator=generator)
            yield int(permutation[place % self._num_images]), self._seed + SEED_STEP * place
