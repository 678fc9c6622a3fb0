import math

import pytest
import timm
import torch
from torch import nn

from backbone.cells.published import PUBLISHED
from backbone.models.backbone import BackboneSpec, build_backbone
from backbone.profile.complexity import measure_cost, measure_memory, sized_spec
from backbone.profile.memory import LiveBytes, inference_bytes, training_step_bytes


def test_costs_are_those_that_are_known():
    cost = measure_cost(build_backbone("timm:resnet18"), side_px=224)
    head = 513 * 1000
    known = timm.create_model("resnet18")
    assert cost.parameters == sum(p.numel() for p in known.parameters()) - head
    assert cost.mult_adds == 1_814_073_344 - 512_000  # of the whole network, as often printed
    assert cost.activations == 2_483_712  # pycls counts 2.5 M


def test_grouped_convolutions_are_counted_by_their_filters():
    cost = measure_cost(build_backbone("nasnet_a:1@96"), side_px=64)
    wider = measure_cost(build_backbone("nasnet_a:1@96"), side_px=128)
    assert 3.5 < wider.mult_adds / cost.mult_adds < 4.5
    assert wider.parameters == cost.parameters


def test_live_bytes_rise_and_fall_with_the_tensors():
    with LiveBytes() as live:
        kept = torch.zeros(1000)
        dropped = torch.ones(500)
        assert live.now == 6000
        view = kept[10:]
        del dropped, kept
        assert live.now == 4000  # the view keeps its storage
        del view
    assert (live.now, live.peak) == (0, 6000)


def test_a_training_step_keeps_activations_that_inference_does_not():
    network = nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.Sigmoid()) for _ in range(8)))
    images = torch.randn(1000, 64)
    weights = sum(p.numel() for p in network.parameters()) * 4
    rows = images.numel() * 4
    # The images, what a block was given, and what its two layers make of it.
    assert inference_bytes(network, images) == pytest.approx(weights + 4 * rows, rel=0.05)
    # The images, and of every layer what the gradient needs: the sigmoid's result.
    training = training_step_bytes(network, images)
    assert weights + 9 * rows < training < 2 * weights + 14 * rows
    assert all(p.grad is None for p in network.parameters())


def test_shapes_alone_give_the_memory_that_tensors_take():
    torch.manual_seed(0)
    spec, images = "nasnet_a:1@192", torch.rand(2, 3, 64, 64)
    real = training_step_bytes(build_backbone(spec), images)
    shapes = measure_memory(BackboneSpec.parse(spec).build_meta(), side_px=64, batch_size=2)
    assert shapes.training == pytest.approx(real, rel=0.02)
    assert shapes.inference < shapes.checkpointed < shapes.training


def test_checkpointing_saves_more_than_half_of_the_large_network_s_memory():
    backbone = BackboneSpec.parse("nasnet_a:6@4032").build_meta()
    memory = measure_memory(backbone, side_px=331, batch_size=4)
    assert memory.checkpointed < 0.5 * memory.training


def test_stages_have_the_shapes_of_the_released_code():
    lines = build_backbone("nasnet_a:4@1056").summary(side_px=224).splitlines()
    words = [line.split("  ") for line in lines]
    table = {w[0]: [cell.strip() for cell in w[1:] if cell.strip()] for w in words}
    assert table["stem convolution"][0] == "32 x 111 x 111"
    assert table["reduction cell, 11 filters"][0] == "44 x 56 x 56"
    assert table["4 x normal cell, 88 filters"] == ["528 x 14 x 14", "689,920", "c4"]
    assert len(lines) == 10


def test_stages_of_other_backbones_are_their_maps():
    lines = build_backbone("timm:lcnet_050").summary(side_px=64).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["c2", "c3", "c4", "c5"]


@pytest.mark.parametrize("cells", ["nasnet_a", "pnasnet_5", "amoebanet_a"])
@pytest.mark.parametrize("mult_adds", [30e6, 200e6, 500e6])
def test_no_other_even_width_comes_nearer_to_what_was_asked_for(cells, mult_adds):
    genotype = PUBLISHED[cells]
    spec = sized_spec(cells, genotype, depth=1, mult_adds=mult_adds, side_px=224)
    found = int(spec.rpartition("@")[2]) // genotype.penultimate_filters(1)

    def distance(width):
        spec = BackboneSpec.parse(f"{cells}:{genotype.spec_size(depth=1, width=width)}")
        return abs(math.log(measure_cost(spec, side_px=224).mult_adds / mult_adds))

    widths = range(4, found + 12, 2)
    assert distance(found) == min(distance(width) for width in widths)


def test_cells_that_cannot_be_that_small_are_refused():
    with pytest.raises(ValueError, match="even the narrowest network of nasnet_a at depth 6"):
        sized_spec("nasnet_a", PUBLISHED["nasnet_a"], depth=6, mult_adds=1e5, side_px=64)
