"""The wheel: what it holds, and the tools run from it in an empty folder without the checkout."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec

import pytest

import _verbs
import all_tools

ROOT = all_tools.ROOT
SOURCES = ("backbone", "search", "detection", "tools", "conf")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input")
NO_NETWORK = ("unshare", "--map-root-user", "--net")
"""Runs a command in a network namespace without interfaces, where the system allows it."""
PROXIES = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
"""A proxy that refuses, for systems that do not."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ci,
    pytest.mark.skipif(not find_spec("setuptools"), reason="setuptools is not installed"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a build writes into its source folder
    ignored = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = (*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    subprocess.run(build, check=True)
    (path,) = folder.glob("nasdet-*.whl")
    return path


@pytest.fixture(scope="module")
def nasdet(wheel, tmp_path_factory):
    """Return a function that runs the installed command in a folder that was empty before."""
    target, folder = tmp_path_factory.mktemp("target"), tmp_path_factory.mktemp("empty")
    install = (*PIP, "install", "--no-deps", "--no-index", "--target", target, wheel)
    subprocess.run(install, check=True)
    isolated = NO_NETWORK if is_allowed(NO_NETWORK) else ()
    environment = os.environ | PROXIES | {"PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"}

    def run(*arguments, command=(target / "bin" / "nasdet",), **variables):
        done = subprocess.run(
            [*isolated, *command, *arguments],
            cwd=folder,
            env=environment | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    run.target, run.folder = target, folder
    return run


def is_allowed(command):
    return (
        bool(shutil.which(command[0]))
        and not subprocess.run([*command, "true"], capture_output=True, check=False).returncode
    )


def test_the_wheel_holds_the_packages_the_tools_and_their_values(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"backbone", "search", "detection", "nasdet", "nasdet-0.1.0.data"}
    assert {f"{package}/py.typed" for package in ("backbone", "search", "detection")} <= names
    values = {path.relative_to(ROOT) for path in ROOT.glob("conf/**/*.yaml")}
    assert {f"nasdet/{path}" for path in map(str, values)} <= names
    for package in ("backbone", "search", "detection"):
        in_package = {path.relative_to(ROOT) for path in (ROOT / package).glob("**/*.yaml")}
        assert set(map(str, in_package)) <= names
    tools = {path.relative_to(ROOT / "tools") for path in ROOT.glob("tools/**/*.py")}
    stubs = {
        path
        for path in tools
        if path.parent.name == "" and path.name[0] != "_" and path.stem in former_names()
    }
    assert {f"nasdet/{path}" for path in map(str, tools - stubs)} <= names
    assert not {f"nasdet/{path}" for path in map(str, stubs)} & names
    assert not [name for name in names if name.endswith(("nasdet/__init__.py", ".pyc"))]


def former_names():
    verbs = {path.stem for path in _verbs.tool_files().values()}
    return {path.stem for path in (ROOT / "tools").glob("[a-z]*.py")} - verbs


def test_an_editable_installation_is_a_path_and_the_command(tmp_path):
    """Its module finder would hide the packages from type checkers."""
    source = tmp_path / "source"
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source)
    code = "from setuptools.build_meta import build_editable; print(build_editable('.'))"
    built = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True
    )
    wheel = zipfile.ZipFile(source / built.stdout.split()[-1])
    files = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert sorted(files) == ["__editable__.nasdet-0.1.0.pth", "nasdet-0.1.0.data/scripts/nasdet"]
    assert wheel.read(files[0]).decode().strip() == str(source)


def test_the_command_and_the_module_list_the_same_verbs(nasdet):
    text = nasdet().stdout
    assert "train-detector" in text
    assert nasdet(command=(sys.executable, "-m", "nasdet")).stdout == text
    assert "rank-supernet" in nasdet("research").stdout
    assert nasdet("--version").stdout.startswith("nasdet 0.")
    assert "_nasdet()" in nasdet("completion", "bash").stdout


@pytest.mark.parametrize("words", [("research", "compare-cells"), ("benchmark", "proxy")])
def test_tools_in_folders_find_the_modules_that_all_tools_share(nasdet, words):
    assert "Settings (name=value)" in nasdet(*words, "--help").stdout


def test_every_module_comes_from_the_wheel(nasdet):
    code = (
        "import sys, runpy\n"
        "sys.path.insert(0, sys.argv[1] + '/nasdet')\n"
        "import train_detector, search.study.study, detection.engine.train\n"
        "print(*(m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)),\n"
        "      sep='\\n')\n"
    )
    files = nasdet("-c", code, str(nasdet.target), command=(sys.executable,)).stdout.splitlines()
    checkout = [
        file for file in files for name in SOURCES if file.startswith(str(ROOT / name) + os.sep)
    ]
    assert not checkout
    assert str(nasdet.target / "nasdet" / "_cli.py") in files
    assert str(nasdet.target / "detection" / "engine" / "train.py") in files


def test_data_training_prediction_and_comparison_in_an_empty_folder(nasdet):
    sizes = {
        "search_train": 8, "search_val": 8, "pretrain_train": 8, "pretrain_val": 8,
        "detection_train": 12, "detection_val": 4,
    }  # fmt: skip
    nasdet("make-shapes", *(f"shapes.num_{name}={number}" for name, number in sizes.items()))
    small = ("recipe=smoke", "recipe.iterations=6", "backbone=nasnet_a:1@96")
    nasdet("train-detector", *small, "accelerator=cpu")
    weights = nasdet.folder / "runs" / "detector" / "detector.safetensors"
    assert weights.is_file()
    nasdet("predict", f"weights={weights}", "images=data/shapes/detection/val", "out=runs/predict")
    assert len(json.loads((nasdet.folder / "runs/predict/predictions.json").read_text())) == 4
    done = nasdet(
        "compare-backbones",
        "backbones=[nasnet_a:1@96,timm:lcnet_035]",
        "recipe@training.recipe=smoke",
        "out=runs/compared",
    )
    assert "timm:lcnet_035" in done.stdout
    assert len(json.loads((nasdet.folder / "runs/compared/comparison.json").read_text())) == 2


STAGES = """
sizes = dict.fromkeys(
    ("num_search_train", "num_search_val", "num_pretrain_train", "num_pretrain_val"), 8
)
make_shapes(ShapesConfig(**sizes, num_detection_train=12, num_detection_val=4), "data/shapes")
recipe = DetectorRecipe.preset("smoke", iterations=6)
arguments = {"size": "small", "recipe": recipe, "accelerator": "cpu"}
data = "data/shapes/detection"
trained = train_detector("nasnet_a:1@96", data, out="runs/python", **arguments)
detections = load_predictor(trained.path, score_threshold=0.0)(f"{data}/val/000001.png")
print("boxes", detections.boxes.shape[1], len(detections.names) == len(detections))
specs = ["nasnet_a:1@96", "timm:lcnet_035"]
results = compare_backbones(specs, data, out="runs/python_compared", **arguments)
print("compared", *(result.name for result in results))
"""


def test_the_same_through_the_python_api(nasdet):
    imports = """
from detection import (
    DetectorRecipe, Predictor, ShapesConfig, compare_backbones, make_shapes, train_detector
)
load_predictor = Predictor.load
"""
    done = nasdet("-c", imports + STAGES, command=(sys.executable,))
    assert "boxes 4 True\ncompared nasnet_a:1@96 timm:lcnet_035\n" in done.stdout
    assert (nasdet.folder / "runs/python/detector.safetensors").is_file()


def test_the_same_through_torch_hub(nasdet):
    imports = f"""
import functools, torch
def entry(name):
    return functools.partial(torch.hub.load, {str(ROOT)!r}, name, source="local")
ShapesConfig, make_shapes = entry("shapes_config"), entry("make_shapes")
load_predictor, train_detector = entry("predictor"), entry("train_detector")
compare_backbones = entry("compare_backbones")
class DetectorRecipe:
    preset = staticmethod(entry("detector_recipe"))
"""
    done = nasdet("-c", imports + STAGES.replace("runs/python", "runs/hub"),
                  command=(sys.executable,), PYTHONPATH="")  # fmt: skip
    assert "boxes 4 True\ncompared nasnet_a:1@96 timm:lcnet_035\n" in done.stdout
    assert (nasdet.folder / "runs/hub/detector.safetensors").is_file()
