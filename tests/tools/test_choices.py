"""A choice of the command line is one module, one row of its table and one YAML."""

import csv
import shutil
import sys
from types import MappingProxyType

import pytest
import torch
from PIL import Image

import _choices
import _cli
import _loggers
import all_tools
import search.strategies
from backbone.config import Choice
from search.randomness import stream

STRATEGY = '''
from dataclasses import dataclass

from search.strategies.base import DecisionSampler, StrategyConfig


@dataclass(kw_only=True, slots=True)
class DummyConfig(StrategyConfig):
    """Always the same option."""

    option: int = 0
    """The option that is chosen in every decision."""


class DummySampler(DecisionSampler[DummyConfig]):
    def decide(self, past, number):
        return [self.config.option] * len(self.space.choices)
'''
LOGGER = '''
from dataclasses import dataclass
from pathlib import Path

from _logger_base import LoggerConfig


@dataclass(kw_only=True, slots=True)
class DummyLoggerConfig(LoggerConfig):
    """Log to a text file."""


class DummyLogger:
    def __init__(self, config, out):
        self.path = out / "dummy.txt"
        self.lines = []

    def log_settings(self, settings):
        self.lines.append(f"seed {settings['seed']}")

    def log_metrics(self, metrics, step=None):
        self.lines.append(f"{step} {sorted(metrics)}")

    def log_images(self, name, paths):
        self.lines.append(f"{name} {paths[0].name}")

    def close(self):
        self.path.write_text("\\n".join(self.lines))
'''


@pytest.fixture
def images(tmp_path):
    pixels = torch.randint(256, (24, 8, 8, 3), generator=stream("pixels")).to(torch.uint8)
    for index, image in enumerate(pixels):
        folder = tmp_path / "images" / "train" / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(folder / f"{index}.png")
    return tmp_path / "images"


@pytest.fixture
def _dummies(tmp_path, monkeypatch):
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "dummy_strategy.py").write_text(STRATEGY)
    (modules / "dummy_logger.py").write_text(LOGGER)
    monkeypatch.syspath_prepend(modules)
    from dummy_logger import DummyLoggerConfig
    from dummy_strategy import DummyConfig

    strategies = MappingProxyType(
        {
            **search.strategies.STRATEGIES,
            "dummy": Choice(DummyConfig, "dummy_strategy:DummySampler"),
        }
    )
    loggers = {**_loggers.LOGGERS, "dummy": Choice(DummyLoggerConfig, "dummy_logger:DummyLogger")}
    monkeypatch.setattr(search.strategies, "STRATEGIES", strategies)
    monkeypatch.setattr(_loggers, "LOGGERS", loggers)
    tables = {**_choices.CHOICES, "strategy": strategies, "logger": loggers}
    monkeypatch.setattr(_choices, "CHOICES", tables)
    conf = tmp_path / "conf"
    shutil.copytree(all_tools.ROOT / "conf", conf)
    (conf / "strategy").mkdir()  # beside the package's own strategies
    (conf / "strategy" / "dummy.yaml").write_text("defaults: [dummy_schema]\n")
    (conf / "logger" / "dummy.yaml").write_text("defaults: [dummy_schema]\n")
    monkeypatch.setattr(_cli, "CONFIG_DIR", conf)


@pytest.mark.usefixtures("_dummies")
def test_a_new_strategy_and_a_new_logger_are_chosen_by_name(images, tmp_path, monkeypatch):
    search_cells = all_tools.TOOLS["search_cells"]
    search_cells.register()
    text = search_cells.explain(["strategy=dummy"])
    assert "[dummy]" in text
    assert "strategy.option=0\n      The option that is chosen in every decision." in text
    out = tmp_path / "out"
    line = [
        "search_cells.py", "strategy=dummy", "strategy.option=1", "logger=dummy", f"out={out}",
        "space.num_blocks=1", "space.operations=[identity,max_pool_3x3]", "num_trials=2",
        "num_reevaluated=0", f"reward.data_root={images}", "reward.held_out_images=8",
        "reward.batch_size=8", "executor=inline", "progress=false",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", line)
    search_cells()
    with (out / "trials.csv").open() as file:
        assert len({row["digest"] for row in csv.DictReader(file)}) == 1
    lines = (out / "dummy.txt").read_text().splitlines()
    assert lines[0] == "seed 0"
    assert lines[1] == "0 ['reward']"
    assert lines[-1] == "cells cells.png"


@pytest.mark.parametrize(
    ("detector", "size"),
    [
        ("torchvision", "small"),
        ("detectron2_paper", "small"),
        ("torchvision_retinanet", "retinanet_small"),
        ("unknown", "small"),
    ],
)
def test_a_small_size_fits_the_settings_of_the_detector(detector, size):
    assert _choices.small_size("detector", _root_={"detector": detector}) == size
