"""Presets from Python are the ones of the command line."""

import re
from dataclasses import asdict

import pytest
from omegaconf import OmegaConf

import all_tools
from backbone.config import ClassifierRecipe
from backbone.presets import preset_names
from detection.config import DetectionDataConfig, DetectorRecipe
from detection.models.config import (
    DetectorConfig,
    TorchvisionFasterRCNNConfig,
    TorchvisionRetinaNetConfig,
)
from detection.models.sizes import SIZE_GROUP, fitting_size, sized_detector
from search.execution.base import ExecutorConfig
from search.rewards.config import ProxyConfig, RewardConfig
from search.space import SpaceConfig
from search.strategies.config import StrategyConfig
from search.strategies.evolution import EvolutionConfig

COMPOSED = {
    "recipe": [
        (ClassifierRecipe, "pretrain_backbone", {}),
        (DetectorRecipe, "train_detector", {}),
    ],
    "data": [(DetectionDataConfig, "train_detector", {"root": "x"})],
    "space": [(SpaceConfig, "search_cells", {})],
    "strategy": [(StrategyConfig, "search_cells", {})],
    "executor": [(ExecutorConfig, "search_cells", {})],
}
CASES = [
    pytest.param(group, kind, tool, name, settings, id=f"{group}={name}")
    for group, rows in COMPOSED.items()
    for kind, tool, settings in rows
    for name in kind.preset_names()
]


@pytest.mark.parametrize(("group", "kind", "tool", "name", "settings"), CASES)
def test_a_preset_is_what_the_command_line_composes(group, kind, tool, name, settings):
    overrides = [f"{group}.{key}={value}" for key, value in settings.items()]
    composed = getattr(all_tools.settings(tool, f"{group}={name}", *overrides), group)
    preset = kind.preset(name, **settings)
    assert type(preset) is type(composed)
    assert asdict(preset) == asdict(composed)


@pytest.mark.parametrize("name", DetectorConfig.preset_names())
@pytest.mark.parametrize("size", ["full", "medium", "small"])
def test_a_sized_detector_is_what_the_command_line_composes(name, size):
    option = fitting_size(name, size)
    composed = all_tools.settings("train_detector", f"detector={name}", f"size={option}").detector
    assert sized_detector(name, size) == composed


def test_a_preset_of_a_table_has_the_type_of_its_row():
    assert type(DetectorConfig.preset("torchvision_retinanet")) is TorchvisionRetinaNetConfig
    assert type(StrategyConfig.preset("evolution_short")) is EvolutionConfig
    assert type(RewardConfig.preset("proxy_quick")) is ProxyConfig
    with pytest.raises(ValueError, match="strategy=random is a RandomConfig, not a EvolutionConf"):
        EvolutionConfig.preset("random")


def test_settings_replace_those_of_the_preset():
    recipe = DetectorRecipe.preset("detector_long", iterations=7)
    assert (recipe.iterations, recipe.warmup_iterations) == (7, 100)
    assert recipe.learning_rate == 6e-3  # YAML 1.1 reads 6e-3 as text


def test_paths_are_taken_where_a_setting_is_text(tmp_path):
    assert DetectionDataConfig.preset("coco", root=tmp_path).root == str(tmp_path)


@pytest.mark.parametrize(
    ("kind", "name", "settings", "sentence"),
    [
        (DetectorRecipe, "detector_2x", {}, "no recipe=detector_2x; choose from ['detector_1x', "),
        (DetectorRecipe, "classifier_quick", {}, "no recipe=classifier_quick; choose from"),
        (
            DetectorRecipe,
            "smoke",
            {"iteration": 6},
            "recipe=smoke has no setting 'iteration'; did you mean 'iterations'?",
        ),
        (
            DetectorRecipe,
            "smoke",
            {"iterations": "six"},
            "recipe=smoke: iterations='six': Expected `int`, got `str`",
        ),
        (DetectorRecipe, "smoke", {"batch_size": 0}, "batch_size must be at least 1, not 0"),
        (DetectionDataConfig, "coco", {}, "data=coco needs root=..."),
        (RewardConfig, "supernet", {}, "reward=supernet needs weights=..., space=..."),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(kind, name, settings, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        kind.preset(name, **settings)


def test_every_size_has_a_detector_that_it_fits():
    fitting = {
        fitting_size(name, size)
        for name in DetectorConfig.preset_names()
        for size in ("full", "medium", "small")
    }
    assert fitting == set(preset_names(SIZE_GROUP))
    with pytest.raises(ValueError, match=r"no size=tiny; choose from \['full', 'medium'"):
        fitting_size("torchvision", "tiny")


def test_a_size_whose_settings_a_detector_lacks_is_full(monkeypatch):
    monkeypatch.setattr(
        "detection.models.sizes.read_preset",
        lambda group, name: ("torchvision", {}) if group != SIZE_GROUP else ("", {"none_has": 1}),
    )
    assert fitting_size("torchvision", "small") == "full"


def test_the_demonstration_data_are_recognized_by_the_names_of_their_files(tmp_path):
    (tmp_path / "annotations").mkdir()
    with pytest.raises(FileNotFoundError, match="has no annotations/instances_train2017"):
        DetectionDataConfig.find(tmp_path)
    (tmp_path / "annotations" / "instances_train.json").write_text("{}")
    config = DetectionDataConfig.find(tmp_path, shortest_side_px=200)
    assert config.val_images == "val"
    assert config.shortest_side_px == 200
    (tmp_path / "annotations" / "instances_train2017.json").write_text("{}")
    assert DetectionDataConfig.find(tmp_path).val_images == "val2017"


def test_a_sized_detector_takes_settings():
    config = sized_detector("torchvision", "small", score_threshold=0.5)
    assert type(config) is TorchvisionFasterRCNNConfig
    assert (config.fpn_channels, config.score_threshold) == (48, 0.5)
    assert OmegaConf.structured(config).fpn_channels == 48
