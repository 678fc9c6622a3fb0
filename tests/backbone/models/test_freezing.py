import pytest
import torch

from backbone.models.backbone import LEVELS, build_backbone
from backbone.models.normalization import FrozenBatchNorm2d

SPECS = ["nasnet_a:1@96", "timm:resnet10t", "timm:lcnet_035", "torchvision:mobilenet_v3_small"]


@pytest.mark.parametrize("num_stages", range(6))
@pytest.mark.parametrize("spec", SPECS)
def test_what_the_frozen_maps_depend_on_is_frozen_and_nothing_else(spec, num_stages):
    backbone = build_backbone(spec).train()
    names = list(backbone.state_dict())
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.freeze_stages(num_stages)
    maps = backbone.train()(torch.rand(2, 3, 64, 64))
    for level, stride in zip(LEVELS, range(2, 6), strict=True):
        assert maps[level].requires_grad == (stride > num_stages)
    if num_stages < 5:
        sum(m.sum() for m in maps.values() if m.requires_grad).backward()
        assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)
    assert list(backbone.state_dict()) == names
    # Statistics move in what learns only.
    moved = {n for n, v in backbone.state_dict().items() if not torch.equal(v, before[n])}
    frozen = {n for n, m in backbone.named_modules() if isinstance(m, FrozenBatchNorm2d)}
    assert not {name.rpartition(".")[0] for name in moved} & frozen
    assert bool(moved) == (num_stages < 5)


@pytest.mark.parametrize("spec", SPECS)
def test_the_stem_is_frozen_alone(spec):
    backbone = build_backbone(spec)
    backbone.freeze_stages(1)
    frozen = [n for n, p in backbone.named_parameters() if not p.requires_grad]
    assert 0 < len(frozen) < len(list(backbone.parameters())) / 3
    assert next(iter(backbone.parameters())).requires_grad is False


def test_the_stem_of_a_resnet_is_its_first_convolutions():
    backbone = build_backbone("timm:resnet10t")
    backbone.freeze_stages(1)
    frozen = {n.split(".")[2] for n, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "bn1"}


@pytest.mark.parametrize("norm", ["sync", "frozen", "group"])
def test_other_normalization_is_frozen_too(norm):
    backbone = build_backbone("timm:resnet10t", norm=norm)
    backbone.freeze_stages(2)
    stem = backbone.body.model["layer1"]
    assert not any(p.requires_grad for p in stem.parameters())
    assert not any(isinstance(m, torch.nn.SyncBatchNorm) for m in stem.modules())


@pytest.mark.parametrize("spec", SPECS)
def test_more_stages_than_there_are_is_refused(spec):
    with pytest.raises(ValueError, match=r"frozen_stages must be at most 5, .* not 6"):
        build_backbone(spec).freeze_stages(6)
