"""The interface that every reward satisfies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from backbone.cells.genotype import Genotype

ReportStep = Callable[[int, float], None]
"""Called with a step, from 1, and the reward so far, also at the end; raises ``Pruned`` to stop the
trial there."""


class Pruned(Exception):  # noqa: N818  # an outcome, not an error
    """The reward so far says that the rest of a trial is not worth its cost."""


class Reward(Protocol):
    """Says how good a genotype is: at least 0, higher is better.

    The same genotype and seed should give the same reward. A genotype that cannot be rewarded
    raises ``ArithmeticError`` (it diverged), ``MemoryError`` or ``RuntimeError`` (which torch
    raises when memory runs out): its trial is recorded as failed and the search goes on. Any
    other exception ends the search. ``Pruned``, raised by ``report``, is to be let through.
    """

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Everything that determines the reward except the datasets, as JSON types."""

    @property
    def data(self) -> Mapping[str, str]:
        """Name of a data set -> fingerprint."""

    @property
    def test_reward(self) -> Reward | None:
        """The same on data that no trial is scored on, for a winner's test; None without such."""

    def __call__(self, genotype: Genotype, *, seed: int, report: ReportStep) -> float:
        """Return the reward of a genotype."""
