import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from _harness import measure
from benchmark_training import Args, chosen_engines, step_seconds, summarize
from detection.config import DetectionDataConfig
from detection.models.config import (
    Detectron2FasterRCNNConfig,
    TorchvisionFasterRCNNConfig,
    TorchvisionRetinaNetConfig,
)

ROOT = Path(__file__).parents[2]


def settings(**changes):
    defaults = {
        "out": "x",
        "backbone": "nasnet_a:1@96",
        "detector": TorchvisionFasterRCNNConfig(fpn_channels=8),
        "data": DetectionDataConfig(root="x"),
        "warmup_steps": 2,
        "batch_size": 4,
    }
    return Args(**(defaults | changes))


def test_the_first_steps_are_not_timed():
    runs = [([0.0, 5.0, 6.0, 7.0], 1.0), ([0.0, 1.0, 3.0, 5.0], 1.0)]
    assert list(step_seconds(runs, first=2)) == [1.0, 2.0]


def test_trainings_take_turns_and_the_median_counts():
    order = []

    def entry(name, *paces):
        rounds = iter(paces)

        def run():
            order.append(name)
            pace = next(rounds)
            return [pace * step for step in range(6)], 0.5

        return run

    runs = measure({"torchvision: reference loop": entry("a", 2, 2, 9),
                    "torchvision: nasdet": entry("b", 1, 7, 1)}, rounds=3, bar=False)  # fmt: skip
    assert order == ["a", "b"] * 3
    figures = summarize(runs, settings())
    assert figures["torchvision: reference loop"]["images_per_second"] == 4 / 2
    assert figures["torchvision: reference loop"]["ratio"] == 1
    assert figures["torchvision: nasdet"]["ratio"] == 2


def test_each_engine_builds_the_same_detector():
    engines = chosen_engines(settings(engines=["detectron2", "torchvision"]))
    assert type(engines["detectron2"]) is Detectron2FasterRCNNConfig
    assert engines["detectron2"].fpn_channels == engines["torchvision"].fpn_channels == 8
    assert set(chosen_engines(settings())) == {
        name for name in ("torchvision", "detectron2") if find_spec(name)
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engines": ["jax"]}, r"unknown engines \['jax'\]; choose from"),
        ({"rounds": 0}, "rounds must be at least 1, not 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_only_faster_rcnn_is_measured():
    with pytest.raises(ValueError, match="only Faster R-CNN can be measured, not TorchvisionRet"):
        chosen_engines(settings(detector=TorchvisionRetinaNetConfig()))


@pytest.mark.slow
@pytest.mark.ci
def test_the_tool_writes_ratios_of_every_engine(tmp_path):
    (tmp_path / "train").mkdir()
    for number in (1, 2):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "train" / f"{number}.png")
    text = json.dumps(
        {
            "images": [
                {"id": n, "file_name": f"{n}.png", "width": 64, "height": 64} for n in (1, 2)
            ],
            "annotations": [
                {"id": n, "image_id": n, "category_id": 1, "bbox": [8, 8, 30, 30], "area": 900,
                 "iscrowd": 0} for n in (1, 2)
            ],
            "categories": [{"id": 1, "name": "thing"}],
        }
    )  # fmt: skip
    for split in ("train", "val"):
        (tmp_path / f"{split}.json").write_text(text)
    command = [
        sys.executable, ROOT / "tools" / "benchmarks" / "benchmark_training.py",
        f"out={tmp_path / 'out'}",
        f"data.root={tmp_path}", "data.train_annotations=train.json", "data.train_images=train",
        "data.val_annotations=val.json", "data.val_images=train", "data.shortest_side_px=64",
        "data.longest_side_px=64", "backbone=nasnet_a:1@96", "rounds=1", "steps=2",
        "warmup_steps=2", "batch_size=1", "accelerator=cpu",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "out" / "benchmark.json").read_text())["figures"]
    assert "torchvision: nasdet" in figures
    assert ("detectron2: nasdet" in figures) == bool(find_spec("detectron2"))
    assert all(f["images_per_second"] > 0 for f in figures.values())
    assert not (tmp_path / "out" / "training").exists()
