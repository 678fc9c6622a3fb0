import pytest
import torch

from search.randomness import stream
from search.space import SearchSpace
from search.strategies.policy import Policy, PpoTrainer, _chosen, clipped_gain


def new_policy(space, *, num_units=100, initial_range=0.1, generator):
    return Policy(
        space.choices, num_units=num_units, initial_range=initial_range, generator=generator
    )


def test_decisions_are_legal_and_probabilities_add_up_over_what_is_legal():
    space = SearchSpace()
    policy = new_policy(space, generator=stream(0))
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
    # A wide initial range gives probabilities far from uniform.
    policy = new_policy(space, num_units=8, initial_range=1.5, generator=stream(1))
    generator = stream("draws")
    drawn = torch.tensor([policy.sample(generator) for _ in range(800)])
    with torch.no_grad():
        expected = policy(drawn).exp()[..., 1].mean(dim=0)
    torch.testing.assert_close(drawn.double().mean(dim=0), expected, atol=0.06, rtol=0)


def test_weights_start_in_the_papers_range_with_the_papers_sizes():
    policy = new_policy(SearchSpace(), generator=stream(0))
    assert policy.lstm.weight_hh_l0.shape == (400, 100)
    for weights in policy.parameters():
        assert float(weights.detach().abs().max()) <= 0.1
    assert float(policy.lstm.weight_hh_l0.detach().std()) == pytest.approx(0.1 / 3**0.5, rel=0.05)


def test_at_the_first_step_of_an_update_the_ratio_is_one():
    space = SearchSpace(operations=("identity", "conv_1x1", "max_pool_3x3"), num_blocks=2)
    policy = new_policy(space, num_units=16, generator=stream(0))
    trainer = PpoTrainer(policy, learning_rate=0.02, clip=0.2, entropy_weight=1e-5)
    decisions = torch.tensor([policy.sample(stream("draw", n)) for n in range(20)])
    before = _chosen(policy(decisions), decisions).detach()
    advantage = torch.arange(20.0, dtype=torch.float64) - 7
    loss = trainer.loss(decisions, before, advantage)
    log_p = policy(decisions)
    entropy = -(log_p.exp() * log_p).sum(dim=-1).mean()
    torch.testing.assert_close(loss, -(advantage.mean() + 1e-5 * entropy))


def test_gain_is_clipped_only_where_the_step_would_overshoot():
    ratio = torch.tensor([0.5, 1.0, 1.5, 0.5, 1.0, 1.5])
    advantage = torch.tensor([2.0, 2.0, 2.0, -2.0, -2.0, -2.0])
    expected = torch.tensor([1.0, 2.0, 2.4, -1.6, -2.0, -3.0])
    torch.testing.assert_close(clipped_gain(ratio, advantage, clip=0.2), expected)
