"""Our networks against timm's, which nobody here wrote."""

import pytest
import timm
import torch

from backbone.network import CellNetwork, NetworkConfig
from backbone.published import NASNET_A, PNASNET_5
from backbone.released import load_released, released_names

NETWORKS = {
    "nasnetalarge": (
        NASNET_A,
        NetworkConfig(
            num_cells=6,
            filters=4032,
            stem_filters=96,
            skip_reduction_input=True,
            average_counts_padding=True,
        ),
    ),
    "pnasnet5large": (PNASNET_5, NetworkConfig(num_cells=4, filters=4320, stem_filters=96)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(96, 128), (107, 75)], ids=str)
def test_maps_and_features_are_those_of_timm(name, size):
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=3).double().eval()
    for module in theirs.modules():  # statistics that are neither 0 nor 1
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    with torch.device("meta"):
        ours = CellNetwork(*NETWORKS[name])
    ours = ours.to_empty(device="cpu").double().eval()
    load_released(ours, theirs.state_dict(), source="timm")
    images = torch.randn(1, 3, *size, dtype=torch.float64)
    seen = {}

    def keep(level):
        return lambda _, __, output: seen.update({level: output})

    hooked = {"c2": "cell_stem_0", "c3": "cell_5", "c4": "cell_11"}
    if name == "pnasnet5large":
        hooked = {"c2": "cell_stem_0", "c3": "cell_3", "c4": "cell_7"}
    for level, module in hooked.items():
        getattr(theirs, module).register_forward_hook(keep(level))
    with torch.inference_mode():
        maps = ours(images)
        seen["c5"] = theirs.forward_features(images)
    maps["c5"] = maps["c5"].relu()
    for level, expected in seen.items():
        assert (maps[level] - expected).norm() < 1e-8 * expected.norm()


def test_the_mobile_network_leaves_out_the_numbers_that_its_stacks_lack():
    with torch.device("meta"):
        mobile = CellNetwork(NASNET_A, NetworkConfig(num_cells=4, filters=1056))
    cells = {name.split(".")[0] for name in released_names(mobile).values()}
    normal = {int(name.removeprefix("cell_")) for name in cells if name[5:].isdigit()}
    assert normal == {*range(4), *range(6, 10), *range(12, 16)}
    assert len(released_names(mobile)) + 2 == 1126  # with the classifier's two tensors


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("cell_3.conv_1x1.bn.weight"), "'cell_3.conv_1x1.bn.weight' is missing"),
        (lambda t: t.update(other=torch.zeros(1)), "'other' is not part of it"),
        (
            lambda t: t.update({"conv0.conv.weight": torch.zeros(1, device="meta")}),
            "'conv0.conv.weight' has another shape",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_by_its_released_name(edit, message):
    with torch.device("meta"):
        network = CellNetwork(*NETWORKS["nasnetalarge"])
        tensors = timm.create_model("nasnetalarge").state_dict()
    edit(tensors)
    with pytest.raises(ValueError, match=message):
        load_released(network, tensors, source="released.pth")
