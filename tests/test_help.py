"""``--help`` of every tool: what it does and what can be set."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from _entry import check, explain, start_tool
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
    assert "  data: coco, converted, [shapes]\n" in text


def test_help_offers_only_choices_that_fit_the_tool():
    register_schemas()
    (recipes,) = (
        line
        for line in explain("pretrain_backbone", [], about="").splitlines()
        if line.startswith("  recipe: ")
    )
    assert "[classifier_quick]" in recipes
    assert "detector" not in recipes


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("bakbone=x", "train_detector has no setting 'bakbone'; did you mean 'backbone'?"),
        ("recipe.learning_rat=1", "no setting 'recipe.learning_rat'; did you mean 'recipe.learn"),
        ("zzz=1", "train_detector has no setting 'zzz'; --help lists them"),
        ("experiment=quickstart", "experiment=quickstart is not for train_detector, which has no"),
        ("recipe=fast", "no recipe=fast; choose from ['detector_1x', 'detector_3x', 'detector_c"),
        (
            "detector.anchor_sizes=3",
            "detector.anchor_sizes takes a list: detector.anchor_sizes=[3]",
        ),
        (
            "recipe.learning_rate=fast",
            "recipe.learning_rate=fast: Value 'fast' of type 'str' could",
        ),
        ("recipe.batch_size=many", "'many' of type 'str' could not be converted to Integer"),
        ("+seed=1", "write seed=1 without '+'"),
        ("data.root=[1", "no viable alternative at input '[1'"),
    ],
)
@pytest.mark.parametrize("step", [check, partial(explain, about="")])
def test_what_does_not_fit_is_refused_in_one_sentence(step, override, sentence):
    register_schemas()
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        step("train_detector", [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("sede=1", "search_cells has no setting 'sede'; did you mean 'seed'?"),
        (
            "nasnet_a",
            "search_cells cannot tell what 'nasnet_a' is for; settings are written name=value, "
            "and --help lists them",
        ),
        ("--dryrun", "search_cells has no --dryrun; did you mean --dry-run?"),
    ],
)
def test_the_command_line_is_refused_without_a_traceback(argument, sentence):
    tool = ROOT / "tools" / "search_cells.py"
    done = subprocess.run(
        [sys.executable, tool, argument],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == f"error: {sentence}\n"


@pytest.mark.parametrize("flags", [["--cfg", "job"], ["--multirun"]])
def test_values_may_stand_without_their_names_where_a_tool_says_so(flags, monkeypatch):
    line = ["explain_evaluation.py", *flags, "it's a", "b c", "num_rows=3"]
    monkeypatch.setattr(sys, "argv", [*line])
    start_tool(lambda: None, about="")
    assert sys.argv[1:] == [*flags, r"before='it\'s a'", "after='b c'", "num_rows=3"]
    with initialize_config_dir(version_base=None, config_dir=str(ROOT / "conf")):
        config = compose("explain_evaluation", sys.argv[-3:])
    assert (config.before, config.after) == ("it's a", "b c")
    monkeypatch.setattr(sys, "argv", [*line, "another"])
    with pytest.raises(SystemExit, match="cannot tell what 'another' is for"):
        start_tool(lambda: None, about="")


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["train_detector", "data=coco"], "error: give data.root=...\n"),
        (
            ["run_pipeline", "experiment=real_cpu", "training.data.root=x"],
            "error: give reward.data_root=... pretrain.data_root=...\n",
        ),
    ],
)
def test_a_setting_that_must_be_given_is_asked_for(command, sentence, tmp_path):
    name, *arguments = command
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / f"{name}.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (1, sentence)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("full_error", ["0", "1"])
def test_the_command_line_asks_for_help(full_error):
    tool = ROOT / "tools" / "search_cells.py"
    done = subprocess.run(
        [sys.executable, tool, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"HYDRA_FULL_ERROR": full_error},
    )
    assert "python tools/search_cells.py strategy=evolution" in done.stdout
    assert "strategy: [controller], " in done.stdout


def test_a_list_of_settings_is_shown_as_the_command_line_takes_it():
    register_schemas()
    (line,) = (
        line
        for line in explain("measure_fidelity", [], about="").splitlines()
        if line.startswith("  cheap=")
    )
    check("measure_fidelity", [line.strip()])
    assert "cheap=[{epochs: 1}," in line
