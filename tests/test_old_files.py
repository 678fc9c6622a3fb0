"""Files written by commit 85cd897 are still read, and give the same values."""

import csv
import gzip
import json
import math
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from backbone.cells.genotype import Genotype
from backbone.io.weights import read_weights, select_prefix
from backbone.models.backbone import build_backbone
from backbone.models.checkpoint import load_backbone
from backbone.models.classifier import Classifier
from detection.data.coco import CocoTable
from detection.engine.evaluate import load_results_file
from detection.evaluation.files import StoredEvaluation
from detection.evaluation.report import ReportOptions
from detection.models.checkpoint import load_detector
from search.analysis.reward_log import RewardLog
from search.analysis.reward_table import record_table
from search.execution.base import ExecutorConfig
from search.rewards.config import CostConfig, ProxyConfig, SupernetConfig
from search.rewards.proxy import ProxyReward
from search.rewards.supernet_reward import SupernetReward
from search.rewards.tabular import TableConfig, TableReward
from search.space import SpaceConfig, build_space
from search.strategies.config import EvolutionConfig
from search.study.config import SearchConfig
from search.study.results import read_trials
from search.study.study import run_search

OLD = Path(__file__).parent / "fixtures/85cd897"
EXPECTED = json.loads((OLD / "expected.json").read_text())
SPACE = SpaceConfig(operations=["identity", "conv_1x1", "max_pool_3x3"], num_blocks=1)
TABLE_SPACE = SpaceConfig(operations=["identity", "conv_1x1"], num_blocks=1, cells=["normal"])
PROXY = {
    "data_root": str(OLD / "images"), "num_cells": 1, "first_filters": 4, "epochs": 2,
    "batch_size": 8, "learning_rate": 0.05, "weight_decay": 1e-4, "held_out_images": 8,
    "num_threads": 1, "device": "cpu",
}  # fmt: skip
COST = CostConfig(num_cells=1, first_filters=4, side_px=32)
DETECTORS = [
    pytest.param(
        name,
        marks=[
            pytest.mark.detectron2,
            pytest.mark.skipif(not find_spec("detectron2"), reason="detectron2 is not installed"),
            pytest.mark.filterwarnings("ignore:torch.meshgrid. in an upcoming:UserWarning"),
        ]
        if name.startswith("detectron2")
        else [],
    )
    for name in EXPECTED["detectors"]
]


def unpacked(name, folder):
    """Decompress a weights file into a folder."""
    path = folder / Path(name).name
    path.write_bytes(gzip.decompress((OLD / f"{name}.gz").read_bytes()))
    return path


def pattern(side):
    """(1, 3, side, side) in [0, 1], the same on every machine."""
    values = torch.arange(3 * side * side, dtype=torch.float64)
    return (0.5 + 0.5 * torch.sin(0.37 * values + 1e-4 * values**2)).float().view(1, 3, side, side)


def proxy_accuracy():
    return ProxyReward(ProxyConfig(**PROXY | {"rungs": [1]}))


def search_config(**changes):
    settings = {
        "strategy": EvolutionConfig(population_size=4, sample_size=2), "num_trials": 10,
        "space": SPACE, "num_reevaluated": 2, "progress": False, "cost": COST,
    }  # fmt: skip
    return SearchConfig(**settings | changes)


def trials(folder):
    with (folder / "trials.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def old_trials():
    return trials(OLD / "search")


def test_cells_of_a_search_are_a_backbone():
    genotype = Genotype.load(OLD / "search/cells.json")
    assert genotype.digest == next(row["digest"] for row in old_trials() if row["trial"] == "3")
    assert build_backbone(f"{OLD}/search/cells.json:1@16").channels["c5"] == 16
    for path in (OLD / "search/front").iterdir():
        Genotype.load(path)


def test_trials_csv_is_read():
    rows = read_trials(OLD / "search")
    assert [row.digest for row in rows] == [row["digest"] for row in old_trials()]
    assert [row.reward for row in rows] == [float(row["reward"]) for row in old_trials()]
    assert [row.same_as is not None for row in rows] == [False] * 9 + [True]
    assert all(row.cost for row in rows)


def test_a_killed_search_is_resumed_and_ends_with_the_trials_of_the_whole_one(tmp_path):
    shutil.copytree(OLD / "killed_search", tmp_path, dirs_exist_ok=True)
    trained = []
    result = run_search(search_config(), tmp_path, reward=proxy_accuracy(), on_trial=trained.append)
    assert [record.number for record in trained] == [6, 7, 8, 9]
    assert [(row["digest"], row["reward"]) for row in trials(tmp_path)] == [
        (row["digest"], row["reward"]) for row in old_trials()
    ]
    assert [row["steps"] for row in trials(tmp_path)] == [row["steps"] for row in old_trials()]
    assert result.genotype == Genotype.load(OLD / "search/cells.json")


@pytest.mark.parametrize("has_result", [True, False])
def test_a_finished_search_is_not_run_again(tmp_path, has_result):
    shutil.copytree(OLD / "search", tmp_path, dirs_exist_ok=True)
    if not has_result:
        (tmp_path / "cells.json").unlink()
    trained = []
    result = run_search(search_config(), tmp_path, reward=proxy_accuracy(), on_trial=trained.append)
    record = json.loads((OLD / "search/cells.json").read_text())
    assert not trained
    assert result.genotype == Genotype.from_dict(record)
    assert result.reward == record["reward"]


def test_a_finished_search_is_continued_with_more_trials(tmp_path):
    shutil.copytree(OLD / "search", tmp_path, dirs_exist_ok=True)
    trained = []
    run_search(
        search_config(num_trials=12), tmp_path, reward=proxy_accuracy(), on_trial=trained.append
    )
    assert [record.number for record in trained] == [10, 11]


def test_a_reward_table_is_looked_up_and_is_complete(tmp_path):
    path = tmp_path / "rewards.jsonl"
    shutil.copy(OLD / "rewards.jsonl", path)
    before = path.read_bytes()
    rows = [json.loads(line) for line in before.splitlines()[1:]]
    table = TableReward(TableConfig(path=str(path)))
    assert table.space == TABLE_SPACE
    for genotype, row in zip(build_space(TABLE_SPACE).enumerate(), rows, strict=True):
        assert table(genotype, seed=0, report=print) == row["reward"]
    record_table(
        path, TABLE_SPACE, proxy_accuracy(), executor=ExecutorConfig(), cost=COST, progress=False
    )
    assert path.read_bytes() == before


def test_a_measurement_log_is_read_and_its_measurements_are_recognized(tmp_path):
    path = tmp_path / "measurements.jsonl"
    shutil.copy(OLD / "measurements.jsonl", path)
    recorded = [json.loads(line) for line in path.read_text().splitlines()]
    reward = proxy_accuracy()
    genotypes = {g.digest: g for g in build_space(TABLE_SPACE).enumerate()}
    with RewardLog.open(path) as log:
        values = [log.find(reward, genotypes[row["genotype"]], seed=3).value for row in recorded]
    assert values == [row["value"] for row in recorded]


def test_a_supernet_is_not_trained_again_and_scores_as_before(tmp_path):
    path = unpacked("supernet.safetensors", tmp_path)
    before = path.read_bytes()
    settings = PROXY | {"learning_rate": 0.02, "weights": str(path), "space": TABLE_SPACE}
    reward = SupernetReward(SupernetConfig(**settings))
    values = {
        genotype.digest: reward(genotype, seed=0, report=lambda _step, _value: None)
        for genotype in list(build_space(TABLE_SPACE).enumerate())[:3]
    }
    assert values == EXPECTED["supernet_accuracies"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", EXPECTED["backbones"])
def test_a_pretrained_backbone_gives_the_same_features_and_logits(name, tmp_path):
    expected = EXPECTED["backbones"][name]
    path = unpacked(f"backbones/{name}/backbone.safetensors", tmp_path)
    norm = "group" if "group" in name else "batch"
    for backbone in (load_backbone(path), build_backbone(str(path), norm=norm)):
        backbone.eval()
        assert backbone.channels == expected["channels"]
        assert backbone.strides == expected["strides"]
        with torch.no_grad():
            maps = backbone(pattern(64))
        for level, feature_map in maps.items():
            close = pytest.approx(expected["abs_mean"][level], rel=1e-4)
            assert float(feature_map.abs().mean()) == close
            assert float(feature_map.mean()) == pytest.approx(
                expected["mean"][level], abs=1e-4 * expected["abs_mean"][level]
            )
    tensors, metadata = read_weights(path, kind="backbone")
    classifier = Classifier(
        backbone, num_classes=len(metadata["classes"]), dropout=0.0, auxiliary_side_px=0
    ).eval()
    classifier.head.load_state_dict(select_prefix(tensors, "head."))
    with torch.no_grad():
        logits = classifier(pattern(64)).flatten().tolist()
    assert logits == pytest.approx(expected["logits"], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_trained_detector_gives_the_same_detections(name, tmp_path):
    expected = EXPECTED["detectors"][name]
    path = unpacked(f"detectors/{name}/detector.safetensors", tmp_path)
    detector, info = load_detector(path)
    assert list(info.class_names) == expected["class_names"]
    assert list(info.category_ids) == expected["category_ids"]
    with torch.no_grad():
        (detections,) = detector.predict([pattern(64)[0]])
    torch.testing.assert_close(
        detections.scores, torch.tensor(expected["scores"]), rtol=1e-4, atol=1e-6
    )
    # Detections whose scores are equal to the last bits may change places.
    for box, label in zip(expected["boxes"], expected["labels"], strict=True):
        distances = (detections.boxes - torch.tensor(box)).abs().amax(dim=1)
        assert distances[detections.labels == label].min() < 1e-2


def test_an_evaluation_is_read_and_its_detections_are_scored_alike(tmp_path):
    recorded = json.loads((OLD / "evaluation/metrics.json").read_text())
    read = StoredEvaluation.load(OLD / "evaluation")
    assert read.metrics.ap == recorded["ap"]
    assert read.errors.counts
    assert len(read.images.ids) == 6
    annotations = CocoTable.load(OLD / "coco/val.json", bad_boxes="error")
    scored = load_results_file(OLD / "evaluation/results.json", annotations)
    scored.report(tmp_path, ReportOptions(plots=False, score_threshold=0.2))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    figures = [name for name in recorded if name.startswith(("ap", "ar"))]
    assert len(figures) == 12
    for name in figures:  # null where COCO has no objects of that size
        expected = recorded[name]
        assert metrics[name] == (expected and pytest.approx(expected, rel=1e-9))
    assert not math.isnan(metrics["ap"])
    for name in ("error_kinds.json", "confusion.json", "images.json"):
        again, before = (json.loads((f / name).read_text()) for f in (tmp_path, OLD / "evaluation"))
        assert again == before
