import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from backbone.cells.genotype import OPERATION_NAMES, Block, CellSpec, Edge, Genotype
from backbone.models.backbone import build_backbone
from backbone.models.cell_network import CellNetwork, NetworkConfig
from backbone.models.checkpoint import save_backbone
from backbone.models.classifier import Classifier, load_classifier
from backbone.models.export import export_network

HALF = (len(OPERATION_NAMES) + 1) // 2
ALL_OPERATIONS = CellSpec.from_blocks(
    Block(Edge(a, i % 2), Edge(b, (i + 1) % 2), ("add", "concat")[i % 2])
    for i, (a, b) in enumerate(zip(OPERATION_NAMES[:HALF], OPERATION_NAMES[-HALF:], strict=True))
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A pretrained file whose normalization is not that of its start."""
    torch.manual_seed(0)
    classifier = Classifier(build_backbone("nasnet_a:1@96"), num_classes=5)
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("trained") / "backbone.safetensors"
    save_backbone(
        path, classifier.backbone, classifier.head, classes="abcde", metrics={}, provenance={}
    )
    return path, classifier.eval()


def test_a_classifier_comes_back_with_its_head(trained):
    path, classifier = trained
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(load_classifier(path).eval()(images), classifier(images))


@pytest.mark.parametrize("side_px", [64, 75])
def test_onnx_files_run_elsewhere_with_the_same_outputs(trained, tmp_path, side_px):
    _, classifier = trained
    path = tmp_path / "classifier.onnx"
    assert (
        max(export_network(classifier, path, side_px=side_px, file_format="onnx").values()) < 1e-4
    )
    images = torch.rand(4, 3, side_px, side_px)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(logits, classifier(images).detach().numpy(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("file_format", "convolutions"), [("onnx", "bottleneck"), ("torch", "full")]
)
def test_every_operation_is_exported(tmp_path, file_format, convolutions):
    torch.manual_seed(0)
    genotype = Genotype(ALL_OPERATIONS, ALL_OPERATIONS)
    config = NetworkConfig(
        num_cells=1,
        filters=genotype.penultimate_filters(8),
        stem_filters=8,
        convolutions=convolutions,
    )
    network = CellNetwork(genotype, config)
    errors = export_network(network, tmp_path / "x.pt2", side_px=45, file_format=file_format)
    assert errors.keys() == {"c2", "c3", "c4", "c5"}


def test_a_file_that_differs_is_not_kept(tmp_path, trained, monkeypatch):
    monkeypatch.setattr(
        "backbone.models.export._run_torch", lambda *_: {"logits": torch.zeros(3, 5)}
    )
    with pytest.raises(ValueError, match="differs from the original"):
        export_network(trained[1], tmp_path / "x.pt2", side_px=64, file_format="torch")
    assert not list(tmp_path.iterdir())


def test_unknown_formats_are_refused(tmp_path, trained):
    with pytest.raises(ValueError, match="unknown format 'tflite'"):
        export_network(trained[1], tmp_path / "x.tflite", side_px=64, file_format="tflite")
