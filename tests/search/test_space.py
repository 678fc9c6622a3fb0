import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from backbone.cells.genotype import NASNET_OPERATIONS, Block, CellSpec, Edge, Genotype
from backbone.cells.published import DARTS_V2, NASNET_A, PNASNET_5
from search.randomness import stream
from search.space import SearchSpace, SpaceConfig, build_space

ROOT = Path(__file__).resolve().parents[2]
PAPER = SearchSpace()
decisions_of_the_paper = st.tuples(*(st.integers(0, c.num_options - 1) for c in PAPER.choices))


def test_the_papers_space_has_fifty_decisions_in_the_papers_order():
    assert len(PAPER.choices) == 50
    assert [c.name for c in PAPER.choices[10:15]] == [
        "normal_2_left_source",
        "normal_2_right_source",
        "normal_2_left_operation",
        "normal_2_right_operation",
        "normal_2_combination",
    ]
    assert [c.num_options for c in PAPER.choices[10:15]] == [4, 4, 13, 13, 2]
    assert PAPER.choices[25].name == "reduction_0_left_source"


@given(decisions_of_the_paper)
def test_decisions_round_trip_through_a_genotype(decisions):
    assert PAPER.to_decisions(PAPER.to_genotype(decisions)) == decisions


@given(decisions_of_the_paper)
def test_every_sequence_of_decisions_is_a_genotype_that_round_trips_through_json(decisions):
    genotype = PAPER.to_genotype(decisions)
    assert Genotype.from_dict(genotype.to_dict()) == genotype


@given(decisions_of_the_paper)
def test_canonical_genotypes_stay_in_the_space(decisions):
    canonical = PAPER.to_genotype(decisions).canonical()
    assert PAPER.to_genotype(PAPER.to_decisions(canonical)) == canonical


def test_five_decisions_make_a_block():
    space = SearchSpace(operations=("identity", "conv_1x1"), num_blocks=1)
    genotype = space.to_genotype([0, 1, 1, 0, 1, 1, 1, 0, 0, 0])
    assert genotype.normal.blocks == (Block(Edge("conv_1x1", 0), Edge("identity", 1), "concat"),)
    assert genotype.reduction.blocks == (Block(Edge("identity", 1), Edge("identity", 1), "add"),)


def test_samples_are_legal_and_reach_every_option():
    space = SearchSpace(num_blocks=1)
    generator = stream("test")
    drawn = [space.sample(generator) for _ in range(300)]
    for index, choice in enumerate(space.choices):
        assert {d[index] for d in drawn} == set(range(choice.num_options))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_blocks": 0}, "at least 1 block"),
        ({"operations": []}, "at least one operation"),
        ({"operations": ["conv_9x9"]}, "unknown operation 'conv_9x9'"),
        ({"operations": ["identity", "identity"]}, "twice"),
        ({"combinations": ["multiply"]}, "unknown combination 'multiply'"),
        ({"cells": ["reduction"]}, r"not \['reduction'\]"),
        ({"concat": "some"}, "unknown concat 'some'"),
    ],
)
def test_an_impossible_space_is_rejected(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_space(SpaceConfig(**arguments))


def test_wrong_decisions_are_named():
    with pytest.raises(ValueError, match="50 decisions, not 3"):
        PAPER.to_genotype([0, 0, 0])
    with pytest.raises(ValueError, match=re.escape("normal_0_left_source must be 0 to 1, not 2")):
        PAPER.to_genotype([2] + [0] * 49)


def test_genotypes_outside_the_space_are_refused():
    with pytest.raises(ValueError, match="concatenates"):  # NASNet-A breaks the unused-only rule
        PAPER.to_decisions(NASNET_A)
    cell = CellSpec.from_blocks([Block(Edge("conv_1x1", 0), Edge("conv_1x1", 1))])
    with pytest.raises(ValueError, match="1 blocks"):
        PAPER.to_decisions(Genotype(cell, cell))
    space = SearchSpace(operations=("identity",), num_blocks=1)
    with pytest.raises(ValueError, match="'conv_1x1' is not in this space"):
        space.to_decisions(Genotype(cell, cell))


def test_the_default_config_is_the_papers_space():
    assert build_space(SpaceConfig()) == PAPER
    assert PAPER.operations == NASNET_OPERATIONS


PRESETS = {
    "pnasnet": (8, 25, PNASNET_5),
    "amoebanet": (8, 50, None),
    "darts": (7, 40, DARTS_V2),
}


@pytest.mark.parametrize("name", PRESETS)
def test_other_papers_spaces_hold_their_published_cells(name):
    num_operations, num_decisions, published = PRESETS[name]
    settings = yaml.safe_load((ROOT / "search" / "conf" / "space" / f"{name}.yaml").read_text())
    del settings["defaults"]
    space = build_space(SpaceConfig(**settings))
    assert (len(space.operations), len(space.choices)) == (num_operations, num_decisions)
    if published is not None:
        assert space.to_genotype(space.to_decisions(published)) == published


@given(st.data())
def test_a_space_of_one_cell_with_distinct_inputs_round_trips(data):
    space = SearchSpace(
        operations=("identity", "conv_1x1"), num_blocks=3, cells=("normal",), concat="all",
        distinct_sources=True,
    )  # fmt: skip
    decisions = tuple(data.draw(st.integers(0, c.num_options - 1)) for c in space.choices)
    genotype = space.to_genotype(decisions)
    assert space.to_decisions(genotype) == decisions
    assert genotype.reduction is None
    assert genotype.normal.concat == (2, 3, 4)
    assert all(block.left.source != block.right.source for block in genotype.normal.blocks)


def test_a_block_that_reads_one_state_twice_is_outside_a_space_of_distinct_inputs():
    cell = CellSpec.from_blocks([Block(Edge("conv_1x1", 1), Edge("conv_1x1", 1))])
    space = SearchSpace(num_blocks=1, cells=("normal",), distinct_sources=True)
    with pytest.raises(ValueError, match="reads state 1 twice"):
        space.to_decisions(Genotype(cell, None))


def test_every_function_of_a_small_space_is_listed_once():
    space = SearchSpace(
        operations=("identity", "conv_1x1"), num_blocks=1, cells=("normal",), combinations=("add",)
    )
    assert space.num_sequences == 16
    listed = list(space.enumerate())
    # 4 edges (2 operations on 2 inputs), of which an unordered pair: 4 * 5 / 2.
    assert len(listed) == len({genotype.digest for genotype in listed}) == 10


def test_a_space_that_is_too_large_to_list_is_refused():
    with pytest.raises(ValueError, match="too many to list"):
        next(PAPER.enumerate())
