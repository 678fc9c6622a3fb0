"""Rewards for tests that worker processes can import."""

import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from search.space import SearchSpace

SPACE = SearchSpace(operations=("identity", "conv_1x1", "max_pool_3x3"), num_blocks=1)


@dataclass
class FakeReward:
    """A reward that is a function of genotype and seed."""

    arguments: dict = field(default_factory=lambda: {"reward": "fake"})
    data: dict = field(default_factory=dict)
    test_reward: None = None

    def __call__(self, genotype, *, seed, report):
        value = random.Random(f"{genotype.digest} {seed}").random()
        report(1, value / 2)
        report(2, value)
        return value


@dataclass
class Slow(FakeReward):
    """Takes a random time, and logs every call to a file."""

    folder: str = ""
    seconds: float = 0.02

    def __call__(self, genotype, *, seed, report):
        with (Path(self.folder) / "calls").open("a") as file:
            file.write(f"{genotype.digest} {seed} {os.getpid()}\n")
        time.sleep(self.seconds * random.Random(genotype.digest).uniform(0.2, 2))
        return super().__call__(genotype, seed=seed, report=report)


@dataclass
class DiesOnce(FakeReward):
    """Kills its own process at the first call with each genotype."""

    folder: str = ""

    def __call__(self, genotype, *, seed, report):
        mark = Path(self.folder) / genotype.digest
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(genotype, seed=seed, report=report)


@dataclass
class DiesAlways(FakeReward):
    def __call__(self, genotype, *, seed, report):
        os.kill(os.getpid(), signal.SIGKILL)


class OddError(Exception):
    def __init__(self, number, text):
        super().__init__(f"{number}{text}")


@dataclass
class Broken(FakeReward):
    def __call__(self, genotype, *, seed, report):
        raise OddError(3, " bugs")


@dataclass
class FirstCore(FakeReward):
    """The reward is the process's first core."""

    def __call__(self, genotype, *, seed, report):
        time.sleep(0.05)
        return float(min(os.sched_getaffinity(0)))


def genotypes(number):
    return list(SPACE.enumerate())[:number]
