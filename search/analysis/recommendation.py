"""Which of several cheap rewards to search with, given what they and the dear one measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from search.analysis.config import FidelityConfig
from search.analysis.rank_correlation import Agreement, measure_agreement
from search.analysis.reward_log import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One reward held against the dear one."""

    name: str
    agreement: Agreement | None
    problem: str
    """Why there is no agreement; empty if there is."""
    seconds: float | None
    """Per genotype: the median, as the first genotype waits for the images to be decoded. None if
    there is no reward."""
    num_failed: int
    """Genotypes without this reward, left out on both sides."""


def compare(
    name: str,
    dear: Sequence[Measurement],
    other: Sequence[Measurement],
    config: FidelityConfig,
) -> Comparison:
    """Hold one reward against the dear one, on the genotypes that have both."""
    agreement, problem = None, ""
    try:
        agreement = measure_agreement(
            *both_values(dear, other),
            confidence=config.confidence,
            num_resamples=config.num_resamples,
        )
    except ValueError as error:
        reasons = [m.failure for m in (*other, *dear) if m.failure]
        problem = f"{error}" + (f". The last failed because of {reasons[-1]}" if reasons else "")
    return Comparison(
        name=name,
        agreement=agreement,
        problem=problem,
        seconds=median_seconds(other),
        num_failed=sum(m.value is None for m in other),
    )


def recommend(
    cheap: Sequence[Comparison],
    *,
    ceiling: Comparison,
    dear_seconds: float | None,
    wanted_tau: float,
) -> tuple[str | None, str]:
    """Return the cheapest reward that keeps the wanted tau, or None, and a sentence on it.

    A reward keeps it if the lower end of its interval does. One that is no cheaper than the dear
    reward is not recommended.
    """
    known = [(c, c.agreement, c.seconds) for c in cheap if c.agreement and c.seconds is not None]
    if not known or dear_seconds is None:
        reason = next((c.problem for c in (ceiling, *cheap) if c.problem), "nothing was measured")
        return None, f"No recommendation: {reason}."
    kept = [(seconds, c.name, a) for c, a, seconds in known if a.low >= wanted_tau]
    if kept:
        seconds, name, found = min(kept, key=lambda entry: entry[0])
        if seconds >= dear_seconds:
            return (
                None,
                f"What keeps tau {wanted_tau:g} costs no less than the dear reward: {name}.",
            )
        return name, (
            f"Search with {name}: it keeps tau {wanted_tau:g} ({describe(found)}) at "
            f"{seconds / dear_seconds:.1%} of the dear reward's cost."
        )
    nearest, found, _ = max(known, key=lambda entry: entry[1].tau)
    sentence = (
        f"No cheap reward surely keeps tau {wanted_tau:g}; the nearest is {nearest.name} "
        f"({describe(found)})."
    )
    if ceiling.agreement is not None:
        sentence += f" The dear reward agrees with itself by {describe(ceiling.agreement)}."
    return None, f"{sentence} More genotypes narrow the intervals."


def describe(found: Agreement) -> str:
    """Return tau and its interval in words."""
    return f"tau {found.tau:.2f}, {found.low:.2f} to {found.high:.2f}"


def both_values(
    dear: Sequence[Measurement], other: Sequence[Measurement]
) -> tuple[list[float], list[float]]:
    """Return both rewards of the genotypes that have both."""
    pairs = [
        (a.value, b.value)
        for a, b in zip(dear, other, strict=True)
        if a.value is not None and b.value is not None
    ]
    return [a for a, _ in pairs], [b for _, b in pairs]


def median_seconds(measured: Sequence[Measurement]) -> float | None:
    """Return what a reward costs per genotype; None if there is none."""
    spent = [m.seconds for m in measured if m.value is not None]
    return median(spent) if spent else None
