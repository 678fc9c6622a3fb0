"""Every exported name exists; importing the packages loads no torch."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("backbone", "search", "detection")
CONFIGS = {
    "backbone": ["Genotype", "ClassifierRecipe"],
    "search": ["SearchConfig", "StrategyConfig", "SpaceConfig", "RewardConfig"],
    "detection": ["DetectorRecipe", "DetectionDataConfig", "DetectorConfig", "ShapesConfig"],
}


@pytest.mark.parametrize(
    ("package", "name"),
    [(package, name) for package in PACKAGES for name in import_module(package).__all__],
)
def test_every_exported_name_is_there(package, name):
    value = getattr(import_module(package), name)
    assert getattr(value, "__name__", name) == name


@pytest.mark.parametrize("package", PACKAGES)
def test_the_exports_for_type_checkers_are_those_at_run_time(package):
    text = (ROOT / package / "__init__.py").read_text()
    typed = text.partition("if TYPE_CHECKING:")[2].partition("else:")[0]
    names = {
        name.strip(" (),")
        for line in typed.splitlines()
        for name in line.partition(" import ")[2].split(",") or [line]
    }
    exported = set(import_module(package).__all__)
    assert names - {""} == exported
    assert set(import_module(package)._MODULES) == exported


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_and_its_configs_loads_no_torch(package):
    names = ", ".join(CONFIGS[package])
    code = f"import sys; from {package} import {names}; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "False\n"


@pytest.mark.parametrize("package", PACKAGES)
def test_completion_in_a_shell_offers_the_exports(package):
    assert dir(import_module(package)) == sorted(import_module(package).__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_an_unknown_name_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match=f"'{package}' has no attribute 'everything'"):
        _ = import_module(package).everything
