"""Loggers: what a run writes, lazily and with images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from _logger_base import LoggerConfig
from _logger_csv import CsvLoggerConfig
from _logger_mlflow import MlflowLoggerConfig
from _logger_wandb import WandbLoggerConfig
from _loggers import LazySequence, build_loggers, close_loggers


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "cells.png"
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(path)
    return path


def test_items_are_created_once_and_when_they_are_first_accessed():
    created = []

    def create():
        created.append("now")
        return [1, 2]

    items = LazySequence(create)
    assert not created
    assert list(items) == [1, 2]
    assert len(items) == 2
    assert created == ["now"]


def test_nothing_is_logged_without_a_logger(tmp_path):
    assert build_loggers(LoggerConfig(), tmp_path) == ()


def test_the_csv_logger_writes_metrics_and_drops_images(tmp_path, picture):
    (logger,) = build_loggers(CsvLoggerConfig(), tmp_path)
    logger.log_metrics({"AP": 41.5}, step=3)
    logger.log_images("cells", [picture])
    close_loggers([logger])
    assert "41.5" in (tmp_path / "log/version_0/metrics.csv").read_text()


@pytest.mark.parametrize(
    ("config", "package", "sentence"),
    [
        (WandbLoggerConfig(), "wandb", "install it with: pip install wandb"),
        (MlflowLoggerConfig(), "mlflow", "install it with: pip install mlflow-skinny"),
    ],
)
def test_a_missing_library_is_one_sentence(config, package, sentence, tmp_path, monkeypatch):
    monkeypatch.setattr(f"_logger_{package}.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=sentence) as caught:
        build_loggers(config, tmp_path)
    assert caught.value.name is None


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_mlflow_logs_metrics_and_images_to_the_folder_of_the_run(tmp_path, picture):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    out = tmp_path / "run"
    (logger,) = build_loggers(MlflowLoggerConfig(), out)
    logger.log_settings({"seed": 7})
    logger.log_metrics({"AP": 41.5}, step=3)
    logger.log_images("cells", [picture])
    close_loggers([logger])
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("nasdet")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"AP": 41.5}
    assert run.data.params == {"seed": "7"}
    assert [Path(path).name for path in map(str, (out / "mlflow").rglob("*.png"))] == ["cells.png"]
