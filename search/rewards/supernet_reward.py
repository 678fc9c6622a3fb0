"""Supernet as a reward: trained once for all processes, then only read."""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from backbone.cells.architecture import Architecture
from backbone.cells.genotype import require_cells
from backbone.io.progress import progress_bar, shows_bars
from backbone.io.provenance import Provenance
from backbone.io.weights import read_metadata, read_weights, save_weights
from search.rewards.base import ReportStep
from search.rewards.config import SupernetConfig
from search.rewards.proxy import ProxyReward
from search.rewards.supernet import Supernet, supernet_accuracy, train_supernet
from search.space import build_space

logger = logging.getLogger(__name__)

KIND = "shared network"
"""Kind of the weights file; the former name, so that existing files are read."""


@dataclass(frozen=True)
class SupernetReward:
    """Validation accuracy, 0 to 1, of a genotype's path through a supernet.

    The supernet is read from ``config.weights`` at the first call. If the file does not exist, one
    process trains the supernet and writes the file while the others wait for it. Each process has a
    copy of images and tensors.

    Raises:
        FileNotFoundError: if the data are missing.
        ValueError: if training and validation images have different classes; when called, if the
            training diverges, the file was made with other settings or on other images, or a
            genotype is not in the space.
    """

    config: SupernetConfig
    is_test: bool = False
    """Score on the ``val`` split instead of the held-out images that trials are scored on."""

    def __post_init__(self) -> None:
        build_space(self.config.space)
        _ = self._proxy

    def __getstate__(self) -> dict[str, Any]:
        """Leave images and tensors out: another process reads them itself."""
        return {"config": self.config, "is_test": self.is_test}

    @cached_property
    def _proxy(self) -> ProxyReward:
        """The stand-alone reward, which loads the images."""
        return ProxyReward(self.config, is_test=self.is_test)

    @property
    def test_reward(self) -> SupernetReward | None:
        """The same supernet, scored on images that no trial is scored on; None without them."""
        if self._proxy.test_reward is None:
            return None
        return SupernetReward(self.config, is_test=True)

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The config without paths, under the names that existing journals and weights record."""
        arguments = self._proxy.arguments["proxy"] | {"type": "SharedConfig"}
        for name in ("weights", "rungs"):
            del arguments[name]
        return {"reward": "shared_accuracy", "shared": arguments}

    @property
    def data(self) -> Mapping[str, str]:
        return self._proxy.data

    @property
    def _provenance(self) -> Provenance:
        """Provenance of the trained supernet; settings of the scoring are not part of it."""
        arguments = dict(self.arguments["shared"])
        del arguments["max_val_images"]
        return Provenance(stage="shared", arguments=arguments, data={"train": self.data["train"]})

    def prepare(self, *, progress: bool = False) -> float:
        """Train the supernet unless its file exists, and return the duration of the training.

        Args:
            progress: show a progress bar of the training.

        Returns:
            Recorded duration of the training, in seconds.

        Raises:
            ValueError: if the training diverges, or the file was made with other settings or on
                other images.
        """
        path = Path(self.config.weights)
        with _exclusive_training(path):
            if not path.exists():
                self._train(path, progress=progress)
            metadata = read_metadata(path, kind=KIND)
        different = _differences(metadata.get("provenance"), self._provenance)
        if different:
            raise ValueError(
                f"{path} holds a supernet made with other settings ({', '.join(different)}); "
                "give another file, or delete it"
            )
        return float(metadata["seconds"])

    def _train(self, path: Path, *, progress: bool) -> None:
        config, (train, _) = self.config, self._proxy.tensors
        if not progress:  # the log explains the delay of the first trial
            logger.warning("training the supernet of %s first", path)
        start = time.perf_counter()
        network = self._untrained()
        try:
            with _epoch_bar(config.epochs, shown=progress) as report:
                train_supernet(network, train, config=config, seed=config.seed, report=report)
        except FloatingPointError as error:  # would be recorded as a failed trial
            raise ValueError(
                f"the supernet cannot be trained with learning_rate {config.learning_rate}: {error}"
            ) from None
        metadata = {
            "kind": KIND,
            "seconds": round(time.perf_counter() - start, 1),
            "provenance": self._provenance.to_dict(),
        }
        save_weights(path, network.tensors, metadata)

    def _untrained(self) -> Supernet:
        space = build_space(self.config.space)
        train, _ = self._proxy.tensors
        return Supernet(space, self.config, train, seed=self.config.seed)

    @cached_property
    def _network(self) -> Supernet:
        self.prepare()
        tensors, _ = read_weights(self.config.weights, kind=KIND)
        network = self._untrained()
        network.load(tensors, source=self.config.weights)
        return network

    def __call__(self, architecture: Architecture, *, seed: int, report: ReportStep) -> float:
        genotype = require_cells(architecture)
        train, val = self._proxy.tensors
        accuracy = supernet_accuracy(
            self._network, genotype, train, val, num_threads=self.config.num_threads
        )
        report(1, accuracy)
        return accuracy


@contextmanager
def _epoch_bar(num_epochs: int, *, shown: bool) -> Iterator[Callable[[int, float], None]]:
    """Show a progress bar, and yield a callback that takes each epoch and its mean loss."""
    if not (shown and shows_bars()):
        # A disabled tqdm bar would create a semaphore, which a terminated worker leaks.
        yield lambda _epoch, _loss: None
        return
    with progress_bar(total=num_epochs, desc="supernet", unit="epoch") as bar:

        def report(_epoch: int, loss: float) -> None:
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            bar.update()

        yield report


@contextmanager
def _exclusive_training(path: Path) -> Iterator[None]:
    """Wait until no other process trains the supernet of this file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # the kernel releases the lock with the file, however the process ends


def _differences(recorded: Any, expected: Provenance) -> list[str]:
    """Return the names of the settings and datasets in which a record differs from the expected."""
    record: dict[str, Any] = recorded if isinstance(recorded, dict) else {}
    if record.get("key") == expected.key:
        return []
    names = []
    for member in ("arguments", "data"):
        current, former = expected.to_dict()[member], record.get(member) or {}
        names += [
            name
            for name in sorted(current.keys() | former.keys())
            if current.get(name) != former.get(name)
        ]
    return names or ["stage"]
