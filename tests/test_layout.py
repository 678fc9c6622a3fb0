import importlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REPORT = runpy.run_path(str(ROOT / "tests" / "layout_report.py"))
PACKAGES = ("backbone", "search", "detection")


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_resolve_into_this_checkout(package):
    module = importlib.import_module(package)
    assert Path(module.__file__).parent == ROOT / package


def test_no_tool_shadows_a_package():
    assert not {path.stem for path in (ROOT / "tools").glob("*.py")} & set(PACKAGES)


@pytest.mark.parametrize("folder", ["tools", "conf", "tests"])
def test_folders_of_scripts_values_and_tests_are_no_packages(folder):
    assert not list((ROOT / folder).rglob("__init__.py"))


def test_importing_the_packages_brings_in_neither_hydra_nor_wandb_nor_detectron2():
    code = (
        "import sys, backbone.training.pretrain, search.study.study, detection.engine.train; "
        "print([m for m in ('hydra', 'omegaconf', 'wandb', 'detectron2') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_every_tool_checks_its_settings_before_torch_is_loaded():
    code = (
        "import sys, all_tools\n"
        "for tool in all_tools.TOOLS.values():\n"
        "    tool.register()\n"
        "    tool.explain([])\n"
        "    loaded = [m for m in ('torch', 'timm', 'lightning') if m in sys.modules]\n"
        "    assert not loaded, (tool.name, loaded)\n"
    )
    folders = ("tools/research", "tools/benchmarks", "tools", "tests/tools", ".")
    path = os.pathsep.join(str(ROOT / folder) for folder in folders)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_has_more_than_fourteen_modules(package):
    assert max(REPORT["modules_per_folder"](package).values()) <= 14


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_has_an_import_cycle(package):
    assert not REPORT["import_cycles"](package)
