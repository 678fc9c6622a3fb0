"""The interface that every reward satisfies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from backbone.cells.architecture import Architecture

ReportStep = Callable[[int, float], None]
"""Called with a step, from 1, and the reward after it, including the last step; raises ``Pruned``
to stop the trial."""


class Pruned(Exception):  # noqa: N818  # an outcome, not an error
    """A trial is stopped early because of its reward so far."""


class Reward(Protocol):
    """Quality of an architecture: at least 0, higher is better.

    The same architecture and seed should give the same reward. A reward for one kind of
    architecture refuses others with a ``TypeError``. If an architecture cannot be rewarded, the
    call raises ``ArithmeticError`` (it diverged), ``MemoryError`` or ``RuntimeError`` (raised by
    torch when memory runs out): its trial is recorded as failed and the search continues. Any other
    exception ends the search. ``Pruned``, raised by ``report``, must propagate.
    """

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Everything that determines the reward except the datasets, as JSON types."""

    @property
    def data(self) -> Mapping[str, str]:
        """Name of a dataset -> fingerprint."""

    @property
    def test_reward(self) -> Reward | None:
        """The same reward on data that no trial is scored on, to test the winner, or None."""

    def __call__(self, architecture: Architecture, *, seed: int, report: ReportStep) -> float:
        """Return the reward of an architecture."""
