import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from backbone.cells.genotype import OPERATION_NAMES, Block, CellSpec, Edge, Genotype
from backbone.cells.published import NASNET_A, PNASNET_5, PUBLISHED
from backbone.models.cell import Cell
from backbone.models.cell_network import (
    CellNetwork,
    NetworkConfig,
    first_filters,
    plan_cells,
)
from backbone.models.normalization import BatchNorm, convert_norm
from backbone.models.operations import (
    FULL,
    OPERATIONS,
    FactorizedReduction,
    SamePool2d,
    same_padding,
)

EVERY_OPERATION = Genotype(
    *[
        CellSpec.from_blocks(
            Block(Edge(a, i % 2), Edge(b, (i + 1) % 2), ("add", "concat")[i % 2])
            for i, (a, b) in enumerate(
                zip(OPERATION_NAMES[::2], OPERATION_NAMES[1::2], strict=False)
            )
        )
        for _ in range(2)
    ]
)


@pytest.mark.parametrize(
    ("config", "side", "shapes"),
    [
        (
            {"num_cells": 4, "filters": 1056},
            224,
            {"c2": (44, 56), "c3": (264, 28), "c4": (528, 14), "c5": (1056, 7)},
        ),
        (
            {
                "num_cells": 6,
                "filters": 4032,
                "stem_filters": 96,
                "skip_reduction_input": True,
            },
            331,
            {"c2": (168, 83), "c3": (1008, 42), "c4": (2016, 21), "c5": (4032, 11)},
        ),
        (
            {"num_cells": 6, "filters": 768, "stem": "cifar"},
            32,
            {"c0": (192, 32), "c1": (384, 16), "c2": (768, 8)},
        ),
    ],
    ids=["mobile", "large", "cifar"],
)
def test_maps_have_the_shapes_of_the_released_code(config, side, shapes):
    with torch.device("meta"):
        network = CellNetwork(NASNET_A, NetworkConfig(**config)).eval()
        maps = network(torch.empty(1, 3, side, side))
    assert {name: (m.shape[1], m.shape[2]) for name, m in maps.items()} == shapes
    assert {name: c for name, (c, _) in shapes.items()} == network.channels


@pytest.mark.parametrize("genotype", PUBLISHED.values(), ids=PUBLISHED)
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_every_published_genotype_stacks_and_learns(genotype, stem):
    torch.manual_seed(0)
    filters = genotype.penultimate_filters(12)  # an odd width in the stem's cells
    network = CellNetwork(genotype, NetworkConfig(num_cells=2, filters=filters, stem=stem))
    maps = network(torch.randn(2, 3, 64, 64))
    assert {name: m.shape[1] for name, m in maps.items()} == network.channels
    assert list(network.channels.values())[-1] == filters
    for name, m in maps.items():
        assert 64 / m.shape[-1] == network.strides[name]
    sum(m.square().mean() for m in maps.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_without_a_reduction_cell_the_first_of_a_stack_halves_the_map():
    config = NetworkConfig(num_cells=3, filters=480)
    plan = plan_cells(config, 24, reduction_cells=False)
    assert [step.reduces for step in plan] == [True] * 2 + [False] * 3 + 2 * [True, False, False]
    assert [step.filters for step in plan] == [6, 12] + 3 * [24] + 3 * [48] + 3 * [96]
    # Every cell reads the two outputs before it.
    assert [step.older for step in plan] == [None, *range(10)]


def test_filters_that_do_not_divide_are_refused_with_the_nearest_two():
    with pytest.raises(
        ValueError, match="multiple of 24, 96 or more; the nearest are 984 and 1008"
    ):
        first_filters(NASNET_A, 1000)
    with pytest.raises(ValueError, match="the nearest are 96 and 120"):
        first_filters(NASNET_A, 24)
    assert first_filters(NASNET_A, 4032) == 168
    assert NASNET_A.penultimate_filters(44) == 1056


@settings(max_examples=15, deadline=None)
@given(height=st.integers(32, 71), width=st.integers(32, 71), n=st.integers(1, 2))
def test_any_image_size_gives_maps_at_most_one_short_of_their_stride(height, width, n):
    filters = EVERY_OPERATION.penultimate_filters(4)
    with torch.device("meta"):
        network = CellNetwork(EVERY_OPERATION, NetworkConfig(num_cells=n, filters=filters)).eval()
        maps = network(torch.empty(1, 3, height, width))
    for name, stride in network.strides.items():
        for side, found in zip((height, width), maps[name].shape[2:], strict=True):
            assert abs(found - side / stride) <= 1
            assert side % 32 or found == side // stride


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize("skip", [False, True])
def test_every_weight_of_every_operation_gets_a_gradient(stem, skip):
    torch.manual_seed(0)
    config = NetworkConfig(
        num_cells=1,
        filters=EVERY_OPERATION.penultimate_filters(4),
        stem=stem,
        skip_reduction_input=skip,
        stem_filters=8,
    )
    network = CellNetwork(EVERY_OPERATION, config)
    maps = network(torch.randn(2, 3, 64, 64))
    sum((m.relu() ** 2).mean() for m in maps.values()).backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [(4, 4), (4, 6)])
@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("convolutions", OPERATIONS)
def test_an_operation_divides_both_sides_by_its_stride_rounded_up(
    convolutions, name, channels, stride
):
    operation = OPERATIONS[convolutions][name](*channels, stride, BatchNorm)
    out = operation(torch.randn(2, channels[0], 7, 10))
    assert out.shape == (2, channels[1], -(-7 // stride), -(-10 // stride))


@pytest.mark.parametrize("side", [5, 6, 7, 8])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("kind", "kernel"), [("max", 2), *((kind, k) for kind in ("max", "avg") for k in (3, 5, 7))]
)
def test_pooling_leaves_the_padding_out(kind, kernel, stride, side):
    values = torch.randn(side, dtype=torch.float64)
    image = values.expand(side, side)[None, None]
    before, _ = same_padding(side, kernel=kernel, stride=stride)
    starts = range(-before, side - before, stride)
    windows = [values[max(start, 0) : start + kernel] for start in starts]
    expected = torch.stack([w.max() if kind == "max" else w.mean() for w in windows])
    out = SamePool2d(kind, kernel, stride=stride)(image)[0, 0, 0]
    torch.testing.assert_close(out, expected[: -(-side // stride)])


def test_same_padding_puts_the_odd_row_last():
    assert same_padding(8, kernel=3, stride=2) == (0, 1)
    assert same_padding(7, kernel=3, stride=2) == (1, 1)
    assert same_padding(8, kernel=7, stride=2) == (2, 3)
    assert same_padding(8, kernel=5, stride=1) == (2, 2)


def test_a_factorized_reduction_reads_grids_one_pixel_apart():
    reduction = FactorizedReduction(1, 2, norm=lambda _: nn.Identity())
    nn.init.ones_(reduction.even.weight)
    nn.init.ones_(reduction.odd.weight)
    image = torch.arange(9.0).view(1, 1, 3, 3)
    out = reduction(image)
    torch.testing.assert_close(out[0, 0], torch.tensor([[0.0, 2.0], [6.0, 8.0]]))
    torch.testing.assert_close(out[0, 1], torch.tensor([[4.0, 0.0], [0.0, 0.0]]))


def test_of_an_odd_width_the_shifted_grid_gives_one_channel_more():
    reduction = FactorizedReduction(4, 3, norm=BatchNorm)
    assert (reduction.even.out_channels, reduction.odd.out_channels) == (1, 2)
    assert reduction(torch.zeros(2, 4, 5, 6)).shape == (2, 3, 3, 3)


def make_cell(block):
    spec = CellSpec(blocks=(block,), concat=(2,))
    cell = Cell(
        spec, older_channels=1, newer_channels=1, channels=1, stride=1, norm=lambda _: nn.Identity()
    )
    cell.align_older = cell.align_newer = nn.Identity()
    return cell


def test_add_block_sums_its_two_edges():
    cell = make_cell(Block(Edge("identity", 0), Edge("identity", 1), "add"))
    out = cell(torch.full((1, 1, 2, 2), 3.0), torch.full((1, 1, 2, 2), 4.0))
    torch.testing.assert_close(out, torch.full((1, 1, 2, 2), 7.0))


def test_concat_block_is_brought_back_to_the_width_of_a_state():
    cell = make_cell(Block(Edge("identity", 0), Edge("identity", 1), "concat"))
    nn.init.constant_(cell.squeeze[0][1].weight, 0.5)
    out = cell(torch.full((1, 1, 2, 2), 3.0), torch.full((1, 1, 2, 2), 4.0))
    torch.testing.assert_close(out, torch.full((1, 1, 2, 2), 3.5))


def test_frozen_normalization_keeps_its_statistics_and_does_not_learn():
    network = CellNetwork(NASNET_A, NetworkConfig(num_cells=1, filters=96))
    before = {n: b.clone() for n, b in network.state_dict().items() if "running" in n}
    convert_norm(network, "frozen")
    network.train()
    network(torch.randn(2, 3, 64, 64))
    after = network.state_dict()
    assert all(torch.equal(after[n], b) for n, b in before.items())
    assert before.keys() <= after.keys()
    trained = {n for n, p in network.named_parameters() if p.requires_grad}
    norms = {n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert not {n for n in trained if n.rpartition(".")[0] in norms}


def test_a_strided_factored_convolution_sees_every_pixel():
    operation = FULL["conv_1x7_7x1"](1, 1, 2, lambda _: nn.Identity())
    for module in operation.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
    images = torch.ones(1, 1, 8, 8, requires_grad=True)
    operation(images).sum().backward()
    assert (images.grad > 0).all()


def test_bottlenecks_are_a_quarter_of_a_state_wide():
    cell = OPERATIONS["bottleneck"]
    widths = [
        [
            m.out_channels
            for m in cell[name](8, 16, 1, BatchNorm).modules()
            if isinstance(m, nn.Conv2d)
        ]
        for name in ("conv_3x3", "conv_1x7_7x1", "conv_1x3_3x1", "dil_conv_3x3", "conv_1x1")
    ]
    assert widths == [[4, 4, 16], [4, 4, 4, 16], [6, 6, 6, 16], [4, 4, 16], [16]]
    # Too narrow for a quarter: the convolution stands alone.
    narrow = cell["conv_3x3"](8, 3, 1, BatchNorm)
    assert [m.out_channels for m in narrow.modules() if isinstance(m, nn.Conv2d)] == [3]


def drop_path_network():
    torch.manual_seed(0)
    return CellNetwork(NASNET_A, NetworkConfig(num_cells=2, filters=96, stem="cifar"))


def test_scheduled_drop_path_rises_with_depth_and_time():
    network = drop_path_network()
    network.schedule_drop_path(keep=0.6, progress=0.5)
    assert [cell.drop_path for cell in network.cells] == pytest.approx(
        [0.4 * 0.5 * number / 8 for number in range(1, 9)]
    )
    network.schedule_drop_path(keep=0.6, progress=3.0)
    assert network.cells[-1].drop_path == pytest.approx(0.4)


def test_dropped_paths_leave_out_whole_operations_and_keep_the_mean():
    torch.manual_seed(0)
    cell = make_cell(Block(Edge("conv_1x1", 0), Edge("identity", 1)))
    nn.init.ones_(cell.left[0][1].weight)
    cell.drop_path = 0.25
    images = torch.ones(4000, 1, 1, 1)
    out = cell(images, images).flatten()
    # The identity stays; the other path is out or scaled up for the times that it is out.
    torch.testing.assert_close(out.unique(), torch.tensor([1.0, 1.0 + 1 / 0.75]))
    assert out.mean().item() == pytest.approx(2.0, abs=0.05)
    cell.eval()
    torch.testing.assert_close(cell(images, images).flatten(), torch.full((4000,), 2.0))


@pytest.mark.parametrize("genotype", [NASNET_A, PNASNET_5], ids=["nasnet", "pnasnet"])
def test_checkpointing_changes_neither_gradients_nor_statistics(genotype):
    images = torch.randn(2, 3, 64, 64)
    results = []
    for checkpoints in (False, True):
        torch.manual_seed(0)
        config = NetworkConfig(num_cells=1, filters=genotype.penultimate_filters(8))
        network = CellNetwork(genotype, config).double()
        network.checkpoints_cells = checkpoints
        network.schedule_drop_path(keep=0.7, progress=1.0)
        sum(m.square().mean() for m in network(images.double()).values()).backward()
        results.append((network, [p.grad for p in network.parameters()]))
    (plain, gradients), (saving, same) = results
    torch.testing.assert_close(same, gradients)
    torch.testing.assert_close(saving.state_dict(), plain.state_dict())
    assert all(m.momentum == 0.1 for m in saving.modules() if isinstance(m, nn.BatchNorm2d))


def test_checkpointing_keeps_only_the_outputs_of_cells():
    stored = []
    for checkpoints in (False, True):
        network = CellNetwork(NASNET_A, NetworkConfig(num_cells=2, filters=192))
        network.checkpoints_cells = checkpoints
        saved = {}

        def keep(tensor, saved=saved):
            saved[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network(torch.randn(1, 3, 64, 64))
        parameters = {p.data_ptr() for p in network.parameters()}
        stored.append(sum(n for pointer, n in saved.items() if pointer not in parameters))
    assert stored[1] < stored[0] / 3
