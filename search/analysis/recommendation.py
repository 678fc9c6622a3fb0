"""Choice of a proxy reward, given its rank correlation with the reference reward and its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from search.analysis.config import FidelityConfig
from search.analysis.rank_correlation import RankCorrelation, measure_rank_correlation
from search.analysis.reward_log import LoggedReward


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Comparison of a proxy reward with the reference reward."""

    name: str
    correlation: RankCorrelation | None
    problem: str
    """Reason for a missing correlation; empty if there is one."""
    seconds: float | None
    """Median seconds per genotype; not the mean, since the first genotype includes the decoding of
    the images. None if no genotype has this reward."""
    num_failed: int
    """Genotypes without this reward, left out on both sides."""


def compare(
    name: str,
    reference: Sequence[LoggedReward],
    proxy: Sequence[LoggedReward],
    config: FidelityConfig,
) -> Comparison:
    """Compare a proxy reward with the reference, on the genotypes that have both."""
    correlation, problem = None, ""
    try:
        correlation = measure_rank_correlation(
            *paired_values(reference, proxy),
            confidence=config.confidence,
            num_resamples=config.num_resamples,
        )
    except ValueError as error:
        reasons = [reward.failure for reward in (*proxy, *reference) if reward.failure]
        problem = f"{error}" + (f". The last failed because of {reasons[-1]}" if reasons else "")
    return Comparison(
        name=name,
        correlation=correlation,
        problem=problem,
        seconds=median_seconds(proxy),
        num_failed=sum(reward.value is None for reward in proxy),
    )


def recommend(
    proxies: Sequence[Comparison],
    *,
    self_agreement: Comparison,
    reference_seconds: float | None,
    wanted_tau: float,
) -> tuple[str | None, str]:
    """Return the fastest proxy that reaches the wanted tau, or None, and a sentence for the user.

    A proxy reaches it if the lower end of its interval does. A proxy that is no faster than the
    reference is not recommended.

    Args:
        proxies: the candidates.
        self_agreement: the reference compared with itself from another seed.
        reference_seconds: median seconds of the reference per genotype; None if it always failed.
        wanted_tau: Kendall's tau, -1 to 1.
    """
    measured = [
        (p.seconds, p.name, p.correlation)
        for p in proxies
        if p.correlation is not None and p.seconds is not None
    ]
    if not measured or reference_seconds is None:
        reasons = (c.problem for c in (self_agreement, *proxies) if c.problem)
        return None, f"No recommendation: {next(reasons, 'nothing was measured')}."
    sufficient = [entry for entry in measured if entry[2].low >= wanted_tau]
    if sufficient:
        seconds, name, correlation = min(sufficient, key=lambda entry: entry[0])
        if seconds >= reference_seconds:
            return None, (
                f"The fastest proxy that reaches tau {wanted_tau:g} is no faster than the "
                f"reference: {name}."
            )
        return name, (
            f"Search with {name}: it reaches tau {wanted_tau:g} ({correlation}) at "
            f"{seconds / reference_seconds:.1%} of the reference's cost."
        )
    _, nearest, correlation = max(measured, key=lambda entry: entry[2].tau)
    sentence = (
        f"No proxy reaches tau {wanted_tau:g} with confidence; the nearest is {nearest} "
        f"({correlation})."
    )
    if self_agreement.correlation is not None:
        sentence += f" The reference agrees with itself by {self_agreement.correlation}."
    return None, f"{sentence} More genotypes narrow the intervals."


def paired_values(
    reference: Sequence[LoggedReward], proxy: Sequence[LoggedReward]
) -> tuple[list[float], list[float]]:
    """Return both rewards of the genotypes that have both."""
    pairs = [
        (a.value, b.value)
        for a, b in zip(reference, proxy, strict=True)
        if a.value is not None and b.value is not None
    ]
    return [a for a, _ in pairs], [b for _, b in pairs]


def median_seconds(rewards: Sequence[LoggedReward]) -> float | None:
    """Return the median seconds per genotype; None if no genotype has this reward."""
    seconds = [reward.seconds for reward in rewards if reward.value is not None]
    return median(seconds) if seconds else None
