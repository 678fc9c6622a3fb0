import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detection.data.coco import CocoTable
from detection.data.dataset import load_split
from detection.engine import export
from detection.engine.export import OneImage, export_detector
from detection.engine.train import run_training
from detection.models.checkpoint import load_detector
from detection.models.config import Detectron2FasterRCNNConfig

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
DOCS = Path(__file__).parents[3] / "docs" / "predict.md"


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    settings = config()
    settings.detector.score_threshold = 0.0
    return settings, run_training(settings, tmp_path_factory.mktemp("detector")).path


def export_to(out, trained, file_format="onnx"):
    settings, path = trained
    root = Path(settings.data.root)
    return export_detector(
        path, out, annotations=CocoTable.load(root / "val.json"), image_root=root / "val",
        file_format=file_format, progress=False,
    )  # fmt: skip


def test_the_file_finds_what_the_detector_finds(trained, tmp_path):
    exported = export_to(tmp_path, trained)
    detector, info = load_detector(trained[1])
    session = onnxruntime.InferenceSession(str(exported.path))
    val = load_split(trained[0].data, "val")
    for position in range(len(val)):
        images = val[position].image[None]
        with torch.inference_mode():
            expected = OneImage(detector)(images)
        outputs = session.run(None, {"images": images.numpy()})
        for array, tensor in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(array, tensor.numpy(), atol=1e-3, rtol=1e-4)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["class_names"]) == list(info.class_names)
    figures = json.loads((tmp_path / "detector.json").read_text())
    assert figures["ap"] == pytest.approx(figures["original_ap"], abs=0.1)
    assert figures["images"] == 4


def test_the_backbone_alone_is_held_against_the_whole_detector(trained, tmp_path):
    exported = export_to(tmp_path, trained, "torch")
    assert exported.ap == pytest.approx(exported.original_ap, abs=1e-6)
    maps = torch.export.load(exported.path).module()(torch.rand(3, 3, 64, 64))
    assert set(maps) == {"c2", "c3", "c4", "c5"}


@pytest.mark.parametrize("aps", [(30.0, 29.9), (30.0, 0.0), (30.0, float("nan"))])
def test_a_file_that_is_worse_is_not_written(trained, tmp_path, monkeypatch, aps):
    left = iter(aps)
    monkeypatch.setattr(export, "_average_precision", lambda *_: next(left))
    with pytest.raises(ValueError, match="it is not written"):
        export_to(tmp_path, trained)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_one_sentence(trained, tmp_path):
    with pytest.raises(ValueError, match="unknown file_format 'tflite'"):
        export_to(tmp_path, trained, "tflite")
    _, info = load_detector(trained[1])
    info = replace(info, config=Detectron2FasterRCNNConfig())
    with pytest.raises(ValueError, match="only torchvision's Faster R-CNN can be exported"):
        export._check(trained[1], info, load_split(trained[0].data, "val").annotations, "onnx")


def test_the_script_in_the_docs_runs_as_printed(trained, tmp_path):
    export_to(tmp_path / "runs" / "exported", trained)
    (script,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    assert "score >= 0.5" in script
    pixels = np.random.default_rng(0).integers(0, 255, (50, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    done = subprocess.run(
        [sys.executable, "-c", script.replace("score >= 0.5", "score >= 0.0")],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert re.match(r"(red|green) 0\.\d\d \[", done.stdout)
