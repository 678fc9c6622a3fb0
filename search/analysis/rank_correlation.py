"""How far two rewards order genotypes alike: Kendall's tau, and how sure one can be of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from search.analysis.config import MIN_GENOTYPES
from search.randomness import stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Kendall's tau-b of two rewards, -1 (reversed) to 1 (the same order)."""

    tau: float
    low: float
    """Lower end of its interval."""
    high: float
    num_genotypes: int


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Kendall's tau-b, in which ties count for neither order (Kendall 1945).

    Args:
        first: one value per genotype.
        second: likewise, in the same order.

    Returns:
        -1 to 1, or None if all values of one side are equal, which is no order.
    """
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return float(_taus(torch.ones(1, len(first)).double(), _pairs(first, second)))


def measure_agreement(
    first: Sequence[float],
    second: Sequence[float],
    *,
    confidence: float = 0.95,
    num_resamples: int = 5000,
) -> Agreement:
    """Return tau-b with a two-sided interval, always the same for the same values.

    The interval is the bootstrap's over genotypes, percentile method (Efron & Tibshirani 1993, "An
    introduction to the bootstrap", chapter 13). A genotype that is drawn twice is tied with itself
    on both sides, which tau-b leaves out. A resample without an order counts as tau 0.

    Resampling cannot show a disagreement that the sample has not, so each end is moved, where it
    does not lie there already, to what a sample without one discordant pair could tell: with P
    pairs, the exact binomial bound for no event in P trials, 1 - (alpha/2)^(1/P) (Clopper & Pearson
    1934). Pairs are not independent trials; that the intervals still cover, on bivariate normal
    data of 8 to 32 genotypes, is tested.

    Args:
        first: one reward per genotype.
        second: likewise, in the same order.
        confidence: of the interval, above 0 and below 1.
        num_resamples: bootstrap samples.

    Raises:
        ValueError: if there are too few genotypes, or all values of one side are equal.
    """
    number = len(first)
    if number < MIN_GENOTYPES:
        raise ValueError(
            f"{number} genotypes with both rewards are too few; an interval needs {MIN_GENOTYPES}"
        )
    tau = kendall_tau(first, second)
    if tau is None:
        raise ValueError(f"all {number} rewards of one side are equal, which is no order")
    drawn = torch.randint(
        number, (num_resamples, number), generator=stream("bootstrap", number, num_resamples)
    )
    counts = torch.zeros(num_resamples, number).double()
    counts.scatter_add_(1, drawn, torch.ones_like(drawn).double())
    tail = (1 - confidence) / 2
    ends = torch.tensor([tail, 1 - tail]).double()
    low, high = torch.quantile(_taus(counts, _pairs(first, second)), ends).tolist()
    num_pairs = number * (number - 1) // 2
    surest = 1 - 2 * (1 - tail ** (1 / num_pairs))
    return Agreement(tau=tau, low=min(low, surest), high=max(high, -surest), num_genotypes=number)


def _pairs(first: Sequence[float], second: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Return three (M, M) matrices over pairs of genotypes.

    They are 1 where both sides order the pair alike and -1 where they do not; 1 where the first
    side orders it at all; and 1 where the second one does.
    """
    signs = []
    for values in (first, second):
        column = torch.tensor(values).double()
        signs.append(torch.sign(column[:, None] - column[None]))
    return signs[0] * signs[1], signs[0].abs(), signs[1].abs()


def _taus(counts: Tensor, pairs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Return tau-b, (R,), of samples that hold each genotype so many times, (R, M); 0 if none."""
    alike, first, second = (((counts @ matrix) * counts).sum(dim=1) for matrix in pairs)
    scale = (first * second).sqrt()
    return torch.where(scale > 0, alike / scale.clamp(min=1), 0.0)
