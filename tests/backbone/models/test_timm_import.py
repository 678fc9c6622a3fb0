"""Our networks against timm's and Cadene's, which nobody here wrote."""

import pytest
import timm
import torch
from pretrainedmodels.models.nasnet_mobile import NASNetAMobile
from safetensors.torch import save_file

from backbone.cells.published import NASNET_A, PNASNET_5
from backbone.models.cell_network import CellNetwork, NetworkConfig
from backbone.models.checkpoint import load_backbone
from backbone.models.timm_import import import_weights, load_released, released_names

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
        logits = head_of(theirs)(maps["c5"].relu().mean(dim=(2, 3)))
        expected_logits = theirs(images)
    maps["c5"] = maps["c5"].relu()
    for level, expected in seen.items():
        assert (maps[level] - expected).norm() < 1e-8 * expected.norm()
    assert (logits - expected_logits).norm() < 1e-8 * expected_logits.norm()


def head_of(model):
    """A linear layer with a released classifier's weights."""
    head = torch.nn.Linear(*model.last_linear.weight.T.shape, dtype=torch.float64)
    head.load_state_dict(model.last_linear.state_dict())
    return head


def test_the_mobile_network_s_logits_are_those_of_cadene():
    torch.manual_seed(0)
    theirs = NASNetAMobile(num_classes=3).double().eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    ours = CellNetwork(NASNET_A, NetworkConfig(num_cells=4, filters=1056)).double().eval()
    load_released(ours, theirs.state_dict(), source="pretrainedmodels")
    images = torch.randn(1, 3, 224, 224, dtype=torch.float64)  # the one size that theirs can
    with torch.inference_mode():
        logits = head_of(theirs)(ours(images)["c5"].relu().mean(dim=(2, 3)))
        expected = theirs(images)
    assert (logits - expected).norm() < 1e-8 * expected.norm()


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


def mobile_state_dict():
    """A mobile NASNet-A's tensors under Cadene's names, as small as they get."""
    torch.manual_seed(0)
    network = CellNetwork(NASNET_A, NetworkConfig(num_cells=1, filters=96, stem_filters=4))
    names = released_names(network)
    tensors = {names[ours]: t for ours, t in network.state_dict().items() if ours in names}
    return network, tensors | {"last_linear.weight": torch.zeros(1000, 96)}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_imported_file_is_a_backbone(tmp_path, suffix):
    network, tensors = mobile_state_dict()
    source = tmp_path / f"released{suffix}"
    (torch.save if suffix == ".pth" else save_file)(tensors, source)
    import_weights(str(source), tmp_path / "backbone.safetensors", spec="nasnet_a:1@96")
    backbone = load_backbone(tmp_path / "backbone.safetensors").eval()
    images = torch.rand(1, 3, 64, 64)
    expected = network.eval()((images - 0.5) / 0.5)
    for level, found in backbone(images).items():
        torch.testing.assert_close(found, expected[level])


@pytest.mark.parametrize(
    ("source", "spec", "message"),
    [
        ("damaged.pth", "nasnet_a:1@96", "damaged.pth cannot be read"),
        ("damaged.safetensors", "nasnet_a:1@96", "damaged.safetensors cannot be read"),
        ("list.pth", "nasnet_a:1@96", "holds no state dict"),
        ("good.pth", "nasnet_a:1@120", "belongs to another architecture"),
        ("good.pth", "timm:resnet18", "not into 'timm:resnet18'"),
        ("timm:nasnetlarge", "nasnet_a:6@4032", "no released weights for a model 'nasnetlarge'"),
    ],
)
def test_what_cannot_be_imported_is_refused_and_nothing_is_written(
    source, spec, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    torch.save(mobile_state_dict()[1], "good.pth")
    torch.save([1, 2], "list.pth")
    for suffix in (".pth", ".safetensors"):
        (tmp_path / f"damaged{suffix}").write_bytes((tmp_path / "good.pth").read_bytes()[:1000])
    with pytest.raises(ValueError, match=message):
        import_weights(source, tmp_path / "out" / "backbone.safetensors", spec=spec)
    assert not (tmp_path / "out").exists()
