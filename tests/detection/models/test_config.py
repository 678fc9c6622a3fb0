"""The table of detectors, and files that name them."""

import subprocess
import sys
from dataclasses import asdict, fields

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from _choices import register_choices
from backbone.config import Choice
from backbone.io.weights import read_weights, save_weights
from backbone.models.backbone import build_backbone
from detection.config import OPTIMIZERS, RENAMED_SETTINGS, DetectorRecipe
from detection.models.build import build_detector
from detection.models.checkpoint import DetectorInfo, load_detector, save_detector
from detection.models.config import (
    DETECTORS,
    DetectorConfig,
    FasterRCNNConfig,
    RetinaNetConfig,
    TorchvisionFasterRCNNConfig,
    TorchvisionRetinaNetConfig,
    detector_name,
)
from detection.models.detector import Detector
from small_detectors import C4, examples, make, small_config

DUMMY = '''
"""One box per image, whose offsets are learned from the mean of c5."""

from dataclasses import dataclass

import torch
from torch import nn

from detection.models.config import DetectorConfig
from detection.models.detector import Detector
from detection.structures import Detections, batch_images


@dataclass(kw_only=True, slots=True)
class CenterConfig(DetectorConfig):
    scale: float = 0.5


class CenterDetector(Detector):
    def __init__(self, backbone, *, num_classes, config):
        super().__init__()
        self.backbone, self.num_classes, self.scale = backbone, num_classes, config.scale
        self.head = nn.Linear(backbone.channels["c5"], 4 + num_classes)

    def losses(self, images, targets):
        boxes, logits = self._run(images)
        wanted = torch.stack([target.boxes[0] for target in targets])
        labels = torch.stack([target.labels[0] for target in targets])
        return {
            "loss_cls": nn.functional.cross_entropy(logits, labels),
            "loss_box_reg": nn.functional.l1_loss(boxes, wanted),
        }

    def predict(self, images):
        boxes, logits = self._run(images)
        scores, labels = logits.softmax(1).max(1)
        return [Detections(b[None], s[None], n[None]) for b, s, n in zip(boxes, scores, labels)]

    def _run(self, images):
        batch, _ = batch_images(images)
        out = self.head(self.backbone(batch)["c5"].mean((2, 3)))
        return out[:, :4] * self.scale, out[:, 4:]
'''


@pytest.fixture
def dummy(tmp_path, monkeypatch):
    """Add a detector as CONTRIBUTING.md shows: one file, one line in the table, and one YAML."""
    (tmp_path / "center_detector.py").write_text(DUMMY)
    monkeypatch.syspath_prepend(str(tmp_path))
    import center_detector

    row = Choice(center_detector.CenterConfig, "center_detector:CenterDetector")
    monkeypatch.setitem(DETECTORS, "center", row)
    yield center_detector
    del sys.modules["center_detector"]


def info_of(config):
    return DetectorInfo(config, ("a", "b", "c"), (1, 2, 3), 64, 96)


def test_a_new_detector_is_one_file_one_line_of_the_table_and_one_yaml(dummy, tmp_path):
    conf = tmp_path / "conf"
    (conf / "detector").mkdir(parents=True)
    (conf / "detector" / "center.yaml").write_text("defaults: [center_schema]\nscale: 2.0\n")
    (conf / "tool.yaml").write_text("defaults: [{detector: center}]\n")
    register_choices()
    with initialize_config_dir(version_base=None, config_dir=str(conf)):
        config = OmegaConf.to_object(compose("tool").detector)
    assert config == dummy.CenterConfig(scale=2.0)

    torch.manual_seed(0)
    detector = build_detector(build_backbone("nasnet_a:1@96"), num_classes=3, config=config)
    images, targets = examples()
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-3)
    before = detector.head.weight.clone()
    torch.stack(list(detector.train().losses(images, targets).values())).sum().backward()
    optimizer.step()
    assert not torch.equal(before, detector.head.weight)

    path = tmp_path / "detector.safetensors"
    save_detector(
        path, detector, info_of(config), provenance={}, training_seconds=0.0, evaluations={}
    )
    loaded, info = load_detector(path)
    assert type(loaded) is dummy.CenterDetector
    assert info.config == config
    with torch.inference_mode():
        one, other = (d.eval().predict(images)[0] for d in (detector, loaded))
    assert torch.equal(one.boxes, other.boxes)


def test_a_config_that_no_detector_has_is_refused():
    with pytest.raises(TypeError, match=r"no detector has a DetectorConfig; choose from"):
        detector_name(DetectorConfig())


@pytest.mark.parametrize("name", DETECTORS)
def test_a_config_selects_its_own_row(name):
    # The order of rows does not matter: a config of one is never that of another.
    assert detector_name(DETECTORS[name].config()) == name


@pytest.mark.parametrize("name", [name for name in DETECTORS if "detectron2" not in name])
def test_a_row_names_a_detector_class(name):
    assert issubclass(DETECTORS[name].load(), Detector)


def test_the_table_is_read_without_torch():
    code = "import sys, detection.models.config, detection.engine.config, detection.reward\n"
    code += "assert 'torch' not in sys.modules and 'timm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_retinanet_has_no_settings_of_proposals_and_box_head():
    names = {each.name for each in fields(RetinaNetConfig)}
    proposals = {each.name for each in fields(FasterRCNNConfig)} - names
    assert {name for name in proposals if name.startswith(("rpn_", "roi_"))}
    assert not {name for name in names if name.startswith(("rpn_", "roi_", "box_head"))}
    with pytest.raises(TypeError, match="rpn_batch_size_per_image"):
        TorchvisionRetinaNetConfig(rpn_batch_size_per_image=3)


def test_the_help_of_a_recipe_names_every_optimizer():
    import inspect

    source = inspect.getsource(DetectorRecipe)
    text = source[source.index("optimizer: str") : source.index("learning_rate: float")]
    assert all(f"``{name}``" in text for name in OPTIMIZERS)


@pytest.mark.parametrize(
    ("old", "new"), [("neck_channels", "fpn_channels"), ("accumulate", "accumulate_grad_batches")]
)
def test_former_settings_have_their_new_names(old, new):
    assert RENAMED_SETTINGS[old] == new


def test_no_former_name_of_a_setting_is_in_use():
    used = {
        each.name
        for config in (DetectorRecipe, *(choice.config for choice in DETECTORS.values()))
        for each in fields(config)
    }
    assert not used & set(RENAMED_SETTINGS)
    assert set(RENAMED_SETTINGS.values()) <= used


OLD_NAMES = {new: old for old, new in RENAMED_SETTINGS.items()}


def rewrite(path, change):
    """Change the config in a detector's file."""
    tensors, metadata = read_weights(path, kind="detector")
    change(metadata["detector"])
    save_weights(path, tensors, metadata)


def saved(kind, path):
    config = small_config(kind)
    save_detector(
        path, make(kind), info_of(config), provenance={}, training_seconds=0.0, evaluations={}
    )
    return config


def test_a_file_with_former_names_of_settings_is_read(tmp_path):
    path = tmp_path / "detector.safetensors"
    config = saved((TorchvisionFasterRCNNConfig, C4), path)

    def rename(settings):
        for new, old in OLD_NAMES.items():
            if new in settings:
                settings[old] = settings.pop(new)
        settings["neck"] = "none"
        assert {"neck_channels", "crop_side", "proposals_test"} <= set(settings)

    rewrite(path, rename)
    _, info = load_detector(path)
    assert info.config == config


def test_a_file_of_retinanet_with_settings_of_proposals_is_read(tmp_path):
    path = tmp_path / "detector.safetensors"
    config = saved((TorchvisionRetinaNetConfig, {"topk_candidates": 77}), path)

    def extend(settings):
        proposals = asdict(FasterRCNNConfig())
        settings |= {OLD_NAMES.get(name, name): proposals[name] for name in proposals} | settings
        settings["rpn_candidates_test"] = settings.pop("topk_candidates")
        settings["neck_channels"] = settings.pop("fpn_channels")

    rewrite(path, extend)
    _, info = load_detector(path)
    assert info.config == config
    assert info.config.topk_candidates == 77


def test_a_file_with_unknown_settings_or_detector_is_refused(tmp_path):
    path = tmp_path / "detector.safetensors"
    saved((TorchvisionFasterRCNNConfig, {}), path)
    rewrite(path, lambda settings: settings.update(color="red"))
    with pytest.raises(ValueError, match=r"detector torchvision has no settings \['color'\]"):
        load_detector(path)
    tensors, metadata = read_weights(path, kind="detector")
    save_weights(path, tensors, metadata | {"engine": "yolo"})
    with pytest.raises(ValueError, match=r"unknown detector 'yolo'; choose from"):
        load_detector(path)
