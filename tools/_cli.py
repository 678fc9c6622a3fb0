"""Command-line interface of the tools: settings, help, one-sentence errors and run folders.

A tool is one file: a docstring with commands to run, a dataclass ``Args`` and a function ``main``
decorated by ``@tool(Args)``. Its YAML is ``conf/NAME.yaml`` and starts from ``NAME_schema``.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from _choices import CONFIG_DIR, RENAMED_CHOICES, RENAMED_SETTINGS, register_choices
from _help import choice_lines, setting_lines, setting_names
from _loggers import LazySequence, RunLogger, build_loggers, close_loggers
from _messages import Vocabulary, refuse_renamed_choice, to_sentence
from _options import chosen_options, fitting_options
from _output import log_to_stderr, print_error, print_json, print_line, stdout_as_stderr
from backbone.io.runtime import global_rank
from search.study.config import SearchError

HYDRA_SETTINGS = (
    "hydra.run.dir=.",
    "hydra.sweep.dir=.",
    "hydra.sweep.subdir=.",
    "hydra.output_subdir=null",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
)
"""A tool writes to ``out`` and logs to standard error; Hydra's own folders and logs are off."""
HELP_FLAGS = ("--help", "-h")
JSON_FLAG = "--json"
SHORT_FORMS = {"--dry-run": "dry_run=true"}
SWEEP_FLAGS = ("--multirun", "-m")
USER_ERRORS = (ValueError, OSError, ImportError, FloatingPointError, SearchError)
"""Errors caused by the user or the machine; any other is a bug and shows its traceback."""

ArgsT = TypeVar("ArgsT")


@dataclass(kw_only=True)
class Run(Generic[ArgsT]):
    """One run of a tool: its settings, folder and loggers."""

    args: ArgsT
    """The typed settings."""
    out: Path
    """The run's folder."""
    config: DictConfig
    """The same settings as Hydra composed them."""
    loggers: Sequence[RunLogger] = ()
    """Created, with ``config.yaml``, when they are first accessed, so that a run that is refused
    leaves an earlier one in the same folder untouched."""
    figures: dict[str, Any] = field(default_factory=dict)
    """Results of the run by name, for ``--json``."""

    def report(self, **figures: Any) -> None:
        """Add results for ``--json``: figures, paths, and containers and dataclasses of these."""
        self.figures |= figures

    @property
    def trainer_loggers(self) -> Sequence[Any]:
        """The same loggers as Lightning's trainer takes them, created as late."""
        return LazySequence(lambda: [logger.lightning for logger in self.loggers])

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics to all loggers."""
        for logger in self.loggers:
            logger.log_metrics(metrics, step)

    def log_images(self, name: str, paths: Sequence[Path]) -> None:
        """Log image files to all loggers that take images."""
        for logger in self.loggers:
            logger.log_images(name, paths)

    def record(self) -> None:
        """Write ``config.yaml``; report it if the folder held a run with other settings."""
        from backbone.io.files import write_text

        if global_rank() != 0:
            return
        path, text = self.out / "config.yaml", OmegaConf.to_yaml(self.config, resolve=True)
        if path.is_file() and path.read_text(encoding="utf-8") != text:
            print(f"{self.out} holds a run with other settings; its files are replaced")
        write_text(path, text)

    def finish(self) -> None:
        """Close the loggers and write ``config.yaml``."""
        close_loggers(self.loggers)
        self.record()


def start_run(config: DictConfig) -> Run[Any]:
    """Return the run of a composed config; nothing is written yet.

    With ``--multirun`` every job has a numbered folder of its own.

    Raises:
        ValueError: if a setting without a default is missing.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ValueError(f"give {' '.join(f'{name}=...' for name in missing)}")
    args: Any = OmegaConf.to_object(config)
    out = Path(args.out)
    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN:
        out /= str(hydra_config.job.num)
        args.out = str(out)
        if global_rank() == 0:
            print_line(f"job {hydra_config.job.num}", " ".join(hydra_config.overrides.task))
    # Lightning and torch announce changes of their own that a user can do nothing about.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    run = Run(args=args, out=out, config=config)
    if hasattr(args, "logger"):

        def create() -> Sequence[RunLogger]:
            run.record()
            return build_loggers(args.logger, out, settings=config)

        run.loggers = LazySequence(create)
    return run


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Print a user's error as one sentence and exit with status 1.

    ``HYDRA_FULL_ERROR=1`` shows the traceback instead.
    """
    try:
        yield
    except USER_ERRORS as error:
        # An ImportError with a name is Python's own and a bug; ours, which tell what to install,
        # have none.
        is_bug = isinstance(error, ImportError) and error.name is not None
        if is_bug or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        # An OSError's own text starts with its number, which does not help a user.
        text = (error.strerror if isinstance(error, OSError) else None) or str(error)
        filename = getattr(error, "filename", None)
        if filename and str(filename) not in text:
            text = f"{text}: {filename}"
        print_error(text)
        sys.exit(1)


def refuse_bad_flags(flags: Sequence[str]) -> None:
    """Raise a ValueError of one sentence if Hydra's parser does not take these flags."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ValueError(f"{message}; --hydra-help lists the flags")

    parser.error = refuse  # type: ignore[method-assign]
    parser.parse_args(flags)


def fail(sentences: Sequence[str]) -> NoReturn:
    """Print errors, one sentence each, and exit with status 1, after all that could be done."""
    for sentence in sentences:
        print_error(sentence)
    sys.exit(1)


@dataclass(frozen=True, kw_only=True)
class Tool(Generic[ArgsT]):
    """A command-line tool; calling it runs the process's command line."""

    name: str
    """Name of its file and of its config."""
    args: type[ArgsT]
    """The dataclass of its settings."""
    main: Callable[[Run[ArgsT]], None]
    """Does the tool's one job."""
    description: str
    """Description of the tool and example commands, for ``--help``."""
    unnamed: Sequence[str] = ()
    """Settings whose values may be given without their names, in this order."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Former names of its own settings -> current ones."""

    def __call__(self) -> None:
        """Run the tool with the process's arguments, or print its help.

        A command line that does not fit ends the process with one sentence; with
        ``HYDRA_FULL_ERROR=1``, with the traceback.
        """
        self.register()
        log_to_stderr()
        with exit_on_user_error():
            arguments = list(self.name_arguments(a for a in sys.argv[1:] if a != JSON_FLAG))
            overrides = [a for a in arguments if _is_override(a)]
            if any(flag in arguments for flag in HELP_FLAGS):
                print(self.explain(overrides))
                return
            # argparse takes all overrides in one piece.
            flags = [argument for argument in arguments if argument not in overrides]
            refuse_bad_flags(flags)
            # In a sweep a value may be a list of values, which Hydra takes apart later.
            if not any(flag in arguments for flag in SWEEP_FLAGS):
                self.check(overrides)
        wants_json = JSON_FLAG in sys.argv[1:]
        sys.argv[1:] = [*flags, *HYDRA_SETTINGS, *overrides]

        @functools.wraps(self.main)  # Hydra names the job after the file of the wrapped function
        def run(config: DictConfig) -> None:
            with exit_on_user_error():
                if wants_json:
                    self.print_figures(config)
                else:
                    self.main(start_run(config))

        hydra.main(version_base=None, config_path=str(CONFIG_DIR), config_name=self.name)(run)()

    def print_figures(self, config: DictConfig) -> None:
        """Run the tool and print its figures as JSON; all else goes to standard error."""
        with stdout_as_stderr():
            run: Run[ArgsT] = start_run(config)
            self.main(run)
        if global_rank() == 0:
            print_json({"tool": self.name, "out": run.out, **run.figures})

    def register(self) -> None:
        """Register the tool's schema and all choices with Hydra."""
        register_choices()
        ConfigStore.instance().store(name=f"{self.name}_schema", node=self.args)

    def name_arguments(self, arguments: Iterable[str]) -> Iterator[str]:
        """Yield a command line's arguments with all settings as ``name=value``.

        Raises:
            ValueError: if a value has no name and none is expected, or a flag is unknown.
        """
        names = iter(self.unnamed)
        known = {JSON_FLAG, *SHORT_FORMS, *get_args_parser()._option_string_actions}
        for previous, argument in itertools.pairwise(["", *arguments]):
            flag = argument.partition("=")[0]
            if flag.startswith("--") and flag not in known:
                near = difflib.get_close_matches(flag, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                hint = hint or "; settings are written name=value"
                raise ValueError(f"{self.name} has no {flag}{hint}")
            of_flag = previous.startswith("-") and previous not in (*SHORT_FORMS, *SWEEP_FLAGS)
            if argument.startswith("-") or _is_override(argument) or of_flag:
                yield SHORT_FORMS.get(argument, argument)
                continue
            name = next(names, None)
            if name is None:
                raise ValueError(
                    f"{self.name} does not take the argument {argument!r}; settings are written "
                    "name=value, and --help lists them"
                )
            text = argument.replace("'", "\\'")
            yield f"{name}='{text}'"

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Return the config that overrides give, with Hydra's own below ``hydra``.

        Raises:
            ValueError: if the tool does not take them; the message is one sentence.
        """
        added = [override for override in overrides if override.startswith("+")]
        if added:
            raise ValueError(
                f"{self.name} already has all its settings; write {added[0].lstrip('+')} without "
                "'+'"
            )
        vocabulary = self._vocabulary()
        for override in overrides:
            refuse_renamed_choice(override, vocabulary)
        try:
            return compose(self.name, list(overrides), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            cause = f"\n{error.__cause__}" if error.__cause__ else ""
            raise ValueError(to_sentence(f"{error}{cause}", vocabulary)) from error

    def check(self, overrides: Sequence[str]) -> None:
        """Raise a ValueError of one sentence if the tool does not take these overrides."""
        with self.config_dir():
            self.compose(overrides)

    def explain(self, overrides: Sequence[str]) -> str:
        """Return the help: the tool's purpose, its choices, and every setting with its value.

        Raises:
            ValueError: if an override does not fit.
        """
        with self.config_dir():
            config = self.compose(overrides)
            choices = "\n".join(choice_lines(config))
            settings = "\n".join(setting_lines(config))
        offered = f"Choices (group=choice), the present ones in brackets:\n{choices}\n\n"
        if not choices:
            offered = ""
        return f"""{self.description.strip()}

{offered}Settings (name=value), with their present values; a choice before --help shows its own:
{settings}

`--json` prints the results as one JSON object on standard output and all else on standard error.
`--cfg job` prints all values as YAML, `--multirun` runs once for each of name=value,value;
`--hydra-help` lists the other flags of every tool. HYDRA_FULL_ERROR=1 shows tracebacks."""

    @staticmethod
    def config_dir() -> initialize_config_dir:
        """Return a context in which Hydra composes from ``conf/``."""
        return initialize_config_dir(version_base=None, config_dir=str(CONFIG_DIR))

    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(
            tool=self.name,
            settings=lambda: list(setting_names(compose(self.name))),
            options=self._options,
            renamed_settings={**RENAMED_SETTINGS, **self.renamed},
            renamed_choices=RENAMED_CHOICES,
        )

    def _options(self, group: str) -> list[str]:
        config = compose(self.name, return_hydra_config=True)
        names = [name for name in chosen_options(config) if name.partition("@")[0] == group]
        return sorted({option for name in names for option in fitting_options(name, config)})


def tool(
    args: type[ArgsT],
    *,
    unnamed: Sequence[str] = (),
    renamed: Mapping[str, str] | None = None,
) -> Callable[[Callable[[Run[ArgsT]], None]], Tool[ArgsT]]:
    """Return a decorator that turns a function into a command-line tool named after its file.

    Args:
        args: the dataclass of the tool's settings; its module must not import torch, so that a
            command line is checked before torch is loaded. It has a field ``out``, the run's
            folder; with a field ``logger`` the run has loggers.
        unnamed: settings whose values may be given without their names, in this order.
        renamed: former names of the tool's own settings -> current ones.
    """

    def decorate(main: Callable[[Run[ArgsT]], None]) -> Tool[ArgsT]:
        return Tool(
            name=Path(main.__code__.co_filename).stem,
            args=args,
            main=main,
            description=main.__globals__.get("__doc__") or "",
            unnamed=unnamed,
            renamed=renamed or {},
        )

    return decorate


def _is_override(argument: str) -> bool:
    return not argument.startswith("-") and ("=" in argument or argument[:1] == "~")
