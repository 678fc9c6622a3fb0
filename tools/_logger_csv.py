"""Logger that writes a CSV file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from _logger_base import LightningRunLogger, LoggerConfig


@dataclass(kw_only=True, slots=True)
class CsvLoggerConfig(LoggerConfig):
    """Log to ``log/version_N/metrics.csv`` in the run's folder; N counts the starts of the run."""


class CsvRunLogger(LightningRunLogger):
    """Lightning's CSV logger."""

    def __init__(self, config: CsvLoggerConfig, out: Path) -> None:
        from lightning.pytorch.loggers import CSVLogger

        super().__init__(CSVLogger(save_dir=out, name="log"))
