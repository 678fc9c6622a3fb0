"""Regularized evolution: tournament selection in a population that discards its oldest member.

Real, Aggarwal, Huang, Le 2019, "Regularized evolution for image classifier architecture search",
algorithm 1 and its mutations. The combination of a block's two results, which is not searched in
that paper, is mutated like an operation if the space offers more than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial

from search.randomness import stream
from search.space import Choice, SearchSpace
from search.strategies.base import DecisionSampler
from search.strategies.config import EvolutionConfig

if TYPE_CHECKING:
    import torch

Individual = tuple[tuple[int, ...], Sequence[float]]
"""Decisions and their objective values: the reward, and the cost in a multi-objective search."""


class EvolutionSampler(DecisionSampler[EvolutionConfig]):
    """Propose a mutation of a tournament's winner; the population is the latest rewarded trials."""

    def decide(self, past: Sequence[FrozenTrial], number: int) -> Sequence[int]:
        generator = stream("evolution", self.seed, number)
        population: list[Individual] = []
        for trial in reversed(past):
            decisions = self.decisions_of(trial)
            if trial.values is not None and decisions is not None:
                population.append((decisions, trial.values))
                if len(population) == self.config.population_size:
                    break
        else:
            return self.space.sample(generator)
        parent = choose_parent(population, self.config.sample_size, generator)
        return mutate(parent, self.space, self.config.identity_probability, generator)


def choose_parent(
    population: Sequence[Individual], sample_size: int, generator: torch.Generator
) -> tuple[int, ...]:
    """Return the decisions of the winner of one tournament.

    With a cost beside the reward, the winner is drawn from the sample's non-dominated members.

    Args:
        population: individuals to sample from.
        sample_size: number of draws, with replacement, as in the paper's algorithm.
        generator: random generator of the draws.
    """
    import torch

    drawn = torch.randint(len(population), (sample_size,), generator=generator).tolist()
    sample = [population[index] for index in dict.fromkeys(drawn)]
    best = [
        candidate
        for candidate in sample
        if not any(_dominates(other[1], candidate[1]) for other in sample)
    ]
    return best[int(torch.randint(len(best), (), generator=generator))][0]


def _dominates(values: Sequence[float], others: Sequence[float]) -> bool:
    """Return whether ``values`` Pareto-dominate ``others``: higher reward, lower cost."""
    signed, others_signed = ((v[0], *(-cost for cost in v[1:])) for v in (values, others))
    pairs = list(zip(signed, others_signed, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def mutate(
    decisions: Sequence[int],
    space: SearchSpace,
    identity_probability: float,
    generator: torch.Generator,
) -> tuple[int, ...]:
    """Change one decision: a block's input, an operation, or a combination.

    Draws, each uniformly: the kind of decision, among those with more than one option; the
    decision of that kind, in either cell; the new option, which differs from the old one.

    Args:
        decisions: the parent's decisions.
        space: the search space.
        identity_probability: probability that nothing is changed.
        generator: random generator of the draws.
    """
    import torch

    changed = list(decisions)
    if float(torch.rand((), generator=generator)) < identity_probability:
        return tuple(changed)
    by_kind: dict[str, list[tuple[int, Choice]]] = {}
    for index, choice in enumerate(space.choices):
        if choice.num_options > 1:
            by_kind.setdefault(choice.kind, []).append((index, choice))
    if not by_kind:  # the space has a single genotype
        return tuple(changed)
    kinds = sorted(by_kind)
    kind = kinds[int(torch.randint(len(kinds), (), generator=generator))]
    index, choice = by_kind[kind][int(torch.randint(len(by_kind[kind]), (), generator=generator))]
    step = 1 + int(torch.randint(choice.num_options - 1, (), generator=generator))
    changed[index] = (changed[index] + step) % choice.num_options
    return tuple(changed)
