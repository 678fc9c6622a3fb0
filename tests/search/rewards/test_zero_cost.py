import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from backbone.cells.published import NASNET_A
from search.randomness import stream
from search.rewards.base import Reward
from search.rewards.config import ProxyConfig, ZeroCostConfig
from search.rewards.fit import ProxyNetwork
from search.rewards.image_tensors import ImageTensors
from search.rewards.zero_cost import (
    SCORES,
    ZeroCostReward,
    grad_norm,
    naswot,
    snip,
    synflow,
    zero_cost_score,
)
from search.space import SearchSpace

SPACE = SearchSpace(operations=("conv_3x3", "max_pool_3x3", "avg_pool_3x3"), num_blocks=2)
CONVOLUTIONS, POOLS = (
    SPACE.to_genotype([0, 1, *operations, 0, 1, 2, *operations, 0] * 2)
    for operations in ((0, 0), (1, 2))
)
CONFIG = ProxyConfig(
    data_root="", num_cells=1, first_filters=4, epochs=1, batch_size=8, learning_rate=0.05,
    weight_decay=0, num_threads=1,
)  # fmt: skip
TRAIN = ImageTensors(
    torch.randint(256, (40, 3, 16, 16), generator=stream("images")).to(torch.uint8),
    torch.randint(4, (40,), generator=stream("labels")),
    4,
)
NO_LABELS = torch.zeros(3, dtype=torch.int64)


def linear(weights):
    layer = nn.Linear(len(weights[0]), len(weights), bias=False)
    layer.weight.data = torch.tensor(weights)
    return layer


def score(name, genotype=CONVOLUTIONS, train=TRAIN, seed=0, **changes):
    config = replace(CONFIG, **changes)
    return zero_cost_score(genotype, train, config=config, score=name, batch_size=16, seed=seed)


def test_every_layer_of_a_chain_carries_the_same_synaptic_flow():
    # |W1| maps (1, 1) to (3, 7) and |W2| that to 57, the flow through both layers.
    first, second = linear([[1.0, -2.0], [3.0, 4.0]]), linear([[-5.0, 6.0]])
    network = nn.Sequential(nn.Flatten(), first, nn.ReLU(), second)
    assert synflow(network, torch.zeros(3, 2, 1, 1), NO_LABELS) == 2 * 57


def test_synflow_goes_past_batch_normalization_and_leaves_biases_out():
    conv = nn.Conv2d(1, 1, 1)
    conv.weight.data.fill_(-2)
    norm = nn.BatchNorm2d(1)
    norm.weight.data.fill_(7)
    network = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), linear([[3.0]]))
    conv.bias.data.fill_(0)
    assert synflow(network, torch.zeros(3, 1, 1, 1), NO_LABELS) == 2 * 6
    conv.bias.data.fill_(-10)  # raises what reaches the second layer from 2 to 12
    assert synflow(network, torch.zeros(3, 1, 1, 1), NO_LABELS) == 6 + 36


def test_naswots_kernel_counts_the_relus_on_which_two_images_agree():
    # Codes 110, 100 and 001 agree with themselves in 3 places, with one another in 2, 0 and 1.
    kernel = torch.tensor([[3.0, 2, 0], [2, 3, 1], [0, 1, 3]])
    network = nn.Sequential(
        nn.Flatten(), linear(torch.eye(3).tolist()), nn.ReLU(), linear([[1.0, 1, 1]])
    )
    images = torch.tensor([[1.0, 2, -1], [3, -1, -2], [-1, -1, 1]]).view(3, 3, 1, 1)
    value = naswot(network, images, NO_LABELS)
    assert value == pytest.approx(math.log(12))
    assert value == pytest.approx(float(torch.logdet(kernel)))


def test_naswot_leaves_out_relus_that_the_logits_do_not_depend_on():
    class Forked(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.live, self.dead = linear(torch.eye(3).tolist()), nn.ReLU(), nn.ReLU()

        def forward(self, images):
            states = self.layer(images.flatten(1))
            self.dead(-states)
            return self.live(states)

    images = torch.tensor([[1.0, 2, -1], [3, -1, -2], [-1, -1, 1]]).view(3, 3, 1, 1)
    assert naswot(Forked(), images, NO_LABELS) == pytest.approx(math.log(12))


def test_images_that_a_network_cannot_tell_apart_have_no_naswot():
    train = ImageTensors(TRAIN.images[:1].expand(20, -1, -1, -1), TRAIN.labels[:20], 4)
    with pytest.raises(FloatingPointError, match="kernel of 16 images is singular"):
        score("naswot", train=train)


def test_gradients_of_the_loss_are_as_worked_out_by_hand():
    # Equal logits: softmax is a half each, and the gradient by the weights is (-1.5, 1.5).
    network = nn.Sequential(nn.Flatten(), linear([[2.0], [2.0]]))
    images, labels = torch.full((1, 1, 1, 1), 3.0), torch.zeros(1, dtype=torch.int64)
    assert grad_norm(network, images, labels) == pytest.approx(1.5 * math.sqrt(2))
    assert snip(network, images, labels) == pytest.approx(2 * 1.5 + 2 * 1.5)


@pytest.mark.parametrize("name", ["synflow", "naswot", "num_parameters"])
def test_cells_of_convolutions_score_above_cells_of_pools(name):
    assert score(name, CONVOLUTIONS) > score(name, POOLS)


def test_the_size_is_that_of_the_published_cells():
    # NASNet-A at N = 2 and 24 filters on CIFAR-10's ten classes.
    train = ImageTensors(TRAIN.images, TRAIN.labels, 10)
    assert score("num_parameters", NASNET_A, train, num_cells=2, first_filters=24) == 757_906


@pytest.mark.parametrize("name", SCORES)
def test_a_score_is_a_function_of_genotype_and_seed(name):
    before = torch.random.get_rng_state()
    one = score(name, NASNET_A)
    assert one > 0
    torch.manual_seed(5)
    assert score(name, NASNET_A) == one
    torch.random.set_rng_state(before)
    score(name)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (score(name, NASNET_A, seed=1) == one) == (name == "num_parameters")


@pytest.mark.parametrize("name", SCORES)
def test_only_scores_of_the_loss_look_at_labels(name):
    other = ImageTensors(TRAIN.images, (TRAIN.labels + 1) % 4, 4)
    assert (score(name, train=other) == score(name)) == (name not in ("grad_norm", "snip"))


@pytest.mark.parametrize("name", ["synflow", "num_parameters"])
def test_scores_without_data_do_not_look_at_images(name):
    other = ImageTensors(255 - TRAIN.images // 2, TRAIN.labels, 4)
    assert score(name, train=other) == score(name)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", SCORES)
def test_a_score_changes_nothing_in_the_network(name, training):
    network = ProxyNetwork(CONVOLUTIONS, CONFIG, TRAIN).train(training)
    before = deepcopy(network.state_dict())
    SCORES[name](network, TRAIN.images[:8], TRAIN.labels[:8])
    after = network.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert all(module.training == training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_what_cannot_be_scored_is_one_sentence():
    with pytest.raises(ValueError, match="unknown score 'zen'; choose from"):
        score("zen")
    with pytest.raises(ValueError, match="unknown score 'zen'; choose from"):
        ZeroCostConfig(score="zen")
    with pytest.raises(ValueError, match="batch_size must be at least 2, not 1"):
        ZeroCostConfig(batch_size=1)
    with pytest.raises(ValueError, match="2 to the 3 training images, not 16"):
        score("snip", train=ImageTensors(TRAIN.images[:3], TRAIN.labels[:3], 4))


def write_folder(root, num_images):
    for index in range(num_images):
        folder = root / "train" / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(TRAIN.images[index].permute(1, 2, 0).numpy()).save(folder / f"{index}.png")


def test_as_a_reward_a_score_keeps_its_order_and_needs_no_validation_split(tmp_path):
    write_folder(tmp_path, 30)
    config = replace(CONFIG, data_root=str(tmp_path))
    reward = ZeroCostReward(config, ZeroCostConfig(score="synflow", batch_size=8))
    as_reward: Reward = reward
    reported = []
    value = as_reward(CONVOLUTIONS, seed=3, report=lambda *step: reported.append(step))
    assert value == math.log1p(reward.score(CONVOLUTIONS, seed=3))
    assert reported == [(1, value)]
    assert 0 <= as_reward(POOLS, seed=3, report=lambda *_: None) < value
    assert set(reward.data) == {"train"}
    assert str(tmp_path) not in str(reward.arguments)  # moved data are the same data


def test_only_what_decides_a_score_is_among_its_arguments(tmp_path):
    write_folder(tmp_path, 10)
    config = replace(CONFIG, data_root=str(tmp_path))
    zero_cost = ZeroCostConfig(score="snip", batch_size=4)
    arguments = ZeroCostReward(config, zero_cost).arguments
    longer = ZeroCostReward(replace(config, epochs=9, learning_rate=1.0), zero_cost)
    wider = ZeroCostReward(replace(config, first_filters=8), zero_cost)
    assert longer.arguments == arguments
    assert wider.arguments != arguments


def test_a_reward_with_fewer_images_than_a_batch_is_refused(tmp_path):
    write_folder(tmp_path, 10)
    config = replace(CONFIG, data_root=str(tmp_path), held_out_images=4)
    with pytest.raises(ValueError, match=r"batch_size is 8, but .* has only 6 training images"):
        ZeroCostReward(config, ZeroCostConfig(batch_size=8))
