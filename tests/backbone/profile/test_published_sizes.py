"""Sizes of nasdet's networks equal the published ones."""

from pathlib import Path

import pytest

from tabulate_sizes import measure_size, read_references, tabulate_sizes

REFERENCES = read_references(Path(__file__).parent / "published_sizes.yaml")
DOCS = Path(__file__).parents[3] / "docs"
EXACT = ("parameters", "with_statistics", "mult_adds", "auxiliary_parameters")


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda reference: reference.name)
def test_exact_figures_are_met_exactly(reference):
    size = measure_size(reference)
    known = {name: getattr(reference, name) for name in EXACT}
    wanted = {name: figure for name, figure in known.items() if figure is not None}
    assert {name: getattr(size, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    "reference",
    [r for r in REFERENCES if r.parameters is not None and r.printed_parameters],
    ids=lambda reference: reference.name,
)
def test_printed_figures_are_met_to_their_last_digit(reference):
    size = measure_size(reference)
    for printed, ours in (
        (reference.printed_parameters, size.parameters),
        (reference.printed_mult_adds, size.mult_adds),
    ):
        if not printed:
            continue
        number, unit = printed.split()
        scale = {"M": 1e6, "B": 1e9}[unit]
        digits = len(number.partition(".")[2])
        # Papers cut digits off as often as they round, and some count the batch normalization's
        # statistics as parameters: one step of the last digit.
        assert abs(ours / scale - float(number)) < 1.5 * 10.0**-digits


def test_the_table_in_the_docs_is_what_the_command_writes():
    page = (DOCS / "backbones.md").read_text(encoding="utf-8")
    table = tabulate_sizes(REFERENCES, [measure_size(reference) for reference in REFERENCES])
    assert f"<!-- sizes -->\n\n{table}\n\n<!-- /sizes -->" in page
