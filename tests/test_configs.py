from pathlib import Path

import pytest

import all_tools
from detection.models.config import DETECTORS

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
TOOLS = sorted(all_tools.TOOLS)
REQUIRED = {
    "run_pipeline": ["search.num_trials=1"],
    "rank_supernet": ["table=x.jsonl"],
    "evaluate_detector": ["weights=x.safetensors", "images=y"],
    "convert_annotations": ["source=x", "source_format=voc", "out=y"],
    "explain_evaluation": ["before=x", "after=y"],
    "import_weights": ["weights=x.pth"],
    "benchmark_detector": ["detectors=[x]"],
    "predict": ["weights=x.safetensors", "images=y"],
    "compare_searches": ["searches={random: [x]}"],
}
EXPERIMENTS = {
    "quickstart": "run_pipeline",
    "quickstart_smoke": "run_pipeline",
    "real_cpu": "run_pipeline",
    "coco_1x": "train_detector",
    "detector_cpu": "train_detector",
    "faces": "train_detector",
    "localization": "train_detector",
    "paper_nasnet_a_large_coco": "train_detector",
    "paper_nasnet_a_mobile_coco": "train_detector",
    "nasnet_a_large_fpn_coco": "train_detector",
    "nasnet_a_mobile_imagenet": "pretrain_backbone",
    "nasnet_a_large_imagenet": "pretrain_backbone",
    "nasnet_a_cifar10": "pretrain_backbone",
}


def option_files(group):
    """Return the YAML files of a config group, in the packages and in conf/."""
    folders = [CONF, *(ROOT / package / "conf" for package in ("backbone", "search", "detection"))]
    return sorted(path for folder in folders for path in (folder / group).glob("*.yaml"))


CLASSIFIER_RECIPES = ("classifier", "paper", "modern")
CHOICES = (
    [
        ("train_detector", f"{group}={path.stem}")
        for group in ("detector", "size", "logger", "data")
        for path in option_files(group)
    ]
    + [
        ("search_cells", f"{group}={path.stem}")
        for group in ("space", "strategy", "reward", "executor")
        for path in option_files(group)
    ]
    + [
        (
            "pretrain_backbone" if path.stem.startswith(CLASSIFIER_RECIPES) else "train_detector",
            f"recipe={path.stem}",
        )
        for path in option_files("recipe")
    ]
)
REQUIRED_BY_CHOICE = {
    "data=coco": ["data.root=/data/coco"],
    "data=converted": ["data.root=/data/mine"],
    "coco_1x": ["data.root=/data/coco"],
    "detector_cpu": ["data.root=/data/mine"],
    "faces": ["data.root=/data/faces"],
    "localization": ["data.root=/data/mine"],
    "real_cpu": [
        "reward.data_root=/data/a",
        "pretrain.data_root=/data/b",
        "training.data.root=/data/c",
    ],
    "reward=proxy_paper": ["reward.data_root=/data"],
    "reward=table": ["reward.path=rewards.jsonl"],
}
for path in (
    p for p in option_files("size") if "_" in p.stem
):  # KIND_SIZE.yaml is for detectors ENGINE_KIND
    kind = path.stem.rpartition("_")[0]
    detector = next(name for name in DETECTORS if name.endswith(f"_{kind}"))
    REQUIRED_BY_CHOICE[f"size={path.stem}"] = [f"detector={detector}"]


def settings(tool, *overrides):
    return all_tools.settings(tool, *REQUIRED.get(tool, []), *overrides)


@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_has_a_config_that_fits_its_schema(tool):
    assert settings(tool).out


@pytest.mark.parametrize("tool", ["train_detector", "run_pipeline", "compare_backbones"])
def test_the_default_size_fits_the_detector(tool):
    group = "detector" if tool == "train_detector" else "detector@training.detector"
    extra = ["reward.data_root=/data"] if tool == "run_pipeline" else []

    def detector(name):
        config = settings(tool, f"{group}={name}", *extra)
        return config.detector if tool == "train_detector" else config.training.detector

    assert detector("torchvision_retinanet").topk_candidates == 200
    assert detector("detectron2_cascade").box_head_dim == 256


@pytest.mark.parametrize(("tool", "choice"), CHOICES, ids=lambda value: value)
def test_every_choice_fits_its_schema(tool, choice):
    assert settings(tool, choice, *REQUIRED_BY_CHOICE.get(choice, []))


def test_every_experiment_is_tested():
    assert {path.stem for path in (CONF / "experiment").glob("*.yaml")} == set(EXPERIMENTS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_fits_its_schema(name):
    extra = ["data.root=/data/coco"] if name.endswith("coco") else REQUIRED_BY_CHOICE.get(name, [])
    assert settings(EXPERIMENTS[name], f"experiment={name}", *extra)


def test_a_wrong_value_is_refused_by_the_dataclass():
    with pytest.raises(ValueError, match="unknown optimizer 'adam'"):
        settings("train_detector", "recipe.optimizer=adam")


def test_every_tool_has_a_config_of_its_name():
    assert {path.stem for path in CONF.glob("*.yaml")} == set(TOOLS)
