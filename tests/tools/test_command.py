"""The command nasdet: verbs, help, and completion in bash and zsh."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from importlib import metadata

import pytest
from hydra import compose
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

import _completion
import _verbs
import all_tools
from _options import chosen_options, fitting_options, group_options

ROOT = all_tools.ROOT
BREAKS = " \t\n\"'@><=;|&(:"
"""COMP_WORDBREAKS of bash."""
TOPK = "detector.topk_candidates"
RECIPES = [
    *("detector_1x", "detector_3x", "detector_cpu", "detector_long", "detector_modern"),
    *("detector_paper", "detector_quick", "smoke"),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Variables with which a shell finds the command of this checkout, as pip installs it."""
    folder = tmp_path_factory.mktemp("bin")
    script = (ROOT / "tools" / "nasdet").read_text().partition("\n")[2]
    (folder / "nasdet").write_text(f"#!{sys.executable}\n{script}")
    (folder / "nasdet").chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "TERM": "dumb"}


@pytest.fixture(scope="module")
def nasdet(environment):
    def run(*arguments, check=True, **variables):
        done = subprocess.run(
            ["nasdet", *arguments],
            env=environment | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


def test_every_tool_is_a_verb_and_nothing_else_is():
    verbs = [path for group in ("", *_verbs.GROUPS) for path in _verbs.tool_files(group).values()]
    assert sorted(verbs) == sorted(all_tools.PATHS.values())


def test_benchmarks_are_verbs_without_their_prefix():
    assert {*_verbs.tool_files("benchmark")} == {"detector", "evaluation", "proxy", "training"}


@pytest.mark.parametrize("group", ["", "research", "benchmark"])
def test_help_lists_the_verbs_with_the_first_lines_of_their_docstrings(nasdet, group):
    before = [group] if group else []
    text = nasdet(*before, "--help").stdout
    assert nasdet(*before, "-h").stdout == nasdet(*before).stdout == text
    assert max(map(len, text.splitlines())) <= 100
    listed = " ".join(text.split())
    for verb, path in _verbs.tool_files(group).items():
        line = ast.get_docstring(ast.parse(path.read_text())).partition("\n")[0]
        assert f" {verb} {line}" in listed


def test_the_help_of_the_command_imports_the_standard_library_only(nasdet):
    loaded = imported(nasdet("--help", PYTHONPROFILEIMPORTTIME="1").stderr)
    assert "_verbs" in loaded
    assert not loaded & {"torch", "timm", "lightning", "hydra", "omegaconf", "yaml", "backbone"}


@pytest.mark.parametrize("verb", [["train-detector"], ["research", "compare-cells"]])
def test_the_help_of_a_verb_loads_neither_torch_nor_optuna(nasdet, verb):
    done = nasdet(*verb, "--help", PYTHONPROFILEIMPORTTIME="1")
    assert "Settings (name=value)" in done.stdout
    loaded = imported(done.stderr)
    assert "hydra" in loaded
    assert not loaded & {"torch", "timm", "lightning", "optuna", "numpy"}


def imported(report):
    return {line.rpartition("|")[2].strip() for line in report.splitlines() if "|" in line}


def test_the_version_is_that_of_the_installation(nasdet):
    assert nasdet("--version").stdout == f"nasdet {metadata.version('nasdet')}\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train-detectr"], "nasdet has no verb 'train-detectr'; did you mean 'train-detector'?"),
        (["train"], "nasdet has no verb 'train'; did you mean 'train-detector'?"),
        (["val"], "nasdet has no verb 'val'; did you mean 'evaluate-detector'?"),
        (["detect"], "nasdet has no verb 'detect'; did you mean 'predict'?"),
        (["zzz"], "nasdet has no verb 'zzz'; nasdet --help lists the verbs"),
        (["--versoin"], "nasdet has no verb '--versoin'; nasdet --help lists the verbs"),
        (
            ["measure_fidelity"],
            "nasdet has no verb 'measure_fidelity'; did you mean 'research measure-fidelity'?",
        ),
        (
            ["research", "compare-cell"],
            "nasdet research has no verb 'compare-cell'; did you mean 'compare-cells'?",
        ),
        (["completion", "fish"], "there is no completion for 'fish'; choose from ['bash', 'zsh']"),
    ],
)
def test_an_unknown_verb_is_refused_in_one_sentence(nasdet, words, sentence):
    done = nasdet(*words, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {sentence}\n")


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (["search-cells"], "tools/search_cells.py"),
        (["search_cells"], "tools/search_cells.py"),
        (["research", "compare-cells"], "tools/research/compare_cells.py"),
        (["benchmark", "detector"], "tools/benchmarks/benchmark_detector.py"),
    ],
)
def test_a_verb_replaces_the_process_by_the_tool(monkeypatch, words, path):
    """So that the tool receives the signals, and its exit status is the command's."""
    started = []
    monkeypatch.setattr(os, "execv", lambda *arguments: started.append(arguments))
    command = runpy.run_path(str(ROOT / "tools" / "__main__.py"))
    command["main"]([*words, "seed=1", "--help"])
    python = sys.executable
    assert started == [(python, [python, str(ROOT / path), "seed=1", "--help"])]


def test_the_tools_are_verbs_without_an_installation_too():
    done = subprocess.run(
        [sys.executable, ROOT / "tools", "search-cells", "sede=1"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    sentence = "error: search_cells has no setting 'sede'; did you mean 'seed'?\n"
    assert (done.returncode, done.stderr) == (1, sentence)


def test_the_command_without_the_packages_is_one_sentence():
    done = subprocess.run(
        [sys.executable, "-I", "-S", ROOT / "tools" / "nasdet", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: the packages of nasdet are not installed")


def candidates(line):
    """Return what bash may insert after the last word break of a line."""
    return _completion.bash_reply(BREAKS, f"nasdet {line}")[1:]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train-d", ["train-detector "]),
        ("research rank", ["rank-supernet "]),
        ("benchmark ", ["detector ", "evaluation ", "proxy ", "training "]),
        ("--", ["--help ", "--version "]),
        ("completion ", ["bash ", "zsh "]),
        ("completion bash ", []),
        ("train-detector --", ["--help ", "--multirun ", "--json ", "--dry-run "]),
        ("predict --d", []),
        ("train-detector ba", ["backbone="]),
        ("train_detector ba", ["backbone="]),
        ("train-detector rec", ["recipe=", "recipe."]),
        ("train-detector recipe.sch", ["recipe.schedule="]),
        ("train-detector recipe=", [f"{recipe} " for recipe in RECIPES]),
        ("train-detector recipe=sm", ["smoke "]),
        ("train-detector 'recipe=sm", ["recipe=smoke"]),
        ("train-detector --multirun recipe=smoke,detector_1", ["smoke,detector_1x "]),
        ("train-detector detector=detectron2_r", ["detectron2_retinanet "]),
        ("train-detector detector=torchvision_retinanet detector.topk", [f"{TOPK}="]),
        ("train-detector zzz=1 seed=x ba", ["backbone="]),
        ("train-detector pretrained=", ["true ", "false "]),
        ("train-detector pretrained=true pre", ["precision="]),
        ("compare-backbones data", ["data@training.data="]),
        ("compare-backbones data@tr", ["training.data="]),
        ("compare-backbones data@training.data=co", ["coco ", "converted "]),
        ("compare-backbones training.re", ["training.recipe."]),
        ("research compare-cells executor=", ["inline ", "local ", "ray "]),
        ("unknown-verb ba", []),
        ("", ["compare-backbones ", "convert-annotations ", "convert-cells "]),
    ],
)  # fmt: skip
def test_candidates_of_a_line(line, expected):
    try:
        found = candidates(line)
    except ValueError:  # main() prints nothing then
        found = []
    assert found[: len(expected)] == expected
    assert line == "" or len(found) == len(expected)


def test_other_values_are_completed_with_file_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "old").mkdir(parents=True)
    (tmp_path / "runs" / "a:b.json").touch()
    reply = _completion.bash_reply
    assert reply(BREAKS, "nasdet predict weights=") == ["files", "runs"]
    expected = ["files", "runs/a:b.json", "runs/old"]
    assert reply(BREAKS, "nasdet predict weights=runs/") == expected
    assert reply(BREAKS, "nasdet predict weights=runs/a:") == ["files", "b.json"]
    assert reply(BREAKS, "nasdet explain-evaluation runs/o") == ["files", "runs/old"]
    within_list = reply(BREAKS, "nasdet compare-backbones backbones=[nasnet_a:2@384,ru")
    assert within_list == ["words", "384,runs/"]


@pytest.mark.parametrize("line", ["no-verb seed=", "train-detector data.root=/nowhere/"])
def test_completion_fails_in_silence(nasdet, line):
    done = nasdet("_complete", "bash", BREAKS, f"nasdet {line}")
    assert (done.stdout.strip(), done.stderr) in (("", ""), ("words", ""), ("files", ""))


def test_dry_run_is_offered_for_the_tools_that_have_it():
    for name, path in all_tools.PATHS.items():
        has_dry_run = "dry_run" in all_tools.TOOLS[name].args.__dataclass_fields__
        flags = _completion.complete_setting(path, [], "--dry").candidates
        assert flags == (["--dry-run "] if has_dry_run else []), name


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("name", all_tools.TOOLS)
def test_the_options_that_fit_are_those_with_which_the_tool_can_be_composed(name):
    tool = all_tools.TOOLS[name]
    tool.register()
    with tool.config_dir():
        config = compose(name, return_hydra_config=True)
        for group, present in chosen_options(config).items():
            options = group_options(group.partition("@")[0])
            expected = {o for o in options if o == present or can_compose(name, f"{group}={o}")}
            if (name, group) == ("benchmark_training", "detector"):  # with another size
                expected |= {o for o in options if o.endswith("_retinanet")}
            assert set(fitting_options(group, config)) == expected, group


def can_compose(name, override):
    try:
        compose(name, [override])
    except (HydraException, OmegaConfBaseException):
        return False
    return True


REPORT = """
compopt() { :; }
complete_line() {
    COMP_LINE=$1 COMP_POINT=${#1}
    shift
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    _nasdet nasdet
    echo "${#COMPREPLY[@]}:${COMPREPLY[@]/%/|}"
}
eval "$(nasdet completion bash)"
complete_line 'nasdet train-d' nasdet train-d
complete_line 'nasdet train-detector ba' nasdet train-detector ba
complete_line 'nasdet train-detector recipe=sm' nasdet train-detector recipe = sm
complete_line 'nasdet compare-backbones data@tr' nasdet compare-backbones data @ tr
complete_line 'nasdet predict images=/no:where/' nasdet predict images = /no : where/
"""


def test_bash_replies_with_the_rest_of_the_word(environment):
    done = subprocess.run(
        ["bash", "--norc", "-c", REPORT],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "1:train-detector |",
        "1:backbone=|",
        "1:smoke |",
        "1:training.data=|",
        "0:",
    ]


class Terminal:
    """An interactive shell; ``type`` returns its line once it shows an expected text."""

    def __init__(self, shell, environment, cwd):
        self.master, slave = os.openpty()
        self.process = subprocess.Popen(
            shell, stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=cwd,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        os.set_blocking(self.master, False)

    def wait_for(self, pattern):
        text, end = "", time.monotonic() + 60
        # zsh writes some characters twice, with a backspace between.
        while not re.search(pattern, re.sub(r"(.)\x08(?=\1)", "", text)):
            assert time.monotonic() < end, text
            try:
                text += os.read(self.master, 65536).decode()
            except BlockingIOError:
                time.sleep(0.02)
        return text

    def type(self, keys, expected):
        os.write(self.master, keys.encode())
        self.wait_for(re.escape(expected))
        os.write(self.master, b"\x15")  # clears the line

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture(params=["bash", "zsh"])
def terminal(request, environment, tmp_path):
    shell = request.param
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "my photos").mkdir()
    (tmp_path / "x.safetensors").touch()
    command = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}[shell]
    setup = f'eval "$(nasdet completion {shell})"'
    if shell == "zsh":
        setup = f"autoload -Uz compinit; compinit -u -D; {setup}"
    terminal = Terminal(command, environment | {"PS1": "$ "}, tmp_path)
    try:
        terminal.wait_for(r"\$ ")
        terminal.type(f"{setup}; echo set''up\n", "setup\r")
        yield terminal
    finally:
        terminal.close()


@pytest.mark.slow
@pytest.mark.ci
def test_the_tab_key_completes_in_an_interactive_shell(terminal):
    terminal.type("nasdet train-d\t", "etector ")
    terminal.type("nasdet train-detector recipe=det\t", "ector_")
    terminal.type("nasdet train-detector recipe=sm\tX", "oke X")  # finished words get a space
    terminal.type("nasdet compare-backbones data@tr\t", "aining.data=")
    terminal.type("nasdet predict weights=x\tX", ".safetensors X")
    terminal.type("nasdet predict images=my\tX", "\\ photos/X")
    terminal.type("nasdet compare-backbones 'backbones=[x.s\tX", "afetensorsX")
