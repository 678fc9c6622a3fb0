"""The command line of every tool: help, refused settings, values without names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import all_tools

ROOT = Path(__file__).parents[1]
TOOLS = all_tools.TOOLS


def explain(name, *overrides):
    TOOLS[name].register()
    return TOOLS[name].explain(overrides)


@pytest.mark.parametrize("name", TOOLS)
def test_every_setting_of_every_tool_is_explained(name):
    lines = explain(name).partition("Settings")[2].splitlines()[1:]
    settings = [n for n, line in enumerate(lines) if line.startswith("  ") and line[2] != " "]
    assert settings
    unexplained = [lines[n] for n in settings if not lines[n + 1].startswith(" " * 6)]
    assert not unexplained


def test_help_shows_the_values_that_the_command_line_asks_for():
    text = explain("train_detector", "recipe=detector_1x", "seed=7")
    assert text.startswith("Train Faster R-CNN on a backbone")
    assert "  seed=7\n" in text
    assert "[detector_1x]" in text
    assert "  data: coco, converted, [shapes]\n" in text


def test_help_offers_only_choices_that_fit_the_tool():
    (recipes,) = (
        line for line in explain("pretrain_backbone").splitlines() if line.startswith("  recipe: ")
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
@pytest.mark.parametrize("step", ["check", "explain"])
def test_what_does_not_fit_is_refused_in_one_sentence(step, override, sentence):
    TOOLS["train_detector"].register()
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        getattr(TOOLS["train_detector"], step)([override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("sede=1", "search_cells has no setting 'sede'; did you mean 'seed'?"),
        (
            "nasnet_a",
            "search_cells does not take the argument 'nasnet_a'; settings are written name=value, "
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
def test_values_may_be_given_without_names_where_a_tool_declares_it(flags):
    explain_evaluation = TOOLS["explain_evaluation"]
    line = [*flags, "it's a", "b c", "num_rows=3"]
    arguments = list(explain_evaluation.name_arguments(line))
    assert arguments == [*flags, r"before='it\'s a'", "after='b c'", "num_rows=3"]
    settings = all_tools.settings("explain_evaluation", *arguments[-3:])
    assert (settings.before, settings.after) == ("it's a", "b c")
    with pytest.raises(ValueError, match="does not take the argument 'another'"):
        list(explain_evaluation.name_arguments([*line, "another"]))


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
    assert "nasdet search-cells strategy=evolution" in done.stdout
    assert "strategy: [controller], " in done.stdout


def test_a_list_of_settings_is_shown_as_the_command_line_takes_it():
    (line,) = (
        line for line in explain("measure_fidelity").splitlines() if line.startswith("  proxies=")
    )
    TOOLS["measure_fidelity"].check([line.strip()])
    assert "proxies=[{epochs: 1}," in line


@pytest.mark.parametrize(
    ("name", "override", "sentence"),
    [
        (
            "train_detector",
            "detector.rpn_candidates_train=5",
            "train_detector's setting 'detector.rpn_candidates_train' is now "
            "'detector.rpn_pre_nms_top_n_train'",
        ),
        ("run_pipeline", "rivals=[]", "run_pipeline's setting 'rivals' is now 'baselines'"),
        ("run_pipeline", "at_once=2", "run_pipeline's setting 'at_once' is now 'num_parallel'"),
        ("measure_fidelity", "cheap=[]", "measure_fidelity's setting 'cheap' is now 'proxies'"),
        (
            "replay_strategies",
            "share=1",
            "replay_strategies's setting 'share' is now 'top_fraction'",
        ),
        (
            "search_cells",
            "reward=shared",
            "search_cells's choice reward=shared is now reward=supernet",
        ),
    ],
)
def test_a_former_name_is_refused_with_the_current_one(name, override, sentence):
    TOOLS[name].register()
    with pytest.raises(ValueError, match="is now") as caught:
        TOOLS[name].check([override])
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("former", "current"),
    [
        ("compare_cells", "research/compare_cells"),
        ("compare_searches", "research/compare_searches"),
        ("measure_fidelity", "research/measure_fidelity"),
        ("measure_sharing", "research/rank_supernet"),
        ("replay_strategies", "research/replay_strategies"),
        ("simulate_search", "research/simulate_search"),
        ("tabulate_rewards", "research/tabulate_rewards"),
        ("tabulate_sizes", "research/tabulate_sizes"),
        ("benchmark_detector", "benchmarks/benchmark_detector"),
        ("benchmark_evaluation", "benchmarks/benchmark_evaluation"),
        ("benchmark_proxy", "benchmarks/benchmark_proxy"),
        ("benchmark_training", "benchmarks/benchmark_training"),
    ],
)
def test_the_former_path_of_a_tool_names_the_current_one(former, current):
    assert (ROOT / "tools" / f"{current}.py").is_file()
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / f"{former}.py", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    sentence = f"error: tools/{former}.py is now tools/{current}.py\n"
    assert (done.returncode, done.stderr) == (1, sentence)
