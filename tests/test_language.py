"""Names, docstrings and pages use the field's words."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from backbone.config import RENAMED_SETTINGS as BACKBONE_SETTINGS
from detection.config import RENAMED_SETTINGS as DETECTION_SETTINGS
from search.config import RENAMED_SETTINGS as SEARCH_SETTINGS

ROOT = Path(__file__).parents[1]
PACKAGES = ("backbone", "search", "detection", "tools")
FORMER_NAMES = {"found", "places", "share", "told", "about"}
FORMER_SETTING = r"""[`"]rivals[`"](: "baselines"| \| `baselines`)"""
ODD_PHRASES = re.compile(
    r"\b(manieth|surest|rivals?|not to be had|needs it not|the road|goes on from"
    r"|dear (one|reward))\b"
)


def tracked(*folders):
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


MODULES = [path for path in tracked(*PACKAGES, "tests", "setup.py") if path.suffix == ".py"]
PAGES = [
    path
    for path in tracked(*PACKAGES, "conf", "docs", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")
    if path.suffix in (".py", ".yaml", ".md")
]


def texts(tree):
    """The docstrings of modules, classes and functions, and the strings under fields."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            value = getattr(statement, "value", None)
            if isinstance(statement, ast.Expr) and isinstance(value, ast.Constant):
                yield statement.lineno, value.value


def names(tree):
    """All identifiers of a module: variables, arguments, attributes, keywords, functions."""
    for node in ast.walk(tree):
        for member in ("id", "arg", "attr", "name", "asname"):
            name = getattr(node, member, None)
            if isinstance(name, str):
                yield getattr(node, "lineno", 0), name


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_start_with_a_verb_or_a_noun_phrase(package):
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {text[:60]!r}"
        for path in MODULES
        if path.relative_to(ROOT).parts[0] == package
        for line, text in texts(ast.parse(path.read_text()))
        if isinstance(text, str) and text.startswith(("What ", "Of "))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_identifiers_are_not_words_of_our_own(package):
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in MODULES
        if path.relative_to(ROOT).parts[0] == package
        for line, name in names(ast.parse(path.read_text()))
        if name in FORMER_NAMES
    ]
    assert not wrong, "say what the value is, e.g. detections, indices:\n" + "\n".join(wrong)


def test_settings_are_not_words_of_our_own():
    wrong = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in tracked("conf", *PACKAGES)
        if path.suffix == ".yaml"
        for line in path.read_text().splitlines()
        if line.split(":")[0].strip() in FORMER_NAMES
    ]
    assert not wrong, "\n".join(wrong)


def test_code_settings_and_pages_have_no_odd_phrases():
    """But for former names of settings, which are listed with the current ones."""
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in PAGES
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if ODD_PHRASES.search(re.sub(FORMER_SETTING, "", line))
    ]
    assert not wrong, "\n".join(wrong)


def test_the_changelog_lists_every_renamed_setting():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    rows = dict(re.findall(r"\| `([^`]+)` \| `([^`]+)`", changelog))
    for former, current in {**BACKBONE_SETTINGS, **DETECTION_SETTINGS, **SEARCH_SETTINGS}.items():
        assert rows.get(former) == current
