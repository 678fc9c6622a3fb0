"""Every model of timm and torchvision gives correct maps or is refused with one sentence."""

import logging
import re

import pytest
import timm
import torch
import torchvision

from backbone.models import timm_backbone, torchvision_backbone
from backbone.models.backbone import LEVELS, BackboneSpec, build_backbone
from backbone.models.measurement import MapShape, deepest_maps, measure_maps
from backbone.profile.complexity import measure_cost

SIDES = (288, 352)
MAX_PARAMETERS = 500_000_000
"""2 GB of weights: larger models that the meta device cannot run are skipped by name."""

SPREAD = [
    "beit_base_patch16_224",
    "test_byobnet",
    "convnext_atto",
    "cs3darknet_focus_s",
    "cspnext_tiny",
    "darknet17",
    "deit_tiny_patch16_224",
    "dla46_c",
    "dpn48b",
    "efficientformerv2_s0",
    "efficientnet_lite0",
    "efficientvit_b0",
    "efficientvit_m0",
    "fasternet_t0",
    "fastvit_t8",
    "ghostnet_050",
    "hardcorenas_a",
    "hgnetv2_b0",
    "hiera_tiny_224",
    "inception_next_atto",
    "inception_v3",
    "lcnet_035",
    "legacy_seresnet18",
    "legacy_xception",
    "levit_128s",
    "mixer_s32_224",
    "mnasnet_small",
    "mobilenetv1_100",
    "mobilenetv2_035",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small_035",
    "mobilevitv2_050",
    "nest_tiny",
    "pit_ti_224",
    "poolformerv2_s12",
    "pvt_v2_b0",
    "regnetx_002",
    "repghostnet_050",
    "repvgg_a0",
    "repvit_m1",
    "resnest14d",
    "resnet10t",
    "resnetv2_18",
    "rexnet_100",
    "selecsls42",
    "shvit_s1",
    "skresnet18",
    "starnet_s050",
    "swin_tiny_patch4_window7_224",
    "test_maxvit",
    "test_nfnet",
    "test_vit",
    "tiny_vit_5m_224",
    "tresnet_m",
    "vgg11",
    "vit_tiny_patch16_224",
    "vovnet39a",
    "xception41",
]
"""A light model for each of most families of timm."""
TORCHVISION_SPREAD = [
    "alexnet",
    "googlenet",
    "mobilenet_v3_small",
    "resnet18",
    "swin_t",
    "swin_v2_t",
    "vit_b_16",
]


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.ERROR)


def check_model(spec):
    """Check that a backbone is what it states, and return its maps' shapes or its refusal."""
    try:
        backbone = BackboneSpec.parse(spec).build_meta()
    except ValueError as error:
        message = str(error)
        assert message.startswith(spec)
        assert "\n" not in message
        return message
    maps = backbone(torch.empty(1, 3, *SIDES, device="meta"))
    assert tuple(maps) == backbone.out
    for level, features in maps.items():
        stride = 4 * 2 ** LEVELS.index(level)
        assert backbone.strides[level] == stride
        sides = tuple(side // stride for side in SIDES)
        assert features.shape == (1, backbone.channels[level], *sides)
    return {level: tuple(features.shape[1:]) for level, features in maps.items()}


@pytest.mark.parametrize(
    "spec",
    [f"timm:{name}" for name in SPREAD] + [f"torchvision:{name}" for name in TORCHVISION_SPREAD],
)
def test_a_model_of_each_family_gives_correct_maps_or_one_sentence(spec):
    check_model(spec)


def every_model():
    """All models; those of torchvision and every tenth of timm are tested by CI, too."""
    for name in torchvision.models.list_models(module=torchvision.models):
        yield pytest.param(f"torchvision:{name}", marks=pytest.mark.ci)
    for index, name in enumerate(timm.list_models()):
        yield pytest.param(f"timm:{name}", marks=[] if index % 10 else [pytest.mark.ci])


def count_parameters(family, name):
    """Count a model's parameters without allocating them."""
    if family == "torchvision":  # RegNet cannot be built on the meta device
        return torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
    with torch.device("meta"):
        return sum(p.numel() for p in timm.create_model(name).parameters())


@pytest.mark.slow
@pytest.mark.parametrize("spec", list(every_model()))
def test_every_model_gives_correct_maps_or_one_sentence(spec, monkeypatch):
    family, _, name = spec.partition(":")
    module = {"timm": timm_backbone, "torchvision": torchvision_backbone}[family]
    with monkeypatch.context() as patched:
        patched.setattr(module, "DEVICES", ("meta",))
        result = check_model(spec)
    if isinstance(result, str):  # does the model refuse, or the meta device?
        num_parameters = count_parameters(family, name)
        if num_parameters > MAX_PARAMETERS:
            pytest.skip(f"{num_parameters:,} parameters, not run on the CPU: {result}")
        module.measure_model.cache_clear()
        check_model(spec)


def test_the_cost_of_a_model_that_is_created_from_values_of_tensors_is_counted():
    # RegNet cannot be created on the meta device.
    before = torch.get_rng_state()
    cost = measure_cost(BackboneSpec.parse("torchvision:regnet_x_400mf"), side_px=224)
    assert torch.equal(torch.get_rng_state(), before)
    weights = torchvision.models.RegNet_X_400MF_Weights.DEFAULT.meta
    head = 400 * 1000 + 1000
    assert cost.parameters == weights["num_params"] - head
    assert cost.mult_adds == pytest.approx(1e9 * weights["_ops"], rel=0.01)


def test_stages_of_dla34_are_chosen_by_their_stride():
    # Its first map has stride 1 and is not among timm's default ones.
    assert check_model("timm:dla34") == {
        "c2": (64, 72, 88), "c3": (128, 36, 44), "c4": (256, 18, 22), "c5": (512, 9, 11),
    }  # fmt: skip


def test_a_model_of_one_stride_gives_the_map_of_its_last_block():
    backbone = build_backbone("timm:test_vit")
    assert backbone.out == ("c4",)
    assert len(backbone.body.model.model.blocks) == len(timm.create_model("test_vit").blocks)
    message = r"timm:test_vit has no maps \['c2', 'c3', 'c5'\]; it has only \['c4'\]"
    with pytest.raises(ValueError, match=message):
        build_backbone("timm:test_vit", out=LEVELS)


@pytest.mark.parametrize("side_px", [96, 80, 100])
def test_a_model_of_one_image_size_takes_others_where_timm_has_an_option_for_it(side_px):
    backbone = build_backbone("timm:test_vit").eval()
    with torch.inference_mode():
        maps = backbone(torch.rand(1, 3, side_px, side_px))
    assert maps["c4"].shape[-1] == -(-side_px // 16)


def test_maps_with_channels_last_are_permuted():
    with torch.device("meta"):
        backbone = build_backbone("timm:swin_tiny_patch4_window7_224")
    assert backbone.channels_last == set(LEVELS)
    assert check_model("timm:swin_tiny_patch4_window7_224")["c5"] == (768, 9, 11)
    assert check_model("torchvision:swin_v2_t")["c2"] == (96, 72, 88)


def test_a_map_that_is_one_row_short_is_padded():
    backbone = build_backbone("torchvision:alexnet").eval()
    assert backbone.inexact == set(LEVELS)
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        maps = backbone(images)
        short = backbone.body(backbone.normalize(images))
    for level, stride in backbone.strides.items():
        height, width = short[level].shape[2:]
        assert maps[level].shape[2:] == (64 // stride, 96 // stride)
        assert torch.equal(maps[level][..., :height, :width], short[level])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("timm:inception_v3", r"no feature maps at strides 4, 8, 16 or 32 .*256 x 192 px"),
        ("timm:nest_tiny", "for images of any size"),
        ("torchvision:vit_b_16", "for images of any size"),
    ],
)
def test_what_gives_no_maps_is_refused_with_one_sentence(spec, message):
    result = check_model(spec)
    assert isinstance(result, str)
    assert re.search(message, result)


def test_maps_are_told_apart_by_two_sizes():
    def outputs(images):
        height, width = images.shape[2:]
        return {
            "exact": images.new_empty(1, 5, height // 8, width // 8),
            "channels last": images.new_empty(1, height // 16, width // 16, 7),
            "short": images.new_empty(1, 3, height // 4 - 1, width // 4 - 1),
            "a table": images.new_empty(1, 9, 64, 48),  # stride 4 of the first size only
            "tokens": images.new_empty(1, height * width // 256, 7),
        }

    assert measure_maps(outputs) == {
        "exact": MapShape(5, 8),
        "channels last": MapShape(7, 16, is_channels_last=True),
        "short": MapShape(3, 4, is_exact=False),
    }


def test_the_deepest_map_of_a_stride_is_chosen_and_exact_ones_come_first():
    shapes = {0: MapShape(1, 8), 1: MapShape(2, 8), 2: MapShape(3, 4), 3: MapShape(4, 8, False)}
    assert {level: key for level, (key, _) in deepest_maps(shapes).items()} == {"c2": 2, "c3": 1}


def test_a_model_is_created_once_per_build(monkeypatch):
    build_backbone("timm:lcnet_035")  # measures it
    names = []
    create = timm.create_model
    monkeypatch.setattr(
        timm_backbone.timm, "create_model", lambda *a, **k: names.append(a) or create(*a, **k)
    )
    build_backbone("timm:lcnet_035")
    assert len(names) == 1


def test_measuring_draws_no_random_numbers():
    timm_backbone.measure_model.cache_clear()
    torch.manual_seed(0)
    first = build_backbone("timm:lcnet_035")
    torch.manual_seed(0)
    second = build_backbone("timm:lcnet_035")
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
