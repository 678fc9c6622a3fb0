"""Faster R-CNN without a pyramid: crops of one map through the backbone's own end."""

import pytest
import torch

from backbone.models.backbone import build_backbone
from detection.models.config import Detectron2FasterRCNNConfig, TorchvisionFasterRCNNConfig
from detection.structures import batch_images
from small_detectors import C4, examples, make, needs_detectron2

ENGINES = [
    pytest.param(TorchvisionFasterRCNNConfig, id="torchvision"),
    pytest.param(Detectron2FasterRCNNConfig, id="detectron2", marks=needs_detectron2),
]
each_engine = pytest.mark.parametrize("engine", ENGINES)
SPECS = ["nasnet_a:2@96", "nasnet_a:1@2016", "pnasnet_5:2@160", "timm:resnet10t"]


def crop(detector, maps, box):
    """Return the crop of the one map that either engine takes for a box."""
    heads = detector.roi_heads
    if hasattr(heads, "box_roi_pool"):
        return heads.box_roi_pool(maps, [torch.tensor([box])], [(272, 272)])
    from detectron2.structures import Boxes

    return heads.pooler([maps["c4"]], [Boxes(torch.tensor([box]))])


def head_of(detector):
    heads = detector.roi_heads
    return heads.box_head[0] if hasattr(heads, "box_head") else heads.res5


@pytest.mark.parametrize("spec", SPECS)
@each_engine
def test_a_crop_of_the_whole_map_gives_the_backbone_s_own_c5(engine, spec):
    detector = make((engine, C4), spec=spec).eval()
    image = torch.rand(1, 3, 272, 272)  # 17 x 17 at stride 16
    with torch.inference_mode():
        maps = detector.neck(image)
        whole = crop(detector, maps, [0.0, 0.0, 272.0, 272.0])
        torch.testing.assert_close(whole, maps["c4"], rtol=0, atol=1e-6)
        expected = detector.backbone(image)["c5"].relu()
        assert expected.shape[-2:] == (9, 9)
        torch.testing.assert_close(head_of(detector)(maps["c4"]), expected, rtol=0, atol=0)
        torch.testing.assert_close(head_of(detector)(whole), expected, rtol=1e-4, atol=1e-5)


@each_engine
def test_a_crop_reads_its_own_part_of_the_map(engine):
    detector = make((engine, C4)).eval()
    columns = torch.arange(34.0).expand(1, 1, 34, 34)
    box = [16.0 * 4, 0.0, 16.0 * 21, 16.0 * 17]
    cells = crop(detector, {"c4": columns}, box)
    torch.testing.assert_close(cells[0, 0, 0], torch.arange(4.0, 21.0))


@each_engine
def test_every_place_of_the_one_map_has_anchors_of_all_sizes_and_ratios(engine):
    detector = make((engine, C4 | {"anchor_sizes": [64, 128, 256, 512]}))
    anchors = list(detector.rpn.anchor_generator.cell_anchors)
    assert [len(level) for level in anchors] == [12]
    sides = (anchors[0][:, 2] - anchors[0][:, 0]) * (anchors[0][:, 3] - anchors[0][:, 1])
    # torchvision rounds its anchors to whole pixels.
    assert {round(float(a) ** 0.5 / 16) * 16 for a in sides} == {64, 128, 256, 512}


@each_engine
def test_the_proposals_hidden_layer_is_as_wide_as_asked_for(engine):
    detector = make((engine, C4))
    convolutions = (
        [m for m in detector.rpn.head.modules() if isinstance(m, torch.nn.Conv2d)]
        if (hasattr(detector.rpn, "head"))
        else [m for m in detector.rpn.rpn_head.modules() if isinstance(m, torch.nn.Conv2d)]
    )
    assert convolutions[0].kernel_size == (3, 3)
    assert convolutions[0].out_channels == C4["rpn_channels"]
    assert {c.in_channels for c in convolutions[1:]} == {C4["rpn_channels"]}


@each_engine
def test_the_last_stack_learns_from_the_crops_alone(engine):
    detector = make((engine, C4)).train()
    images, targets = examples()
    seen = []
    last = detector.backbone.body.cells[-1]
    last.register_forward_hook(lambda _, __, output: seen.append(output.shape))
    losses = detector.losses(images, targets)
    assert [shape[2:] for shape in seen] == [(9, 9)]
    assert seen[0][0] > len(images)
    (losses["loss_box_reg"]).backward()
    assert all(p.grad is not None for p in last.parameters())


@pytest.mark.detectron2
def test_both_engines_see_the_same_map_and_the_same_head():
    pytest.importorskip("detectron2")
    one, other = (make((kind.values[0], C4)).eval() for kind in ENGINES)
    other.backbone.load_state_dict(one.backbone.state_dict())
    images, _ = examples()
    batch, _ = batch_images(images)
    box = [3.0, 5.0, 61.0, 40.0]
    with torch.inference_mode():
        maps = one.neck(batch)
        torch.testing.assert_close(maps, other.neck(batch))
        single = {"c4": maps["c4"][:1]}
        torch.testing.assert_close(crop(one, single, box), crop(other, single, box))
        crops = crop(one, single, box)
        torch.testing.assert_close(head_of(one)(crops), head_of(other)(crops))


def test_a_backbone_that_cannot_be_split_is_refused():
    with pytest.raises(ValueError, match=r"torchvision:mobilenet_v3_small cannot be split"):
        make((TorchvisionFasterRCNNConfig, C4), spec="torchvision:mobilenet_v3_small")


def test_levels_that_are_not_asked_for_do_not_matter():
    backbone = build_backbone("nasnet_a:1@96", out=("c4",))
    from detection.models.build import build_detector

    config = TorchvisionFasterRCNNConfig(**C4, anchor_sizes=[16])
    detector = build_detector(backbone, num_classes=1, config=config).eval()
    with torch.inference_mode():
        assert len(detector.predict([torch.rand(3, 64, 64)])) == 1
