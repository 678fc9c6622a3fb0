import copy

import pytest
import torch

from backbone.models.backbone import build_backbone

SPECS = [
    "nasnet_a:1@96",
    "nasnet_a:2@2016",
    "pnasnet_5:2@160",
    "timm:resnet10t",
    "timm:regnetx_002",
]


@pytest.mark.parametrize("spec", SPECS)
def test_the_second_part_makes_c5_of_the_first_part_s_map(spec):
    torch.manual_seed(0)
    backbone = build_backbone(spec).eval()
    split = backbone.c4_split()
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        between = split.forward_c4(images)
        assert between.shape == (1, split.channels, 4, 6)
        result = split.forward_c5(between)
        assert result.shape[1] == split.out_channels
        assert torch.equal(result, backbone(images)["c5"])


def test_of_cells_the_map_is_what_the_last_reduction_cell_reads():
    backbone = build_backbone("nasnet_a:6@384").eval()
    seen = []
    backbone.body.cells[backbone.body.last_reduction].register_forward_hook(
        lambda _, inputs, __: seen.append(inputs)
    )
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        backbone(images)
        between = backbone.c4_split().forward_c4(images)
    assert torch.equal(between, torch.cat(seen[0], dim=1))


def test_6_at_4032_is_split_as_the_released_code_does():
    with torch.device("meta"):
        backbone = build_backbone("nasnet_a:6@4032")
        split = backbone.c4_split()
        # Two stem cells, six cells, a reduction cell, six cells: Cell_10 and Cell_11 are the last.
        assert backbone.body.last_reduction == 2 + 6 + 1 + 6
        assert split.forward_c4(torch.empty(1, 3, 224, 224)).shape == (1, 4032, 14, 14)
        assert split.forward_c5(torch.empty(2, 4032, 17, 17)).shape == (2, 4032, 9, 9)


@pytest.mark.parametrize("spec", ["nasnet_a:1@96", "timm:resnet10t"])
def test_saving_memory_changes_neither_gradients_nor_statistics(spec):
    torch.manual_seed(0)
    plain = build_backbone(spec).train()
    saving = copy.deepcopy(plain)
    saving.checkpoint_activations()
    images = torch.rand(2, 3, 64, 64)
    for backbone in (plain, saving):
        split = backbone.c4_split()
        split.forward_c5(split.forward_c4(images)).square().mean().backward()
    for one, other in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(saving.state_dict()[name], value, msg=name)


def test_a_copy_of_the_split_runs_the_copied_backbone():
    holder = torch.nn.Module()
    holder.backbone = build_backbone("nasnet_a:1@96").eval()
    holder.split = holder.backbone.c4_split()
    twin = copy.deepcopy(holder)
    for parameter in holder.parameters():
        parameter.data.zero_()
    with torch.inference_mode():
        assert twin.split.forward_c4(torch.rand(1, 3, 64, 64)).any()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchvision:mobilenet_v3_small", r"torchvision:mobilenet_v3_small cannot be split"),
        ("pnasnet_5:1@160", r"N = 1, stem 'imagenet' cannot be split .* strides \[8, 16\]"),
    ],
)
def test_what_cannot_be_split_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(spec).c4_split()
