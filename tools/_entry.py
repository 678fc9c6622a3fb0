"""How every tool begins: it explains its settings, or refuses wrong ones in one sentence."""

from __future__ import annotations

import ast
import difflib
import inspect
import itertools
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from _choices import RENAMED_CHOICES, RENAMED_SETTINGS
from _messages import Vocabulary, refuse_renamed_choice, to_sentence
from _schemas import register_schemas

CONFIG_DIR = Path(__file__).parents[1] / "conf"
HELP_FLAGS = ("--help", "-h")
SHORT_FORMS = {"--dry-run": "dry_run=true"}
UNNAMED = {"explain_evaluation": ("before", "after")}
"""Tool -> settings whose values may stand without their names, in this order."""
SWEEP_FLAGS = ("--multirun", "-m")
LINE_WIDTH = 100


def start_tool(main: Callable[[], None], *, about: str | None) -> None:
    """Run a tool's main function, or explain it if the command line asks for help.

    A command line that does not fit ends the process with one sentence; with
    ``HYDRA_FULL_ERROR=1`` it ends with the traceback.

    Args:
        main: decorated by ``hydra.main``; its config has the script's name.
        about: the script's docstring: one sentence and example commands.
    """
    register_schemas()
    tool, arguments = Path(sys.argv[0]).stem, sys.argv[1:]
    wants_help = any(flag in arguments for flag in HELP_FLAGS)
    is_sweep = any(flag in arguments for flag in SWEEP_FLAGS)  # values may be lists of values
    try:
        sys.argv[1:] = arguments = list(name_arguments(tool, arguments))
        overrides = [a for a in arguments if _is_override(a)]
        if wants_help:
            print(explain(tool, overrides, about=about or ""))
            return
        if not is_sweep:
            check(tool, overrides)
    except ValueError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        sys.exit(f"error: {error}")
    main()


def name_arguments(tool: str, arguments: Sequence[str]) -> Iterator[str]:
    """Yield a command line's arguments with all settings as ``name=value``.

    Raises:
        ValueError: if a value without a name is one too many, or there is no such flag.
    """
    names = iter(UNNAMED.get(tool, ()))
    known = {*SHORT_FORMS, *get_args_parser()._option_string_actions}
    for before, argument in itertools.pairwise(["", *arguments]):
        flag = argument.partition("=")[0]
        if flag.startswith("--") and flag not in known:
            near = difflib.get_close_matches(flag, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{tool} has no {flag}{hint}")
        of_flag = before.startswith("-") and before not in (*SHORT_FORMS, *SWEEP_FLAGS)
        if argument.startswith("-") or _is_override(argument) or of_flag:
            yield SHORT_FORMS.get(argument, argument)
            continue
        name = next(names, None)
        if name is None:
            raise ValueError(
                f"{tool} cannot tell what {argument!r} is for; settings are written name=value, "
                "and --help lists them"
            )
        text = argument.replace("'", "\\'")
        yield f"{name}='{text}'"


def _is_override(argument: str) -> bool:
    return not argument.startswith("-") and ("=" in argument or argument[:1] == "~")


def check(tool: str, overrides: list[str]) -> None:
    """Raise a ValueError of one sentence if a tool cannot take these overrides."""
    with _conf():
        _compose(tool, overrides)


def _conf() -> initialize_config_dir:
    return initialize_config_dir(version_base=None, config_dir=str(CONFIG_DIR))


def _compose(tool: str, overrides: list[str]) -> DictConfig:
    added = [override for override in overrides if override.startswith("+")]
    if added:
        raise ValueError(f"{tool} has all its settings; write {added[0].lstrip('+')} without '+'")
    for override in overrides:
        refuse_renamed_choice(override, _vocabulary(tool))
    try:
        return compose(tool, overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        cause = f"\n{error.__cause__}" if error.__cause__ else ""
        raise ValueError(to_sentence(f"{error}{cause}", _vocabulary(tool))) from error


def _vocabulary(tool: str) -> Vocabulary:
    return Vocabulary(
        tool=tool,
        settings=lambda: [line.strip().partition("=")[0] for line in _settings(compose(tool))],
        options=lambda group: [n for n in _options(group) if _composes(tool, [f"{group}={n}"])],
        renamed_settings=RENAMED_SETTINGS,
        renamed_choices=RENAMED_CHOICES,
    )


def explain(tool: str, overrides: list[str], *, about: str) -> str:
    """Return a tool's help: what it does, what can be chosen, and every setting in force.

    Raises:
        ValueError: if an override does not fit.
    """
    with _conf():
        config = _compose(tool, overrides)
        choices = "\n".join(_choices(tool, overrides, config.hydra.runtime.choices))
        settings = "\n".join(_settings(config))
    offered = f"Choices (group=choice), the present ones in brackets:\n{choices}\n\n"
    if not choices:
        offered = ""
    return f"""{about.strip()}

{offered}Settings (name=value), with their present values; a choice before --help shows its own:
{settings}

`--cfg job` prints all values as YAML, `--multirun` runs once for each of name=value,value;
`--hydra-help` lists what else every tool can be told. HYDRA_FULL_ERROR=1 shows tracebacks."""


def _choices(tool: str, overrides: list[str], present: DictConfig) -> Iterator[str]:
    """Yield a line per group with the choices that fit this tool."""
    for group, chosen in sorted((str(group), chosen) for group, chosen in present.items()):
        if group.startswith("hydra/"):
            continue
        own = [o for o in overrides if o.partition("=")[0] != group]
        fitting = [
            name
            for name in _options(group.partition("@")[0])
            if name == chosen or _composes(tool, [*own, f"{group}={name}"])
        ]
        if fitting:
            words = (f"[{name}]" if name == chosen else name for name in fitting)
            yield f"  {group}: {', '.join(words)}"


def _options(group: str) -> list[str]:
    names = GlobalHydra.instance().config_loader().get_group_options(group)
    return [name for name in names if not name.endswith("_schema")]


def _composes(tool: str, overrides: list[str]) -> bool:
    try:
        compose(tool, overrides)
    except (HydraException, OmegaConfBaseException):
        return False
    return True


def _settings(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield every leaf's name and value, with what its dataclass says of it below."""
    kind = OmegaConf.get_type(config)
    meanings = _meanings(kind) if kind is not None and is_dataclass(kind) else {}
    for key in config:
        name = str(key)
        if name == "hydra":
            continue
        child: Any = config._get_node(name)  # a leaf as it is written: missing or interpolated
        if isinstance(child, DictConfig) and not child._is_none() and len(child):
            yield from _settings(child, f"{prefix}{name}.")
            continue
        value = OmegaConf.to_yaml({name: child}).partition(":")[2].strip()
        if isinstance(child, ListConfig) and len(child):  # which the command line wants in brackets
            # Hydra reads no quotes around the keys of a dict.
            entries = (str(entry).replace("'", "") for entry in config[name])
            value = f"[{','.join(entries)}]"
        yield f"  {prefix}{name}={value}"
        yield textwrap.fill(
            meanings.get(name, ""), LINE_WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6
        )


@cache
def _meanings(kind: type) -> dict[str, str]:
    """Return the docstrings below a dataclass's fields, inherited ones too."""
    meanings: dict[str, str] = {}
    for cls in reversed(kind.__mro__):
        if not is_dataclass(cls):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                assert isinstance(field.target, ast.Name)
                words = ast.literal_eval(text.value).split()
                meanings[field.target.id] = " ".join(words).replace("``", "`")
    return meanings
