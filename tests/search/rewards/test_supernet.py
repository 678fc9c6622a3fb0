from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from backbone.cells.genotype import NASNET_OPERATIONS, Block, CellSpec, Genotype
from backbone.cells.published import NASNET_A
from search.randomness import stream
from search.rewards.config import ProxyConfig
from search.rewards.image_tensors import ImageTensors
from search.rewards.supernet import Supernet, shared_names, supernet_accuracy, train_supernet
from search.space import SearchSpace

CONFIG = ProxyConfig(
    data_root="", num_cells=1, first_filters=4, epochs=24, batch_size=16, learning_rate=0.02,
    weight_decay=1e-4, crop_padding_px=1, num_threads=1, precision="float32",
)  # fmt: skip
SMALL = SearchSpace(operations=("identity", "conv_3x3", "max_pool_3x3"), num_blocks=1)
SPACES = {
    "both combinations": SearchSpace(
        operations=("identity", "conv_1x1", "sep_conv_3x3", "max_pool_3x3"), num_blocks=3
    ),
    "all 13 operations": SearchSpace(operations=NASNET_OPERATIONS, num_blocks=2),
    "all concatenated": SearchSpace(
        operations=("avg_pool_3x3", "dil_conv_5x5", "identity"), num_blocks=2,
        combinations=("add",), concat="all", distinct_sources=True,
    ),
    "one cell": SearchSpace(
        operations=("identity", "conv_1x7_7x1", "max_pool_2x2"), num_blocks=3,
        combinations=("concat",), cells=("normal",),
    ),
    "one block": SMALL,
}  # fmt: skip


def striped(num_images, name, side=16):
    """Class 0 has horizontal stripes, class 1 vertical ones, on noise."""
    generator = stream(name)
    labels = torch.randint(2, (num_images,), generator=generator)
    phase = torch.randint(4, (num_images, 1, 1), generator=generator)
    rows = ((torch.arange(side)[None, :, None] + phase) % 4 < 2).expand(-1, -1, side)
    stripes = torch.where(labels[:, None, None] == 0, rows, rows.transpose(1, 2))
    noise = torch.randint(60, (num_images, 3, side, side), generator=generator)
    return ImageTensors((stripes[:, None] * 120 + noise).to(torch.uint8), labels, 2)


TRAIN, VAL = striped(160, "train"), striped(100, "val")
NETWORKS = {
    (name, num_cells): Supernet(
        space, replace(CONFIG, num_cells=num_cells, stem_stride=num_cells), TRAIN, seed=0
    )
    for name, space in SPACES.items()
    for num_cells in ((1,) if name == "all 13 operations" else (1, 2))
}


def draw(network, number):
    return network.space.to_genotype(network.space.sample(stream("draw", number)))


paths = settings(deadline=None, max_examples=12)
given_path = given(st.sampled_from(sorted(NETWORKS)), st.integers(0, 10**6))
given_two_paths = given(
    st.sampled_from(sorted(NETWORKS)), st.integers(0, 10**6), st.integers(0, 10**6)
)


@paths
@given_path
def test_a_path_computes_what_the_network_of_its_genotype_does_with_the_same_weights(which, number):
    network = NETWORKS[which]
    genotype = draw(network, number)
    alone = network.extract(genotype)
    assert alone.trunk.genotype == genotype.canonical()
    with torch.no_grad():
        assert torch.equal(
            network.logits(genotype, TRAIN.images[:4]), alone.train()(TRAIN.images[:4])
        )


@paths
@given_path
def test_a_path_has_tensors_of_its_own_for_every_parameter(which, number):
    network = NETWORKS[which]
    names = [n for ns in shared_names(network.extract(draw(network, number))).values() for n in ns]
    assert len(set(names)) == len(names)
    assert set(names) <= network.tensors.keys()


def columns(network):
    """Yield a place, a state, and the weights there that read the state's channels."""
    trunk = network.trunk
    specs = [cell.spec for cell in trunk.cells]
    for number, (cell, step) in enumerate(zip(trunk.cells, trunk.plan, strict=True)):
        reads = [("newer", cell.align_newer, number)]
        if step.older is not None:
            reads.append(("older", cell.align_older, step.older))
        for side, align, output in reads:
            for name, weight in align.named_parameters():
                if weight.dim() == 4 and output > 0:
                    concat = specs[output - 1].concat
                    width = weight.shape[1] // len(concat)
                    for index, state in enumerate(concat):
                        part = weight[:, index * width : (index + 1) * width]
                        yield (number, side, name, state), part
    width = network.head.weight.shape[1] // len(specs[-1].concat)
    for index, state in enumerate(specs[-1].concat):
        yield ("head", state), network.head.weight[:, index * width : (index + 1) * width]


@paths
@given_two_paths
def test_what_reads_a_concatenation_has_the_same_weights_for_the_same_state(which, one, other):
    network = NETWORKS[which]
    first, second = (dict(columns(network.extract(draw(network, n)))) for n in (one, other))
    for place in first.keys() & second.keys():
        assert torch.equal(first[place], second[place])
    values = {part.flatten()[0].item() for part in first.values()}
    assert len(values) == len(first)  # and others for other states


@paths
@given_two_paths
def test_operations_share_weights_where_place_source_and_operation_are_the_same(which, one, other):
    network = NETWORKS[which]
    first, second = (network.extract(draw(network, n)) for n in (one, other))
    for cell, twin in zip(first.trunk.cells, second.trunk.cells, strict=True):
        for side in ("left", "right"):
            for block, (mine, theirs) in enumerate(
                zip(cell.spec.blocks, twin.spec.blocks, strict=True)
            ):
                weights = [
                    [p for p in getattr(c, side)[block].parameters() if p.dim() == 4]
                    for c in (cell, twin)
                ]
                if getattr(mine, side) == getattr(theirs, side):
                    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
                else:
                    assert not any(torch.equal(a, b) for a in weights[0] for b in weights[1])


def test_every_shared_tensor_is_on_some_path_of_a_space_without_symmetries():
    space = replace(SPACES["one cell"], num_blocks=2)
    network = Supernet(space, CONFIG, TRAIN, seed=0)
    missing = set(network.tensors)
    for number in range(400):
        missing -= network.names(draw(network, number))
        if not missing:
            break
    assert not missing


def test_ways_to_write_one_function_are_one_path():
    network = NETWORKS["both combinations", 1]
    genotype = next(
        g
        for g in (draw(network, number) for number in range(100))
        if any(b.combine == "add" and b.left != b.right for b in g.normal.blocks)
    )
    turned = Genotype(
        CellSpec(
            tuple(
                Block(b.right, b.left, b.combine) if b.combine == "add" else b
                for b in genotype.normal.blocks
            ),
            genotype.normal.concat,
        ),
        genotype.reduction,
    )
    assert turned != genotype
    assert torch.equal(
        network.logits(turned, TRAIN.images[:4]), network.logits(genotype, TRAIN.images[:4])
    )


@paths
@given_path
def test_only_the_path_gets_gradients_and_those_of_the_network_alone(which, number):
    network = NETWORKS[which]
    genotype = draw(network, number)
    for tensor in network.tensors.values():
        tensor.grad = None
    alone = network.extract(genotype).train()
    images, labels = TRAIN.images[:4], TRAIN.labels[:4]
    for logits in (network.logits(genotype, images), alone(images)):
        F.cross_entropy(logits, labels).backward()
    names, expected = shared_names(alone), {}
    for name, parameter in alone.named_parameters():
        if parameter.grad is not None:  # a path need not read both of a cell's inputs
            parts = parameter.grad.chunk(len(names[name]), dim=1 if parameter.dim() > 1 else 0)
            expected |= dict(zip(names[name], parts, strict=True))
    found = {name: t.grad for name, t in network.tensors.items() if t.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name])


def test_a_step_moves_the_path_alone_and_decays_nothing_else():
    config = replace(CONFIG, epochs=1, batch_size=len(TRAIN), weight_decay=0.1)
    network = Supernet(SPACES["both combinations"], config, TRAIN, seed=0)
    before = {name: tensor.detach().clone() for name, tensor in network.tensors.items()}
    train_supernet(network, TRAIN, config=config, seed=0)
    moved = {name for name, tensor in network.tensors.items() if not tensor.equal(before[name])}
    genotype = network.space.to_genotype(network.space.sample(stream("shared paths", 0)))
    assert moved <= network.names(genotype)
    assert {name for name in network.names(genotype) if name.endswith("conv.weight")} <= moved
    assert "head.bias" in moved


def trained(seed=0, config=CONFIG):
    network = Supernet(SMALL, config, TRAIN, seed=seed)
    train_supernet(network, TRAIN, config=config, seed=seed)
    return network


@pytest.fixture(scope="module")
def learned():
    return trained()


def score(network, genotype):
    return supernet_accuracy(network, genotype, TRAIN, VAL, num_threads=1)


def test_paths_learn_together(learned):
    convolution = SMALL.to_genotype([0, 1, 1, 1, 0] * 2)
    untrained = Supernet(SMALL, CONFIG, TRAIN, seed=0)
    assert score(learned, convolution) > 0.85
    assert score(learned, convolution) > score(untrained, convolution)


def test_the_network_is_a_function_of_its_seed():
    config = replace(CONFIG, epochs=1)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one = trained(0, config)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = trained(0, config), trained(1, config)
    assert all(one.tensors[name].equal(again.tensors[name]) for name in one.tensors)
    assert not one.tensors["head.bias"].equal(other.tensors["head.bias"])


def test_a_score_does_not_depend_on_what_was_scored_before():
    network = trained(0, replace(CONFIG, epochs=1))  # more, and all scores are 1
    genotypes = [draw(network, number) for number in range(6)]
    forward = [score(network, genotype) for genotype in genotypes]
    backward = [score(network, genotype) for genotype in reversed(genotypes)]
    assert forward == backward[::-1]
    assert len(set(forward)) > 1


def test_genotypes_of_other_spaces_are_refused(learned):
    with pytest.raises(ValueError, match="has 5 blocks; this space has cells of 1"):
        learned.logits(NASNET_A, TRAIN.images[:4])


def test_tensors_of_another_space_are_refused(learned):
    with pytest.raises(ValueError, match=r"weights file there belongs to another architecture"):
        learned.load(NETWORKS["one cell", 1].tensors, source="there")


def test_a_training_that_diverges_says_so():
    with pytest.raises(FloatingPointError, match=r"the loss became .* in epoch 1"):
        trained(config=replace(CONFIG, learning_rate=1e38, gradient_clip=0))
