"""Text of ``--help``: a tool's choices and settings, explained by the docstrings of fields."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from _options import chosen_options, fitting_options

LINE_WIDTH = 100


def choice_lines(config: DictConfig) -> Iterator[str]:
    """Yield a line per config group with the options that fit, the present one in brackets.

    Args:
        config: the tool's config with Hydra's own, composed within ``Tool.config_dir``.
    """
    for group, chosen in chosen_options(config).items():
        fitting = fitting_options(group, config)
        if fitting:
            words = (f"[{name}]" if name == chosen else name for name in fitting)
            yield f"  {group}: {', '.join(words)}"


def setting_names(config: DictConfig) -> Iterator[str]:
    """Yield the dotted name of every leaf."""
    for name, _, _ in _leaves(config):
        yield name


def setting_lines(config: DictConfig) -> Iterator[str]:
    """Yield every leaf as ``name=value`` and, below it, the docstring of its field."""
    for name, value, meaning in _leaves(config):
        yield f"  {name}={value}"
        yield textwrap.fill(meaning, LINE_WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _leaves(config: DictConfig, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield every leaf's dotted name, its value as the command line takes it, and its docstring."""
    kind = OmegaConf.get_type(config)
    docstrings = _field_docstrings(kind) if kind is not None and is_dataclass(kind) else {}
    for key in config:
        name = str(key)
        if name == "hydra":
            continue
        child: Any = config._get_node(name)  # a leaf as it is written: missing or interpolated
        if isinstance(child, DictConfig) and not child._is_none() and len(child):
            yield from _leaves(child, f"{prefix}{name}.")
            continue
        value = OmegaConf.to_yaml({name: child}).partition(":")[2].strip()
        if value == "???":  # Hydra's word for a setting that must be given
            value = "(required)"
        if isinstance(child, ListConfig) and len(child):  # the command line wants brackets
            # Hydra does not accept quotes around the keys of a dict.
            entries = (str(entry).replace("'", "") for entry in config[name])
            value = f"[{','.join(entries)}]"
        yield f"{prefix}{name}", value, docstrings.get(name, "")


@cache
def _field_docstrings(kind: type) -> dict[str, str]:
    """Return the docstrings below a dataclass's fields, inherited ones too."""
    docstrings: dict[str, str] = {}
    for cls in reversed(kind.__mro__):
        if not is_dataclass(cls):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                assert isinstance(field.target, ast.Name)
                words = ast.literal_eval(text.value).split()
                docstrings[field.target.id] = " ".join(words).replace("``", "`")
    return docstrings
