"""Base classes of the loggers and of their settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


@dataclass(kw_only=True, slots=True)
class LoggerConfig:
    """Settings of a logger; the base class logs nothing."""


class LightningRunLogger:
    """A run's logger that wraps one of Lightning's; it drops images.

    Args:
        lightning: the logger that trainings log to.
    """

    def __init__(self, lightning: Logger) -> None:
        self.lightning = lightning

    def log_settings(self, settings: Mapping[str, Any]) -> None:
        """Log the settings of the run."""
        self.lightning.log_hyperparams(dict(settings))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics by name."""
        self.lightning.log_metrics(dict(metrics), step)

    def log_images(self, name: str, paths: Sequence[Path]) -> None:
        """Log image files under one name."""

    def close(self) -> None:
        """Write everything that is still buffered and end the run."""
        self.lightning.save()
        self.lightning.finalize("success")
