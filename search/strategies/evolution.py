"""Regularized evolution: tournaments in a population from which the oldest goes.

Real, Aggarwal, Huang, Le 2019, "Regularized evolution for image classifier architecture search",
algorithm 1 and its mutations. What joins two results in a block, which is not searched there, is
mutated here like an operation where there is a choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from search.space import Choice, SearchSpace

Individual = tuple[tuple[int, ...], Sequence[float]]
"""Decisions and their values: the reward, and the cost if that is minimized beside it."""


def choose_parent(
    population: Sequence[Individual], sample_size: int, generator: torch.Generator
) -> tuple[int, ...]:
    """Return the decisions of the winner of one tournament.

    Args:
        population: who may be drawn.
        sample_size: draws, with replacement, as in the paper's algorithm.
        generator: of the draws.

    With a cost beside the reward the winner is drawn from the sample's members that no other
    beats in both.
    """
    drawn = torch.randint(len(population), (sample_size,), generator=generator).tolist()
    sample = [population[index] for index in dict.fromkeys(drawn)]
    best = [one for one in sample if not any(_dominates(other[1], one[1]) for other in sample)]
    return best[int(torch.randint(len(best), (), generator=generator))][0]


def _dominates(values: Sequence[float], others: Sequence[float]) -> bool:
    """Tell whether values are nowhere worse and somewhere better: reward up, cost down."""
    signed, others_signed = ((v[0], *(-cost for cost in v[1:])) for v in (values, others))
    pairs = list(zip(signed, others_signed, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def mutate(
    decisions: Sequence[int],
    space: SearchSpace,
    identity_probability: float,
    generator: torch.Generator,
) -> tuple[int, ...]:
    """Change one decision: a hidden state, an operation, or how a block combines.

    Which kind is drawn uniformly of those that have a choice; then which of its decisions, in
    whichever cell; then the new option, which differs from the old one.

    Args:
        decisions: the parent's.
        space: where it lives.
        identity_probability: chance that nothing is changed.
        generator: of the draws.
    """
    changed = list(decisions)
    if float(torch.rand((), generator=generator)) < identity_probability:
        return tuple(changed)
    by_kind: dict[str, list[tuple[int, Choice]]] = {}
    for place, choice in enumerate(space.choices):
        if choice.num_options > 1:
            by_kind.setdefault(choice.kind, []).append((place, choice))
    if not by_kind:  # a space of one genotype
        return tuple(changed)
    kinds = sorted(by_kind)
    kind = kinds[int(torch.randint(len(kinds), (), generator=generator))]
    place, choice = by_kind[kind][int(torch.randint(len(by_kind[kind]), (), generator=generator))]
    step = 1 + int(torch.randint(choice.num_options - 1, (), generator=generator))
    changed[place] = (changed[place] + step) % choice.num_options
    return tuple(changed)
