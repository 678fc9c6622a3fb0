import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from backbone.models.backbone import build_backbone
from backbone.models.checkpoint import load_backbone, save_backbone
from backbone.models.normalization import NORMS, FrozenBatchNorm2d, convert_norm

SPECS = ("nasnet_a:1@96", "timm:mobilenetv2_035", "torchvision:resnet18")


@pytest.fixture(scope="module", params=SPECS)
def trained(request):
    """A backbone whose statistics and affine parameters are no longer those of its start."""
    torch.manual_seed(0)
    backbone = build_backbone(request.param)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return backbone


@pytest.mark.parametrize("norm", ["frozen", "sync"])
def test_the_same_tensors_give_the_same_maps(trained, norm):
    converted = replace(trained.spec, norm=norm).build()
    converted.load_state_dict(trained.state_dict())
    images = torch.rand(2, 3, 64, 64)
    trained.eval()
    if norm == "sync":  # frozen statistics need not be told
        converted.eval()
    with torch.no_grad():
        for level, expected in trained(images).items():
            found = converted(images)[level]
            if norm == "frozen":
                converted.eval()  # other parts, such as dropout, may differ in training
                found = converted(images)[level]
            torch.testing.assert_close(found, expected)


def test_frozen_normalization_neither_learns_nor_moves(trained):
    backbone = replace(trained.spec, norm="frozen").build().train()
    norms = [m for m in backbone.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert norms
    assert not any(isinstance(m, nn.BatchNorm2d) and m.training for m in backbone.modules())
    assert not any(p.requires_grad for m in norms for p in m.parameters(recurse=False))


@pytest.mark.parametrize("spec", SPECS)
def test_group_normalization_sees_each_image_by_itself(spec):
    torch.manual_seed(0)
    backbone = build_backbone(spec, norm="group").train()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())
    images = torch.rand(2, 3, 64, 64)
    together, alone = backbone(images), backbone(images[:1])
    for level, maps in together.items():
        torch.testing.assert_close(maps[:1], alone[level], rtol=1e-4, atol=1e-4)


def test_a_file_remembers_group_normalization(tmp_path):
    torch.manual_seed(0)
    backbone = build_backbone("nasnet_a:1@96", norm="group")
    path = tmp_path / "backbone.safetensors"
    save_backbone(path, backbone, nn.Linear(96, 2), classes=["a", "b"], metrics={}, provenance={})
    images = torch.rand(1, 3, 64, 64)
    expected = backbone.eval()(images)["c5"]
    torch.testing.assert_close(load_backbone(path).eval()(images)["c5"], expected)
    torch.testing.assert_close(
        build_backbone(str(path), norm="group").eval()(images)["c5"], expected
    )
    with pytest.raises(ValueError, match="another normalization than 'frozen'"):
        build_backbone(str(path), norm="frozen")


def test_unknown_normalization_is_refused():
    with pytest.raises(ValueError, match="unknown norm 'layer'; choose from"):
        convert_norm(nn.Identity(), "layer")
    with pytest.raises(ValueError, match="unknown norm 'layer'; choose from"):
        build_backbone("nasnet_a:1@96", norm="layer")


def test_released_weights_are_for_batch_normalization():
    with pytest.raises(ValueError, match="released weights are for batch normalization"):
        build_backbone("timm:resnet18", norm="group", pretrained=True)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("spec", ["nasnet_a:1@96", "timm:mobilenetv2_035"])
def test_saving_memory_changes_no_gradients_and_no_statistics_of_cells(spec, norm):
    torch.manual_seed(0)
    plain = build_backbone(spec, norm=norm).train()
    saving = copy.deepcopy(plain)
    saving.checkpoint_activations()
    images = torch.rand(2, 3, 64, 64)
    for backbone in (plain, saving):
        backbone(images)["c5"].square().mean().backward()
    for one, other in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    if spec.startswith("timm"):
        return  # timm's own way moves statistics twice
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(saving.state_dict()[name], value, msg=name)
