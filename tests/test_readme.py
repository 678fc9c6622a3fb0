"""The commands and links of README and docs are valid."""

import re
import shlex
from pathlib import Path

import pytest

import all_tools

ROOT = Path(__file__).parents[1]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands():
    """Return the lines of the pages' shell blocks as words, continuation lines joined."""
    text = "\n".join(page.read_text() for page in PAGES)
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


TOOLS = [
    pytest.param(words, id=" ".join(words)[:70])
    for words in commands()
    if any(word.startswith("tools/") for word in words)
]


def test_there_are_commands():
    assert len(TOOLS) >= 8


@pytest.mark.parametrize("words", TOOLS)
def test_every_command_names_a_tool_and_settings_that_it_has(words):
    index = next(i for i, word in enumerate(words) if word.startswith("tools/"))
    path = Path(words[index])
    assert all_tools.PATHS[path.stem] == ROOT / path
    settings = list(all_tools.TOOLS[path.stem].name_arguments(words[index + 1 :]))
    if settings[:1] == ["--multirun"]:  # its lists of values are one value each here
        settings = [re.sub(r",.*", "", setting) for setting in settings[1:]]
    assert all_tools.settings(path.stem, *settings).out


def test_every_make_target_is_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    targets = [words[1] for words in commands() if words and words[0] == "make"]
    assert targets
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_is_linked_to_exists(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing
