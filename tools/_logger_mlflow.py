"""Logger for MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from _logger_base import LightningRunLogger, LoggerConfig

if TYPE_CHECKING:
    from lightning.pytorch.loggers import MLFlowLogger


@dataclass(kw_only=True, slots=True)
class MlflowLoggerConfig(LoggerConfig):
    """Log to MLflow."""

    experiment: str = "nasdet"
    """Name of the MLflow experiment."""
    tracking_uri: str = ""
    """Address of a tracking server or database, such as ``http://host:5000``; empty: a database
    ``mlflow.db`` in the run's folder, for ``mlflow ui --backend-store-uri sqlite:///.../mlflow.db``.
    """


class MlflowRunLogger(LightningRunLogger):
    """Lightning's MLflow logger, with images as artifacts of the run."""

    lightning: MLFlowLogger

    def __init__(self, config: MlflowLoggerConfig, out: Path) -> None:
        if find_spec("mlflow") is None:
            raise ImportError(
                "logger=mlflow needs the package mlflow; install it with: pip install mlflow-skinny"
            )
        from lightning.pytorch.loggers import MLFlowLogger

        out.mkdir(parents=True, exist_ok=True)
        super().__init__(
            MLFlowLogger(
                experiment_name=config.experiment,
                run_name=str(out),
                tracking_uri=config.tracking_uri or f"sqlite:///{(out / 'mlflow.db').absolute()}",
                artifact_location=(
                    None if config.tracking_uri else (out / "mlflow").absolute().as_uri()
                ),
            )
        )

    def log_images(self, name: str, paths: Sequence[Path]) -> None:
        for path in paths:
            self.lightning.experiment.log_artifact(self.lightning.run_id, str(path), name)
