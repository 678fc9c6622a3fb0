"""``--help`` of every tool: what it does and what can be set."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import HydraException

from _entry import explain
from _schemas import register_schemas

ROOT = Path(__file__).parents[1]
TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("[a-z]*.py"))


@pytest.mark.parametrize("tool", TOOLS)
def test_every_setting_of_every_tool_is_explained(tool):
    register_schemas()
    lines = explain(tool, [], about="").partition("Settings")[2].splitlines()[1:]
    settings = [n for n, line in enumerate(lines) if line.startswith("  ") and line[2] != " "]
    assert settings
    unexplained = [lines[n] for n in settings if not lines[n + 1].startswith(" " * 6)]
    assert not unexplained


def test_help_shows_the_values_that_the_command_line_asks_for():
    register_schemas()
    text = explain("train_detector", ["recipe=detector_1x", "seed=7"], about="Train.")
    assert text.startswith("Train.\n")
    assert "  seed=7\n" in text
    assert "[detector_1x]" in text
    assert "  data: coco, [shapes]\n" in text


def test_help_offers_only_choices_that_fit_the_tool():
    register_schemas()
    (recipes,) = (
        line
        for line in explain("pretrain_backbone", [], about="").splitlines()
        if line.startswith("  recipe: ")
    )
    assert "[classifier_quick]" in recipes
    assert "detector" not in recipes


def test_a_setting_that_does_not_exist_is_refused():
    register_schemas()
    with pytest.raises(HydraException, match="sede"):
        explain("train_detector", ["sede=1"], about="")


def test_the_command_line_asks_for_help():
    tool = ROOT / "tools" / "search_cells.py"
    done = subprocess.run(
        [sys.executable, tool, "--help"], capture_output=True, text=True, check=True
    )
    assert "python tools/search_cells.py strategy=random" in done.stdout
    assert "strategy: [controller], random" in done.stdout
