import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.cells.genotype import COMBINATIONS, OPERATION_NAMES, Block, CellSpec, Edge, Genotype
from backbone.cells.published import NASNET_A, PUBLISHED


@st.composite
def cells(draw, *, max_blocks=5):
    blocks = []
    for states in range(2, 2 + draw(st.integers(1, max_blocks))):
        edges = [
            Edge(draw(st.sampled_from(OPERATION_NAMES)), draw(st.integers(0, states - 1)))
            for _ in range(2)
        ]
        blocks.append(Block(*edges, draw(st.sampled_from(COMBINATIONS))))
    return CellSpec.from_blocks(blocks)


genotypes = st.builds(Genotype, cells(), cells())


@given(genotypes)
def test_json_gives_back_the_same_genotype(genotype):
    assert Genotype.from_dict(json.loads(json.dumps(genotype.to_dict()))) == genotype


@given(genotypes)
def test_canonical_form_is_its_own_canonical_form(genotype):
    once = genotype.canonical()
    assert once.canonical() == once


@given(cells())
def test_swapping_the_inputs_of_additions_does_not_change_the_digest(cell):
    swapped = tuple(
        Block(b.right, b.left, b.combine) if b.combine == "add" else b for b in cell.blocks
    )
    other = CellSpec(swapped, cell.concat)
    assert Genotype(cell, cell).digest == Genotype(other, other).digest


def test_the_order_in_which_independent_blocks_are_written_does_not_change_the_digest():
    first = Block(Edge("conv_3x3", 0), Edge("identity", 1))
    second = Block(Edge("max_pool_3x3", 0), Edge("identity", 1))
    one = CellSpec((first, second), (2, 3))
    other = CellSpec((second, first), (2, 3))
    assert Genotype(one, one).digest == Genotype(other, other).digest


def test_swapping_the_inputs_of_a_concatenation_changes_the_digest():
    one = CellSpec.from_blocks([Block(Edge("conv_3x3", 0), Edge("identity", 1), "concat")])
    other = CellSpec.from_blocks([Block(Edge("identity", 1), Edge("conv_3x3", 0), "concat")])
    assert Genotype(one, one).digest != Genotype(other, other).digest


def test_different_operations_have_different_digests():
    one = CellSpec.from_blocks([Block(Edge("conv_3x3", 0), Edge("identity", 1))])
    other = CellSpec.from_blocks([Block(Edge("conv_1x1", 0), Edge("identity", 1))])
    assert Genotype(one, one).digest != Genotype(other, other).digest


def test_only_blocks_that_nobody_reads_are_concatenated():
    cell = CellSpec.from_blocks(
        [
            Block(Edge("identity", 0), Edge("identity", 1)),
            Block(Edge("identity", 2), Edge("identity", 1)),
            Block(Edge("identity", 0), Edge("identity", 0)),
        ]
    )
    assert cell.concat == (3, 4)


def test_nasnet_a_concatenates_an_input_and_a_block_that_it_reads_as_published():
    assert NASNET_A.normal.concat == (0, 2, 3, 4, 5, 6)
    assert NASNET_A.reduction.concat == (3, 4, 5, 6)


@pytest.mark.parametrize("genotype", PUBLISHED.values(), ids=PUBLISHED)
def test_published_cells_survive_a_file(genotype, tmp_path):
    path = tmp_path / "cells.json"
    path.write_text(json.dumps(genotype.to_dict() | {"reward": 0.5}))
    assert Genotype.load(path) == genotype


def edited(edit):
    data = NASNET_A.to_dict()
    edit(data)
    return data


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.update(format="other"), 'expected an object with "format"'),
        (lambda d: d.update(version=9), "version 9"),
        (lambda d: d.pop("normal"), "normal cell: expected an object with 'normal'"),
        (
            lambda d: d["normal"]["blocks"][0].update(left=["conv_9x9", 0]),
            "normal cell: block 0: unknown operation 'conv_9x9'; choose from",
        ),
        (
            lambda d: d["reduction"]["blocks"][1].update(left=["identity", 3]),
            "reduction cell: block 1 reads state 3, which does not exist yet",
        ),
        (lambda d: d["normal"]["blocks"][0].update(left=["identity", -1]), "not -1"),
        (lambda d: d["normal"]["blocks"][0].update(left=["identity"]), "an edge is written"),
        (lambda d: d["normal"]["blocks"][0].update(combine="mul"), "unknown combination 'mul'"),
        (lambda d: d.pop("reduction"), "reduction cell: expected an object with 'reduction'"),
        (lambda d: d["normal"].update(concat=[]), "at least one state"),
        (lambda d: d["normal"].update(concat=[2, 2]), "twice"),
        (lambda d: d["normal"].update(concat=[9]), "cannot concatenate 9"),
        (lambda d: d["normal"].update(blocks=[]), "at least one block"),
    ],
)
def test_a_wrong_genotype_is_refused_with_the_place_and_the_reason(edit, message, tmp_path):
    path = tmp_path / "cells.json"
    path.write_text(json.dumps(edited(edit)))
    with pytest.raises(ValueError, match=message) as caught:
        Genotype.load(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_json_is_refused_by_name(tmp_path):
    path = tmp_path / "cells.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"cells\.json"):
        Genotype.load(path)
