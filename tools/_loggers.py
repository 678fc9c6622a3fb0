"""Loggers of a run: the interface, the table of choices, and their construction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from omegaconf import DictConfig, OmegaConf

from _logger_base import LoggerConfig
from _logger_csv import CsvLoggerConfig
from _logger_mlflow import MlflowLoggerConfig
from _logger_wandb import WandbLoggerConfig
from backbone.config import Choice, find_choice

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.loggers import Logger

ItemT = TypeVar("ItemT")


class RunLogger(Protocol):
    """Interface of a run's logger; ``LightningRunLogger`` implements it but for images."""

    @property
    def lightning(self) -> Logger:
        """The logger that trainings log to."""

    def log_settings(self, settings: Mapping[str, Any]) -> None:
        """Log the settings of the run."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics by name."""

    def log_images(self, name: str, paths: Sequence[Path]) -> None:
        """Log image files under one name."""

    def close(self) -> None:
        """Write everything that is still buffered and end the run."""


LOGGERS: Mapping[str, Choice] = {
    "csv": Choice(CsvLoggerConfig, "_logger_csv:CsvRunLogger"),
    "wandb": Choice(WandbLoggerConfig, "_logger_wandb:WandbRunLogger"),
    "mlflow": Choice(MlflowLoggerConfig, "_logger_mlflow:MlflowRunLogger"),
}
"""Name -> settings and class, which is constructed from the settings and the run's folder."""


def build_loggers(
    config: LoggerConfig, out: Path, *, settings: DictConfig | None = None
) -> Sequence[RunLogger]:
    """Create the logger that a config selects, if any; only the first process logs.

    Args:
        config: settings of the logger; of type ``LoggerConfig`` itself, nothing is logged.
        out: the run's folder.
        settings: the settings to log.

    Raises:
        ImportError: if the logger's library is not installed; the message tells what to install.
    """
    if type(config) is LoggerConfig:
        return ()
    logger: RunLogger = find_choice(LOGGERS, config).load()(config, out)
    if settings is not None:
        logger.log_settings(OmegaConf.to_container(settings, resolve=True))  # type: ignore[arg-type]
    return (logger,)


def close_loggers(loggers: Sequence[RunLogger]) -> None:
    """Close all loggers."""
    for logger in loggers:
        logger.close()


class LazySequence(Sequence[ItemT]):
    """A sequence whose items are created when it is first accessed."""

    def __init__(self, create: Callable[[], Sequence[ItemT]]) -> None:
        self._items = cache(create)

    def __len__(self) -> int:
        return len(self._items())

    def __getitem__(self, index: Any) -> Any:
        return self._items()[index]


def named_bar(name: str, *, position: int = 0) -> Callback:
    """Return a training's progress bar that shows a name, on the line ``position``."""
    from backbone.training.trainer import TrainingBar

    class NamedBar(TrainingBar):
        def get_metrics(self, *arguments: Any) -> dict[str, Any]:
            metrics = super().get_metrics(*arguments)
            metrics.pop("v_num", None)
            return {"of": name, **metrics}

    return NamedBar(process_position=position)
