"""The commands and links of README and docs are valid."""

import re
import shlex
from pathlib import Path

import pytest

import _cli
import _verbs
import all_tools

ROOT = Path(__file__).parents[1]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands():
    """Return the lines of the pages' shell blocks as words, continuation lines joined."""
    text = "\n".join(page.read_text() for page in PAGES)
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


def tool_words(words):
    """Return a command's tool and what follows it; None if it runs no tool of ours."""
    for index, word in enumerate(words):
        if word.startswith("tools/"):
            path = ROOT / word
            assert all_tools.PATHS[path.stem] == path
            return path.stem, words[index + 1 :]
        if word == "nasdet" and words[:index][-1:] in ([], ["--no-python"]):
            return verb_words(words[index + 1 :])
    return None


def verb_words(words):
    """Return the tool of a verb and what follows it; None for the command's own help."""
    if not words or words[0].startswith("-") or words[0] in _verbs.BUILT_IN:
        return None
    if words[0] not in _verbs.GROUPS:
        return _verbs.find_tool(words[0]).stem, words[1:]
    if words[1].startswith("-"):
        return None
    return _verbs.find_tool(words[1], words[0]).stem, words[2:]


TOOLS = [
    pytest.param(words, id=" ".join(words)[:70])
    for words in commands()
    if words[:1] in (["nasdet"], ["torchrun"]) or any(word.startswith("tools/") for word in words)
]


def test_there_are_commands():
    assert len(TOOLS) >= 8


@pytest.mark.parametrize("words", TOOLS)
def test_every_command_names_a_tool_and_settings_that_it_has(words):
    command = tool_words(words)
    if command is None:
        assert words[0] == "nasdet"
        return
    name, arguments = command
    settings = list(all_tools.TOOLS[name].name_arguments(arguments))
    if settings[:1] == ["--multirun"]:  # its lists of values are one value each here
        settings = [re.sub(r",.*", "", setting) for setting in settings[1:]]
    settings = [setting for setting in settings if setting not in _cli.HELP_FLAGS]
    if not {*_cli.HELP_FLAGS} & {*arguments}:  # which may lack settings that must be given
        assert all_tools.settings(name, *settings).out


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
