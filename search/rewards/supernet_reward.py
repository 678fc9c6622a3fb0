"""A shared network as a reward: trained once for all processes, then only read."""

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

from tqdm import tqdm

from backbone.cells.genotype import Genotype
from backbone.io.provenance import Provenance
from backbone.io.weights import read_metadata, read_weights, save_weights
from search.rewards.base import ReportStep
from search.rewards.config import SupernetConfig
from search.rewards.proxy import ProxyReward
from search.rewards.supernet import Supernet, supernet_accuracy, train_supernet
from search.space import build_space

logger = logging.getLogger(__name__)

KIND = "shared network"


@dataclass(frozen=True)
class SupernetReward:
    """Validation accuracy, 0 to 1, of a genotype's path through a shared network.

    The network is read from ``config.weights`` at the first call. If the file is not there, the
    network is trained and written, by one process while the others wait for it. Of images and
    tensors each process has its own.

    Raises:
        FileNotFoundError: if the data are missing.
        ValueError: if training and validation images have different classes; when called, if the
            training diverges, the file was made with other settings or on other images, or a
            genotype is not of the space.
    """

    config: SupernetConfig
    is_test: bool = False
    """Whether to score on the ``val`` split, although trials are scored on held-out images."""

    def __post_init__(self) -> None:
        build_space(self.config.space)
        _ = self._proxy

    def __getstate__(self) -> dict[str, Any]:
        """Leave images and tensors behind: another process reads its own."""
        return {"config": self.config, "is_test": self.is_test}

    @cached_property
    def _proxy(self) -> ProxyReward:
        """The stand-alone reward on the same images, which looks after them."""
        return ProxyReward(self.config, is_test=self.is_test)

    @property
    def test_reward(self) -> SupernetReward | None:
        """The same network, scored on images that no trial is scored on."""
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
        """See that the trained network is there, and return the seconds that its training took.

        Args:
            progress: whether a training has a progress bar.

        Raises:
            ValueError: as the class says.
        """
        path = Path(self.config.weights)
        with _sole_trainer(path):
            if not path.exists():
                self._train(path, progress=progress)
            metadata = read_metadata(path, kind=KIND)
        different = _differences(metadata.get("provenance"), self._provenance)
        if different:
            raise ValueError(
                f"{path} holds a shared network made with other settings ({', '.join(different)}); "
                "give another file, or delete it"
            )
        return float(metadata["seconds"])

    def _train(self, path: Path, *, progress: bool) -> None:
        config, (train, _) = self.config, self._proxy.tensors
        if not progress:  # nor a bar tells what a first trial waits for
            logger.warning("training the shared network of %s first", path)
        start = time.perf_counter()
        network = self._untrained()
        try:
            with _epoch_bar(config.epochs, shown=progress) as report:
                train_supernet(network, train, config=config, seed=config.seed, report=report)
        except FloatingPointError as error:  # which would be taken for one genotype's failure
            raise ValueError(
                f"the shared network cannot be trained with learning_rate {config.learning_rate}: "
                f"{error}"
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

    def __call__(self, genotype: Genotype, *, seed: int, report: ReportStep) -> float:
        train, val = self._proxy.tensors
        accuracy = supernet_accuracy(
            self._network, genotype, train, val, num_threads=self.config.num_threads
        )
        report(1, accuracy)
        return accuracy


@contextmanager
def _epoch_bar(num_epochs: int, *, shown: bool) -> Iterator[Callable[[int, float], None]]:
    """Show a training's progress; what is yielded takes each epoch and its mean loss."""
    if not shown:
        # Not a bar that hides: it would make a semaphore, which a stopped worker leaves behind.
        yield lambda _epoch, _loss: None
        return
    with tqdm(total=num_epochs, desc="shared network", unit="epoch") as bar:

        def report(_epoch: int, loss: float) -> None:
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            bar.update()

        yield report


@contextmanager
def _sole_trainer(path: Path) -> Iterator[None]:
    """Wait until no other process trains the network of this file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # the kernel releases the lock with the file, however the process ends


def _differences(recorded: Any, wanted: Provenance) -> list[str]:
    """Return the names of the settings and data in which a record is not what is wanted."""
    record: dict[str, Any] = recorded if isinstance(recorded, dict) else {}
    if record.get("key") == wanted.key:
        return []
    names = []
    mine = wanted.to_dict()
    for member in ("arguments", "data"):
        theirs = record.get(member) or {}
        names += [
            name
            for name in sorted(mine[member].keys() | theirs.keys())
            if mine[member].get(name) != theirs.get(name)
        ]
    return names or ["stage"]
