import pytest
import torch

from search.config import ControllerConfig
from search.randomness import stream
from search.space import SearchSpace
from search.strategies.controller import Controller, Policy, Proposal, _chosen, clipped_gain

SPACE = SearchSpace(operations=("identity", "conv_1x1", "max_pool_3x3"), num_blocks=2)
CONFIG = ControllerConfig(num_units=16, learning_rate=0.02)


def share_of_max_pools(decisions):
    """A reward that is known: how many of the eight operations are the third."""
    names = [choice.kind for choice in SPACE.choices]
    picked = [d for d, kind in zip(decisions, names, strict=True) if kind == "operation"]
    return picked.count(2) / len(picked)


def history(controller, num_batches):
    proposals = []
    for _ in range(num_batches):
        size = controller.config.batch_size
        drawn = [controller.propose(len(proposals) + i) for i in range(size)]
        batch = [Proposal(d, share_of_max_pools(d)) for d in drawn]
        controller.learn(batch)
        proposals += batch
    return proposals


def test_the_controller_finds_what_is_rewarded_and_random_does_not():
    proposals = history(Controller(SPACE, CONFIG, seed=0), 10)
    first, last = ([p.reward for p in part] for part in (proposals[:20], proposals[-40:]))
    assert sum(first) / 20 < 0.5
    assert sum(last) / 40 > 0.85
    random = [share_of_max_pools(SPACE.sample(stream(i))) for i in range(400)]
    assert sum(random) / 400 == pytest.approx(1 / 3, abs=0.05)


def test_replaying_a_history_gives_the_uninterrupted_controller():
    controller = Controller(SPACE, CONFIG, seed=3)
    proposals = history(controller, 3)
    replayed = Controller.replay(SPACE, CONFIG, seed=3, history=[*proposals, *proposals[:7]])
    assert replayed.num_batches == 3  # the incomplete fourth batch teaches nothing yet
    assert replayed.baseline == controller.baseline
    assert [replayed.propose(n) for n in range(60, 80)] == [
        controller.propose(n) for n in range(60, 80)
    ]


def test_proposals_depend_on_the_seed():
    one, two = (Controller(SPACE, CONFIG, seed=seed) for seed in (0, 1))
    assert [one.propose(n) for n in range(5)] != [two.propose(n) for n in range(5)]


def test_decisions_are_legal_and_probabilities_add_up_over_what_is_legal():
    space = SearchSpace()
    policy = Policy(space.choices, ControllerConfig(), stream(0))
    drawn = [policy.sample(stream("draw", i)) for i in range(20)]
    for decisions in drawn:
        space.to_genotype(decisions)  # refuses what is not legal
    probabilities = policy(torch.tensor(drawn)).exp()
    assert probabilities.shape == (20, 50, 13)
    for step, choice in enumerate(space.choices):
        legal = probabilities[:, step, : choice.num_options].sum(dim=-1)
        torch.testing.assert_close(legal, torch.ones_like(legal))


def test_sampling_follows_the_probabilities_that_training_uses():
    space = SearchSpace(operations=("identity", "conv_1x1"), num_blocks=1)
    config = ControllerConfig(num_units=8, initial_range=1.5)  # far from uniform
    policy = Policy(space.choices, config, stream(1))
    generator = stream("draws")
    drawn = torch.tensor([policy.sample(generator) for _ in range(800)])
    with torch.no_grad():
        expected = policy(drawn).exp()[..., 1].mean(dim=0)
    torch.testing.assert_close(drawn.double().mean(dim=0), expected, atol=0.06, rtol=0)


def test_weights_start_in_the_papers_range_with_the_papers_sizes():
    policy = Policy(SearchSpace().choices, ControllerConfig(), stream(0))
    assert policy.lstm.weight_hh_l0.shape == (400, 100)
    for weights in policy.parameters():
        assert float(weights.detach().abs().max()) <= 0.1
    assert float(policy.lstm.weight_hh_l0.detach().std()) == pytest.approx(0.1 / 3**0.5, rel=0.05)


def test_at_the_first_epoch_of_an_update_the_ratio_is_one():
    controller = Controller(SPACE, CONFIG, seed=0)
    decisions = torch.tensor([controller.propose(n) for n in range(20)])
    before = _chosen(controller.policy(decisions), decisions).detach()
    advantage = torch.arange(20.0, dtype=torch.float64) - 7
    config = controller.config
    loss = controller._loss(decisions, before, advantage)
    log_p = controller.policy(decisions)
    entropy = -(log_p.exp() * log_p).sum(dim=-1).mean()
    torch.testing.assert_close(loss, -(advantage.mean() + config.entropy_weight * entropy))


def test_gain_is_clipped_only_where_the_step_would_overshoot():
    ratio = torch.tensor([0.5, 1.0, 1.5, 0.5, 1.0, 1.5])
    advantage = torch.tensor([2.0, 2.0, 2.0, -2.0, -2.0, -2.0])
    expected = torch.tensor([1.0, 2.0, 2.4, -1.6, -2.0, -3.0])
    torch.testing.assert_close(clipped_gain(ratio, advantage, clip=0.2), expected)


def test_the_baseline_is_a_moving_average_of_rewards():
    controller = Controller(SPACE, ControllerConfig(num_units=4, batch_size=2), seed=0)
    decisions = controller.propose(0)
    controller.learn([Proposal(decisions, 0.2), Proposal(decisions, 0.4)])
    assert controller.baseline == pytest.approx(0.95 * (0.95 * 0.3 + 0.05 * 0.2) + 0.05 * 0.4)


def test_building_and_sampling_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    Controller(SPACE, CONFIG, seed=0).propose(0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        ControllerConfig(batch_size=0)
    with pytest.raises(ValueError, match="baseline_weight"):
        ControllerConfig(baseline_weight=1.0)
