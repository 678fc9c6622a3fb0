"""What every tool does around its one job: plain errors, run folder, loggers."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.loggers import Logger

USER_ERRORS = (ValueError, OSError, ImportError, FloatingPointError)
"""What a user can get wrong, or a machine; anything else is a bug and shows its traceback."""


@dataclass(kw_only=True, slots=True)
class LoggerConfig:
    """Where figures are logged. The subclass says; this one logs nowhere."""


@dataclass(kw_only=True, slots=True)
class CsvLoggerConfig(LoggerConfig):
    """Log to ``log/version_N/metrics.csv`` in the run's folder, N counting its starts."""


@dataclass(kw_only=True, slots=True)
class WandbLoggerConfig(LoggerConfig):
    """Log to Weights & Biases."""

    project: str = "nasdet"
    """Name of the project there."""
    mode: str = "auto"
    """``online``, ``offline`` (to a folder, for ``wandb sync``), or ``auto``: online if an account
    is set up on this machine."""

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "online", "offline"):
            raise ValueError(f"unknown mode {self.mode!r}; choose auto, online or offline")


@contextmanager
def plain_errors() -> Iterator[None]:
    """Say what the user got wrong in one sentence and exit with 1.

    ``HYDRA_FULL_ERROR=1`` shows the traceback instead.
    """
    try:
        yield
    except USER_ERRORS as error:
        # An ImportError with a name is Python's own and a bug; ours, which say what to install,
        # have none.
        is_bug = isinstance(error, ImportError) and error.name is not None
        if is_bug or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        # An OSError's own text starts with its number, which tells a user nothing.
        text = (error.strerror if isinstance(error, OSError) else None) or str(error)
        filename = getattr(error, "filename", None)
        if filename and str(filename) not in text:
            text = f"{text}: {filename}"
        for bar in list(getattr(tqdm, "_instances", [])):
            bar.close()  # or the message stands behind it, and it is drawn once more below
        print(f"error: {' '.join(text.split())}", file=sys.stderr)
        sys.exit(1)


@dataclass(kw_only=True)
class Run:
    """One run of a tool: what it was told, its folder, its loggers."""

    settings: Any
    """The typed config."""
    out: Path
    """The run's folder."""
    config: DictConfig
    loggers: Sequence[Logger] = ()
    """They and ``config.yaml`` come to be when they are first looked at, so that a run that is
    refused leaves an earlier one in the same folder as it is."""

    def record(self) -> None:
        """Write ``config.yaml``; say if the folder held a run of another config."""
        from backbone.io.files import write_text
        from backbone.io.runtime import global_rank

        if global_rank() != 0:
            return
        path, text = self.out / "config.yaml", OmegaConf.to_yaml(self.config, resolve=True)
        if path.is_file() and path.read_text(encoding="utf-8") != text:
            print(f"{self.out} holds a run with other settings; its files are replaced")
        write_text(path, text)

    def finish(self) -> None:
        """Write what is still held back."""
        finish_loggers(self.loggers)
        self.record()


class LateLoggers(Sequence["Logger"]):
    """Loggers that are made when they are first looked at."""

    def __init__(self, make: Callable[[], Sequence[Logger]]) -> None:
        self._make = cache(make)

    def __len__(self) -> int:
        return len(self._make())

    def __getitem__(self, index: Any) -> Any:
        return self._make()[index]


def start_run(config: DictConfig) -> Run:
    """Return the run of a config; nothing is written yet.

    With ``--multirun`` every job has a numbered folder of its own.

    Raises:
        ValueError: if a setting without a default was not given.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ValueError(f"give {' '.join(f'{name}=...' for name in missing)}")
    settings: Any = OmegaConf.to_object(config)
    out = Path(settings.out)
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        out /= str(hydra.job.num)
        settings.out = str(out)
    # Both libraries announce changes of their own that a user can do nothing about.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    run = Run(settings=settings, out=out, config=config)
    if hasattr(settings, "logger"):

        def make() -> Sequence[Logger]:
            run.record()
            return build_loggers(settings.logger, out, settings=config)

        run.loggers = LateLoggers(make)
    return run


def build_loggers(
    config: LoggerConfig, out: Path, *, settings: DictConfig | None = None
) -> Sequence[Logger]:
    """Make the loggers that a config asks for; only the first process logs."""
    import lightning.pytorch  # noqa: F401  # sets its logging level when imported

    # Which devices there are not, and advertisements.
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    match config:
        case WandbLoggerConfig():
            logger = _wandb_logger(config, out)
        case CsvLoggerConfig():
            from lightning.pytorch.loggers import CSVLogger

            logger = CSVLogger(save_dir=out, name="log")
        case _:
            return ()
    if settings is not None:
        logger.log_hyperparams(OmegaConf.to_container(settings, resolve=True))  # type: ignore[arg-type]
    return (logger,)


def named_bar(name: str, *, lane: int = 0) -> Callback:
    """Return a training's progress bar that says of what it is, in the ``lane``-th line."""
    from lightning.pytorch.callbacks import TQDMProgressBar

    class NamedBar(TQDMProgressBar):
        def get_metrics(self, *arguments: Any) -> dict[str, Any]:
            metrics = super().get_metrics(*arguments)
            metrics.pop("v_num", None)
            return {"of": name, **metrics}

    return NamedBar(refresh_rate=5, process_position=lane)


def log_images(loggers: Sequence[Logger], name: str, paths: Sequence[Path]) -> None:
    """Show picture files wherever pictures can be logged."""
    for logger in loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(name, [str(path) for path in paths])


def finish_loggers(loggers: Sequence[Logger]) -> None:
    """Write what is still held back."""
    for logger in loggers:
        logger.save()
        logger.finalize("success")
        if hasattr(logger, "log_image"):  # wandb's, which keeps its run open
            logger.experiment.finish()  # type: ignore[attr-defined]


def _wandb_logger(config: WandbLoggerConfig, out: Path) -> Logger:
    try:
        metadata.version("wandb")
    except metadata.PackageNotFoundError:
        raise ImportError(
            "logger=wandb needs the package wandb; install it with: pip install wandb"
        ) from None
    from lightning.pytorch.loggers import WandbLogger

    offline = config.mode == "offline" or (config.mode == "auto" and not _has_wandb_account())
    return WandbLogger(name=str(out), project=config.project, save_dir=out, offline=offline)


def _has_wandb_account() -> bool:
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"] == "online"
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path.home() / ".netrc"
    return netrc.is_file() and "api.wandb.ai" in netrc.read_text(errors="replace")
