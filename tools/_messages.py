"""Hydra's and OmegaConf's error messages, rewritten as one sentence each.

The patterns follow the wording of Hydra 1.3 and OmegaConf 2.3; each has a test.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

FOREIGN_SETTINGS: Mapping[str, Sequence[str]] = {
    "model": ("backbone", "weights"),
    "epochs": ("recipe.epochs", "recipe.iterations"),
    "steps": ("recipe.iterations",),
    "max_iter": ("recipe.iterations",),
    "imgsz": ("data.shortest_side_px", "recipe.image_side_px", "shortest_sides_px", "side_px"),
    "batch": ("recipe.batch_size", "batch_size"),
    "batch_size": ("recipe.batch_size",),
    "lr": ("recipe.learning_rate",),
    "lr0": ("recipe.learning_rate",),
    "device": ("accelerator",),
    "workers": ("num_workers",),
    "name": ("out",),
    "project": ("out",),
    "source": ("images",),
    "conf": ("score_threshold",),
    "format": ("source_format",),
    "data_root": ("data.root",),
    "root": ("data.root", "data_root"),
    "iterations": ("recipe.iterations",),
}
"""Name that a setting has in other programs -> its names here, one of which a tool may have."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The names that a tool's command line accepts, and those that it used to accept."""

    tool: str
    """The tool's name."""
    settings: Callable[[], Sequence[str]]
    """Return the dotted names of all settings."""
    options: Callable[[str], Sequence[str]]
    """Return the names of a config group's options that fit the tool."""
    renamed_settings: Mapping[str, str] = field(default_factory=dict)
    """Former name of a setting, without the prefix of its group -> current name."""
    renamed_choices: Mapping[str, str] = field(default_factory=dict)
    """Former ``group=option`` or ``setting=value`` -> current one."""

    def current_setting(self, name: str) -> str | None:
        """Return the current name of a renamed setting; None if it was not renamed."""
        current = ".".join(self.renamed_settings.get(part, part) for part in name.split("."))
        if current == name:
            return None
        settings = self.settings()
        if any(s == current or s.startswith(f"{current}.") for s in settings):
            return current
        # The name may lack its group: rpn_batch instead of detector.rpn_batch.
        in_groups = [setting for setting in settings if setting.endswith(f".{current}")]
        return in_groups[0] if len(in_groups) == 1 else None


def refuse_renamed_choice(override: str, vocabulary: Vocabulary) -> None:
    """Raise a ValueError if an override is a choice under its former name."""
    name, _, value = override.partition("=")
    former = f"{name.partition('@')[0].rpartition('.')[2]}={value}"
    current = vocabulary.renamed_choices.get(former)
    if current is not None:
        value_now = current.partition("=")[2]
        raise ValueError(f"{vocabulary.tool}'s choice {override} is now {name}={value_now}")


def to_sentence(message: str, vocabulary: Vocabulary) -> str:
    """Rewrite a message of Hydra or OmegaConf, several lines long, as one sentence."""
    for pattern, rewrite in _REWRITES:
        if match := re.search(pattern, message):
            return rewrite(match, vocabulary)
    return _plain(message, vocabulary)


def _unknown_setting(match: re.Match[str], vocabulary: Vocabulary) -> str:
    tool, name = vocabulary.tool, match[1]
    if current := vocabulary.current_setting(name):
        return f"{tool}'s setting {name!r} is now {current!r}"
    settings = vocabulary.settings()
    near = [s for s in FOREIGN_SETTINGS.get(name, ()) if s in settings]
    near = near or difflib.get_close_matches(name, settings, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "; --help lists them"
    return f"{tool} has no setting {name!r}{hint}"


def _unknown_option(match: re.Match[str], vocabulary: Vocabulary) -> str:
    group, option = match.groups()
    options = list(vocabulary.options(group))
    is_path = "/" in option or "." in option
    root = f"{group}.root"
    hint = f"; a folder goes into {root}=..." if is_path and root in vocabulary.settings() else ""
    return f"there is no {group}={option}; choose from {options}{hint}"


def _unfit_option(match: re.Match[str], vocabulary: Vocabulary) -> str:
    group, option, key = match.groups()
    if current := vocabulary.renamed_settings.get(key):
        return f"{group}={option} sets {key!r}, which is now {current!r}"
    return f"{group}={option} is not for {vocabulary.tool}, which has no setting {key!r}"


def _wrong_value(match: re.Match[str], vocabulary: Vocabulary) -> str:
    override, reason = match[1].strip(), match.string[match.end() :]
    if re.match(r"\w+ is not a ListConfig", reason):
        name, _, value = override.partition("=")
        return f"{name} takes a list: {name}=[{value}]"
    return _plain(f"{override}: {reason}", vocabulary)


def _plain(message: str, vocabulary: Vocabulary) -> str:
    lines = itertools.takewhile(
        lambda line: line and not line.startswith(("See https:", "    ")), message.splitlines()
    )
    sentence = ": ".join(lines)
    if match := re.search(r"Key '(\w+)' not in '\w+'", sentence):
        current = vocabulary.renamed_settings.get(match[1])
        return f"{sentence}; it is now {current!r}" if current else sentence
    return sentence


_REWRITES: Sequence[tuple[str, Callable[[re.Match[str], Vocabulary], str]]] = (
    (r"Could not override '([^']+)'", _unknown_setting),
    (r"Could not find '([^/]+)/(.+)'", _unknown_option),
    (r"\AIn '(.+?)/(.+?)': .*\n?Key '(\w+)' not in", _unfit_option),
    (r"\AError merging override (.+)\s*\n(?:Invalid value assigned: )?", _wrong_value),
)
