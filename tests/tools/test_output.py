"""Output of the tools: lines, colors, JSON and exit status."""

import ast
import fcntl
import inspect
import io
import json
import math
import os
import pty
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import _output
import all_tools
from backbone.cells.published import PUBLISHED
from backbone.profile.complexity import Cost
from detection.evaluation.metrics import FIGURES

ROOT = Path(__file__).parents[2]
QUIET = {"OMP_NUM_THREADS": "1", "TERM": "xterm-256color", "NO_COLOR": "", "COLUMNS": "40"}
BACKBONE = "backbone=timm:lcnet_035"
WITHOUT_FIGURES = {}
"""Tool -> reason that it reports nothing for ``--json``."""


def run(name, *arguments, status=0, cwd=ROOT):
    done = subprocess.run(
        [sys.executable, all_tools.PATHS[name], *map(str, arguments)],
        cwd=cwd, env=os.environ | QUIET, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done


def figures(name, *arguments):
    """Return the JSON object, which must be all that standard output holds."""
    done = run(name, "--json", *arguments)
    assert done.stdout.endswith("}\n")
    assert done.stdout.count("\n") == 1
    found = json.loads(done.stdout, parse_constant=pytest.fail)
    assert found["tool"] == name
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    counts = {"search": (16, 8), "pretrain": (16, 8), "detection": (4, 2)}
    settings = [
        f"shapes.num_{stage}_train={train} shapes.num_{stage}_val={val}"
        for stage, (train, val) in counts.items()
    ]
    found = figures("make_shapes", f"out={root}", *" ".join(settings).split())
    assert (found["num_detection_train"], found["detection"]) == (4, f"{root}/detection")
    return root


@pytest.fixture(scope="module")
def training(data, tmp_path_factory):
    """A piped training: its arguments, its folder and the finished process."""
    out = tmp_path_factory.mktemp("training [brackets]")
    settings = (f"data.root={data}/detection", "recipe=smoke", BACKBONE, f"out='{out}'")
    return settings, out, run("train_detector", *settings)


def test_a_piped_training_prints_only_its_results(training):
    _, out, done = training
    lines = done.stdout.splitlines()
    words = ["data:", "AP", "AP", "AR", "detector:", "detections:"]
    assert [line.split(" ")[0] for line in lines] == words
    assert lines[4].startswith(f"detector: {out}/detector.safetensors  (")
    assert lines[5] == f"detections: {out}/detections.png"
    assert done.stderr == ""
    assert not {"\r", "\x1b"} & set(done.stdout)


def test_the_figures_of_a_skipped_training_are_those_of_its_metrics(training):
    settings, out, _ = training
    found = figures("train_detector", *settings)
    metrics = json.loads((out / "metrics.json").read_text())
    assert {name: found[name] for name in FIGURES} == {name: metrics[name] for name in FIGURES}
    assert found["per_class"] == metrics["per_class"]
    assert found["skipped"] is True
    assert found["out"] == str(out)
    for name in ("detector", "metrics", "results", "drawing"):
        assert Path(found[name]).is_file()


@pytest.mark.slow
@pytest.mark.ci
def test_the_figures_of_an_evaluation_are_those_of_its_metrics(data, training, tmp_path):
    found = figures(
        "evaluate_detector", f"results='{training[1]}/results.json'", "plots=false",
        f"annotations={data}/detection/annotations/instances_val.json", f"out={tmp_path}",
    )  # fmt: skip
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert {name: found[name] for name in FIGURES} == {name: metrics[name] for name in FIGURES}
    assert found["metrics"] == str(tmp_path / "metrics.json")


@pytest.mark.slow
@pytest.mark.ci
def test_the_figures_of_a_pretraining_are_those_of_its_metrics(data, tmp_path):
    found = figures(
        "pretrain_backbone", f"data_root={data}/pretrain", BACKBONE, "recipe.epochs=1",
        "recipe.batch_size=8", f"out={tmp_path}",
    )  # fmt: skip
    assert found["accuracy"] == json.loads((tmp_path / "metrics.json").read_text())["accuracy"]
    assert found["backbone"] == str(tmp_path / "backbone.safetensors")
    assert found["skipped"] is False


def test_every_job_of_a_sweep_prints_a_line_of_its_own(tmp_path):
    names = "darts_v2", "nasnet_a"
    done = run(
        "convert_cells", "--multirun", f"cells={','.join(names)}", "--json", f"out={tmp_path}",
        cwd=tmp_path,
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [job["out"] for job in found] == [str(tmp_path / "0"), str(tmp_path / "1")]
    assert [job["digest"] for job in found] == [PUBLISHED[name].digest for name in names]
    assert [line.split()[:2] for line in done.stderr.splitlines()][::3] == [
        ["job", "0:"],
        ["job", "1:"],
    ]


@pytest.mark.slow
@pytest.mark.ci
def test_the_figures_of_a_search_are_those_of_its_cells(data, tmp_path):
    found = figures(
        "search_cells", f"reward.data_root={data}/search", "reward.epochs=1", "executor=inline",
        "reward.batch_size=8", "num_trials=2", "num_reevaluated=0", f"out={tmp_path}",
    )  # fmt: skip
    cells = json.loads((tmp_path / "cells.json").read_text())
    names = ("reward", "reevaluated_reward", "trial", "num_trials", "num_failed", "seconds")
    assert {name: found[name] for name in names} == {name: cells[name] for name in names}
    assert found["cells"] == str(tmp_path / "cells.json")


@pytest.mark.slow
@pytest.mark.ci
def test_an_unreadable_image_is_an_error_after_all_others_are_done(data, training, tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    (images / "a.png").write_bytes(b"no image")
    (good, *_) = (data / "detection/val").glob("*.png")
    (images / "b.png").write_bytes(good.read_bytes())
    done = run(
        "predict", f"weights='{training[1]}/detector.safetensors'", f"images={images}",
        f"out={out}", "--json", status=1,
    )  # fmt: skip
    assert done.stdout == ""
    count, *_, error = done.stderr.splitlines()
    (objects,) = re.fullmatch(rf"1 images, (\d+) objects: {out}/predictions.json", count).groups()
    records = json.loads((out / "predictions.json").read_text())
    assert int(objects) == sum(len(record.get("detections", ())) for record in records)
    hint = "no objects: none scored 0.5 or more; lower score_threshold"
    assert (hint in done.stderr.splitlines()) == (objects == "0")
    assert error.startswith("error: ")
    assert "a.png" in error
    assert len(json.loads((out / "predictions.json").read_text())) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["cells=nosuch"], "error: No such file or directory: nosuch\n"),
        (["cells=darts_v2", "to=morse"], "error: "),
        (["--jsn"], "error: convert_cells has no --jsn; did you mean --json?\n"),
        (["--cfg", "all of it"], "error: argument --cfg/-c: invalid choice: 'all of it' "),
        (["-x"], "error: unrecognized arguments: -x; --hydra-help lists the flags\n"),
    ],
)
def test_an_error_is_one_sentence_and_status_1(arguments, sentence, tmp_path):
    done = run("convert_cells", *arguments, "--json", f"out={tmp_path}", status=1)
    assert done.stdout == ""
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.ci
def test_a_folder_in_which_another_process_searches_is_refused(data, tmp_path):
    with (tmp_path / ".search.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        settings = (f"reward.data_root={data}/search", f"out={tmp_path}")
        done = run("search_cells", *settings, "--json", status=1)
    sentence = f"error: another process is searching in {tmp_path}\n"
    assert (done.stdout, done.stderr) == ("", sentence)


def on_terminal(name, *arguments, **environment):
    """Return the text that a tool writes to a terminal of 40 columns, and its status."""
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, all_tools.PATHS[name], *map(str, arguments)],
        cwd=ROOT, env=os.environ | QUIET | environment, stdout=secondary, stderr=secondary,
    )  # fmt: skip
    os.close(secondary)
    written = b""
    try:
        while chunk := os.read(primary, 4096):
            written += chunk
    except OSError:  # Linux's end of file of a terminal
        pass
    os.close(primary)
    return written.decode().replace("\r\n", "\n"), process.wait()


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_has_colors_unless_no_color_is_set(no_color, tmp_path):
    out = tmp_path / ("a long folder with [red]brackets[/red] :smile: " * 2)
    text, status = on_terminal("convert_cells", "cells=darts_v2", f"out='{out}'", NO_COLOR=no_color)
    assert status == 0
    path = f"{out}/cells.json"
    if no_color:
        assert text.startswith(f"cells: {path}\n")
        assert "\x1b" not in text
    else:
        assert text.startswith(f"\x1b[1mcells:\x1b[0m \x1b[36m{path}\x1b[0m\n")


@pytest.mark.parametrize("no_color", ["", "1"])
def test_the_label_of_an_error_is_red_on_a_terminal(no_color):
    text, status = on_terminal("convert_cells", "--jsn", NO_COLOR=no_color)
    label = "error:" if no_color else "\x1b[1;31merror:\x1b[0m"
    assert (text, status) == (f"{label} convert_cells has no --jsn; did you mean --json?\n", 1)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_redirected_line_is_the_line_of_a_terminal_without_colors(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    lines = {}
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stdout", stream)
        _output.print_stage("search", "[bold]x[/bold] " * 20, 12.4, skipped=False)
        _output.print_stage("detector", "AP 1.0", 12.4, skipped=True)
        lines[type(stream)] = stream.getvalue()
    plain = f"search: {'[bold]x[/bold] ' * 20}  (12 s)\ndetector: AP 1.0  (already there)\n"
    assert lines[io.StringIO] == plain
    colored = lines[Terminal]
    assert colored != plain
    for code in ("\x1b[1m", "\x1b[32m", "\x1b[0m"):
        assert code in colored
        colored = colored.replace(code, "")
    assert colored == plain


def test_figures_become_json_types():
    given = {"nan": math.nan, "path": Path("a/b"), "cost": Cost(1, 2, 3), "pair": (math.inf, True)}
    assert _output.to_json(given) == {
        "nan": None,
        "path": "a/b",
        "cost": {"parameters": 1, "mult_adds": 2, "activations": 3},
        "pair": [None, True],
    }
    with pytest.raises(TypeError, match="set cannot be written as JSON"):
        _output.to_json({1, 2})


@pytest.mark.parametrize("name", all_tools.TOOLS)
def test_every_tool_reports_its_figures(name):
    source = textwrap.dedent(inspect.getsource(all_tools.TOOLS[name].main))
    calls = {ast.unparse(n.func) for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)}
    assert ("run.report" in calls) != (name in WITHOUT_FIGURES)


def test_the_help_of_every_tool_names_the_flag():
    tool = all_tools.TOOLS["convert_cells"]
    tool.register()
    assert "`--json` prints the results as one JSON object" in tool.explain([]).split("\n\n")[-1]
