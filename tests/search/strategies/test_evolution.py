from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.randomness import stream
from search.space import SearchSpace
from search.strategies.evolution import choose_parent, mutate

SPACE = SearchSpace(operations=("identity", "conv_1x1", "max_pool_3x3"), num_blocks=2)


def test_the_best_of_a_tournament_becomes_the_parent():
    population = [((n,), [reward]) for n, reward in enumerate([0.1, 0.9, 0.5])]
    drawn = Counter(
        choose_parent(population, 2, generator)[0]
        for generator in (stream("tournament", n) for n in range(2000))
    )
    # Two draws with replacement: the best is among them with 5/9, only the worst with 1/9.
    assert drawn[1] / 2000 == pytest.approx(5 / 9, abs=0.04)
    assert drawn[0] / 2000 == pytest.approx(1 / 9, abs=0.03)


def test_with_a_cost_no_dominated_individual_becomes_the_parent():
    population = [((0,), [0.9, 10.0]), ((1,), [0.5, 5.0]), ((2,), [0.4, 6.0])]
    parents = {choose_parent(population, 60, stream("front", n))[0] for n in range(50)}
    assert parents == {0, 1}


@given(st.data())
def test_a_mutation_changes_one_decision_and_stays_in_the_space(data):
    parent = tuple(data.draw(st.integers(0, c.num_options - 1)) for c in SPACE.choices)
    child = mutate(parent, SPACE, 0.0, stream("mutation", data.draw(st.integers(0, 99))))
    changed = [i for i, (a, b) in enumerate(zip(parent, child, strict=True)) if a != b]
    assert len(changed) == 1
    assert 0 <= child[changed[0]] < SPACE.choices[changed[0]].num_options


def test_every_kind_of_mutation_is_equally_likely():
    parent = (0,) * len(SPACE.choices)
    kinds = Counter()
    for number in range(1500):
        child = mutate(parent, SPACE, 0.0, stream("kind", number))
        kinds[next(c.kind for c, d in zip(SPACE.choices, child, strict=True) if d)] += 1
    assert set(kinds) == {"source", "operation", "combination"}
    assert all(count == pytest.approx(500, abs=75) for count in kinds.values())


def test_a_space_of_one_genotype_and_the_identity_leave_a_parent_as_it_is():
    one = SearchSpace(operations=("identity",), num_blocks=1, combinations=("add",))
    fixed = SearchSpace(
        operations=("identity",), num_blocks=1, combinations=("add",), distinct_sources=True,
        cells=("normal",),
    )  # fmt: skip
    parent = (0,) * len(one.choices)
    assert mutate(parent, one, 0.999999, stream("same")) == parent
    assert sum(c.num_options > 1 for c in fixed.choices) == 1  # which input comes first
