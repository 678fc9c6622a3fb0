import json

import pytest
import torch

from backbone.cells.published import NASNET_A
from backbone.models.backbone import LEVELS, build_backbone
from backbone.models.classifier import Classifier
from backbone.profile.complexity import measure_cost

SPECS = ["nasnet_a:1@96", "timm:lcnet_035", "timm:resnet10t", "torchvision:mobilenet_v3_small"]


@pytest.mark.parametrize("spec", SPECS)
def test_a_backbone_gives_the_maps_that_it_announces(spec):
    backbone = build_backbone(spec).eval()
    with torch.inference_mode():
        maps = backbone(torch.rand(1, 3, 64, 96))
    assert tuple(maps) == LEVELS
    for level, stride in zip(LEVELS, (4, 8, 16, 32), strict=True):
        assert backbone.strides[level] == stride
        assert maps[level].shape == (1, backbone.channels[level], 64 // stride, 96 // stride)


def test_images_are_normalized_with_what_the_weights_expect():
    backbone = build_backbone("torchvision:mobilenet_v3_small")
    seen = []
    backbone.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    backbone.eval()(torch.full((1, 3, 32, 32), 0.5))
    expected = (0.5 - torch.tensor(backbone.mean)) / torch.tensor(backbone.std)
    torch.testing.assert_close(seen[0][0, :, 0, 0], expected)


@pytest.mark.parametrize("spec", ["nasnet_a:1@96", "timm:lcnet_035"])
def test_a_grayscale_backbone_sees_no_colours(spec):
    red, grey = torch.zeros(2, 1, 3, 64, 64)
    red[:, 0] = 1
    grey[:] = 0.2989  # the luma of red, ITU-R BT.601
    seen = []
    for grayscale in (True, False):
        backbone = build_backbone(spec, grayscale=grayscale).eval()
        backbone.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        backbone(red), backbone(grey)
    torch.testing.assert_close(seen[0], seen[1], atol=1e-3, rtol=0)
    assert (seen[2] - seen[3]).abs().max() > 0.5


def test_a_cells_file_is_a_backbone(tmp_path):
    path = tmp_path / "cells.json"
    path.write_text(json.dumps(NASNET_A.to_dict()))
    torch.manual_seed(0)
    from_file = build_backbone(f"{path}:1@96")
    torch.manual_seed(0)
    published = build_backbone("nasnet_a:1@96")
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(from_file.eval()(image), published.eval()(image))
    assert from_file.spec == published.spec


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nasnet_b:4@1056", r"unknown cells 'nasnet_b' .* close matches are \['nasnet_a'\]"),
        ("resnet50", "unknown backbone spec 'resnet50'"),
        ("tim:resnet50", "did you mean 'timm'"),
        ("timm:resnet5000", "close matches are .*resnet50"),
        ("torchvision:resnet5", "close matches are .*resnet50"),
        ("nasnet_a:4@1000", "the nearest are 984 and 1008"),
        ("nasnet_a:0@96", "at least 1 normal cell"),
    ],
)
def test_a_wrong_spec_names_what_is_near(spec, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(spec)


def test_a_missing_cells_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere/cells\.json"):
        build_backbone("nowhere/cells.json:2@96")


def test_an_image_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="at least 32 pixels"):
        build_backbone("nasnet_a:1@96")(torch.rand(1, 3, 31, 64))


def test_cells_have_no_released_weights():
    with pytest.raises(ValueError, match="no released weights"):
        build_backbone("nasnet_a:1@96", pretrained=True)


@pytest.mark.parametrize(
    ("spec", "side_px", "mult_adds"),
    [
        ("nasnet_a:4@1056", 224, 563_638_816),
        ("nasnet_a:6@4032", 331, 23_783_414_658),
        ("pnasnet_5:4@4320", 331, 24_937_395_792),
        # 100,352 more than counted elsewhere: one filter of a factorized reduction of 27 channels,
        # 32 inputs at 56 x 56 places; see the numbers of parameters in test_network.py.
        ("pnasnet_5:3@1080", 224, 587_293_200),
    ],
)
def test_mult_adds_are_the_published_ones(spec, side_px, mult_adds):
    with torch.device("meta"):
        backbone = build_backbone(spec)
    head = backbone.channels["c5"] * 1000
    assert measure_cost(backbone, side_px=side_px).mult_adds + head == mult_adds


def test_a_classifier_gives_a_logit_for_each_class():
    classifier = Classifier(build_backbone("nasnet_a:1@96"), num_classes=7)
    assert classifier(torch.rand(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize("spec", ["timm:lcnet_035", "torchvision:resnet18"])
def test_weights_that_cannot_be_downloaded_are_one_sentence(spec, monkeypatch):
    def offline(*arguments, **options):
        raise OSError("An error happened. Please check your connection.\nMore lines.")

    build_backbone(spec)  # its maps are measured before
    monkeypatch.setattr("timm.create_model", offline)
    monkeypatch.setattr("torchvision.models.get_model", offline)
    with pytest.raises(ConnectionError) as caught:
        build_backbone(spec, pretrained=True)
    assert str(caught.value) == (
        f"cannot load the released weights of {spec}, which are downloaded once (An error "
        "happened); without pretrained, weights are random"
    )
    with pytest.raises(OSError, match="More lines"):
        build_backbone(spec)
