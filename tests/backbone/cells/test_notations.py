import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.cells.genotype import OPERATION_NAMES, Block, CellSpec, Edge, Genotype
from backbone.cells.notations import (
    ENAS_OPERATIONS,
    format_genotype,
    from_darts,
    from_enas,
    from_nni,
    parse_genotype,
    to_darts,
    to_enas,
    to_nni,
)
from backbone.cells.published import DARTS_V1, DARTS_V2, ENAS, NASNET_A, PNASNET_5

# As their authors published them: quark0/darts, cnn/genotypes.py; melodyguan/enas,
# scripts/cifar10_micro_final.sh; microsoft/nni, nni/nas/hub/pytorch/nasnet.py.
DARTS_V2_TEXT = """DARTS_V2 = Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1),
('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0),
('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5],
reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1),
('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)],
reduce_concat=[2, 3, 4, 5])"""
DARTS_V1_TEXT = """Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0),
('skip_connect', 0), ('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1),
('sep_conv_3x3', 0), ('skip_connect', 2)], normal_concat=[2, 3, 4, 5],
reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0),
('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)],
reduce_concat=range(2, 6))"""
ENAS_TEXT = """0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1
1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1"""


UP_TO_5 = st.integers(1, 5)


def cells(operations, *, inputs_too, concat="unread", num_blocks=UP_TO_5):
    """Cells of additions, which all notations know."""

    @st.composite
    def draw_cell(draw):
        blocks = []
        for states in range(2, 2 + draw(num_blocks)):
            edge = st.builds(Edge, st.sampled_from(operations), st.integers(0, states - 1))
            blocks.append(Block(draw(edge), draw(edge)))
        states = range(2 + len(blocks))
        if concat == "any":
            chosen = draw(st.permutations(states))[: draw(st.integers(1, len(states)))]
        elif concat == "all":
            chosen = states[2:]
        else:
            read = {e.source for b in blocks for e in (b.left, b.right)}
            chosen = [s for s in states[0 if inputs_too else 2 :] if s not in read]
        return CellSpec(tuple(blocks), tuple(chosen))

    return draw_cell()


def genotypes(*arguments, **settings):
    return st.builds(Genotype, *(cells(*arguments, **settings) for _ in range(2)))


def test_published_texts_are_the_published_genotypes():
    assert from_darts(DARTS_V1_TEXT) == DARTS_V1
    assert from_darts(DARTS_V2_TEXT) == DARTS_V2
    assert from_enas(ENAS_TEXT) == ENAS
    assert to_enas(ENAS).split() == ENAS_TEXT.split()


def test_nni_has_its_keys():
    found = to_nni(DARTS_V2, merge="all")
    assert found["normal/op_4_1"] == "skip_connect"
    assert found["normal/input_5_1"] == [2]
    assert len(found) == 32
    assert found.keys() == {
        f"{cell}/{part}_{node}_{k}"
        for cell in ("normal", "reduce")
        for part in ("op", "input")
        for node in range(2, 6)
        for k in (0, 1)
    }


def test_nni_s_inputs_may_be_integers_and_other_keys_are_left_alone():
    data = {
        key: v[0] if isinstance(v, list) else v for key, v in to_nni(DARTS_V2, merge="all").items()
    }
    assert from_nni(data | {"width": 36, "num_cells": 20}, merge="all") == DARTS_V2


@given(genotypes(OPERATION_NAMES, inputs_too=True, concat="any"))
def test_darts_says_any_concatenation(genotype):
    assert from_darts(to_darts(genotype)) == genotype
    assert parse_genotype(format_genotype(genotype, "darts")) == genotype


@given(
    st.integers(1, 5).flatmap(
        lambda n: genotypes(ENAS_OPERATIONS, inputs_too=True, num_blocks=st.just(n))
    )
)
def test_enas_says_its_own_operations(genotype):
    assert from_enas(to_enas(genotype)) == genotype
    assert parse_genotype(format_genotype(genotype, "enas")) == genotype


@given(genotypes(OPERATION_NAMES, inputs_too=False, concat="all"))
def test_nni_says_cells_that_concatenate_all(genotype):
    assert from_nni(json.loads(json.dumps(to_nni(genotype, merge="all"))), merge="all") == genotype
    assert parse_genotype(format_genotype(genotype, "nni"), merge="all") == genotype


@given(genotypes(OPERATION_NAMES, inputs_too=False))
def test_nni_says_cells_that_concatenate_loose_ends(genotype):
    written = to_nni(genotype, merge="loose_end")
    assert from_nni(written, merge="loose_end") == genotype


@given(genotypes(OPERATION_NAMES, inputs_too=False, concat="any"))
def test_our_json_is_told_from_the_others(genotype):
    assert parse_genotype(format_genotype(genotype, "json")) == genotype


CONCATENATING = Genotype(
    *[CellSpec.from_blocks([Block(Edge("identity", 0), Edge("identity", 1), "concat")])] * 2
)


@pytest.mark.parametrize("notation", ["darts", "enas", "nni"])
def test_what_a_notation_cannot_say_is_refused(notation):
    with pytest.raises(ValueError, match="cannot express a block that concatenates"):
        format_genotype(CONCATENATING, notation)
    with pytest.raises(ValueError, match="needs a reduction cell"):
        format_genotype(PNASNET_5, notation)
    with pytest.raises(ValueError, match="unknown notation"):
        format_genotype(NASNET_A, "yaml")


def test_other_concatenations_and_operations_are_refused():
    with pytest.raises(
        ValueError, match=r"concatenates every state that no block reads, here \[2, "
    ):
        to_enas(NASNET_A)
    with pytest.raises(ValueError, match=r"'all' concatenates \[2, 3, 4, 5, 6\], not \[0, 2, 3"):
        to_nni(NASNET_A, merge="all")
    cell = CellSpec.from_blocks([Block(Edge("conv_3x3", 0), Edge("identity", 1))])
    with pytest.raises(ValueError, match="no operation 'conv_3x3'"):
        to_enas(Genotype(cell, cell))
    with pytest.raises(ValueError, match="unknown merge 'some'"):
        to_nni(DARTS_V2, merge="some")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a DARTS genotype"),
        (
            DARTS_V2_TEXT.replace("dil_conv_3x3", "none"),
            "unknown operation 'none'",
        ),
        ("Genotype(normal=[('sep_conv_3x3', 0)])", "normal_concat is missing"),
        (DARTS_V2_TEXT.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', 5)"), "reads state 5"),
        (DARTS_V2_TEXT.replace("normal_concat=[2", "normal_concat=[9"), "cannot concatenate 9"),
        ("__import__('os').system('true')", "not a DARTS genotype"),
        ("0 2 0", "expected 4 integers per block"),
        ("0 9 0 0 0 0 0 0", "operations are 0 to 4, not 9"),
        ("7 0 0 0 0 0 0 0", "reads state 7"),
        ("{}", "it needs one normal/op_2_0"),
        ("[1]", "not an NNI architecture"),
        ('{"format": "other"}', "not a genotype"),
    ],
)
def test_bad_texts_are_refused_in_one_sentence(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_genotype(text)
    assert "\n" not in str(caught.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3)
    ),
)


@given(
    st.text()
    | st.text(alphabet="Genotype(normal=[]',0123_)")
    | st.lists(st.integers(-3, 9)).map(lambda numbers: " ".join(map(str, numbers)))
    | VALUES.map(json.dumps)
)
def test_any_text_is_a_genotype_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        assert isinstance(parse_genotype(text), Genotype)


@given(
    st.dictionaries(st.sampled_from(sorted(to_nni(DARTS_V2, merge="all"))), VALUES)
    | st.sampled_from(sorted(to_nni(DARTS_V2, merge="all"))).flatmap(
        lambda key: VALUES.map(lambda v: to_nni(DARTS_V2, merge="all") | {key: v})
    )
)
def test_any_nni_like_object_is_a_genotype_or_a_value_error(data):
    with contextlib.suppress(ValueError):
        assert isinstance(from_nni(data, merge="all"), Genotype)
