import json

import pytest
import torch
from safetensors.torch import save_file

from backbone.io.weights import read_weights, save_weights
from backbone.models.backbone import build_backbone
from backbone.models.checkpoint import load_backbone, save_backbone
from backbone.models.classifier import Classifier


@pytest.fixture
def saved(tmp_path):
    classifier = Classifier(build_backbone("nasnet_a:1@96"), num_classes=2)
    path = tmp_path / "backbone.safetensors"
    save_backbone(
        path,
        classifier.backbone,
        classifier.head,
        classes=["a", "b"],
        metrics={"accuracy": 0.5},
        provenance={},
    )
    return path, classifier


def test_a_saved_backbone_computes_the_same(saved):
    path, classifier = saved
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(
        load_backbone(path).eval()(image), classifier.backbone.eval()(image), rtol=0, atol=0
    )


def test_a_truncated_file_is_refused_by_name(saved):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"backbone\.safetensors is damaged"):
        load_backbone(path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.zeros(1)}, {"kind": "detector"})
    with pytest.raises(ValueError, match="holds a detector, not a backbone"):
        load_backbone(path)


def test_a_file_of_another_program_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="was not written by this program"):
        load_backbone(path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop(next(iter(t))), "is missing"),
        (lambda t: t.update({"backbone.extra": torch.zeros(1)}), "'extra' is not part of it"),
        (
            lambda t: t.update({next(iter(t)): torch.zeros(2, 2, 2)}),
            "has another shape",
        ),
    ],
    ids=["missing", "extra", "shape"],
)
def test_one_tensor_that_does_not_fit_is_named(saved, edit, message):
    path, _ = saved
    tensors, about = read_weights(path, kind="backbone")
    backbone_first = dict(sorted(tensors.items()))
    edit(backbone_first)
    save_weights(path, backbone_first, json.loads(json.dumps(about)))
    with pytest.raises(ValueError, match=f"another architecture: tensor .*{message}"):
        load_backbone(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors does not exist"):
        build_backbone(str(tmp_path / "none.safetensors"))
