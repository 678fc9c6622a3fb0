import pytest
import torch

from search.randomness import stream
from search.space import SearchSpace
from search.strategies.controller import Controller, ControllerConfig, Proposal

SPACE = SearchSpace(operations=("identity", "conv_1x1", "max_pool_3x3"), num_blocks=2)
CONFIG = ControllerConfig(num_units=16, learning_rate=0.02)


def fraction_of_max_pools(decisions):
    """Return the fraction of the eight operations that are the third."""
    names = [choice.kind for choice in SPACE.choices]
    picked = [d for d, kind in zip(decisions, names, strict=True) if kind == "operation"]
    return picked.count(2) / len(picked)


def history(controller, num_batches):
    proposals = []
    for _ in range(num_batches):
        size = controller.config.batch_size
        drawn = [controller.propose(len(proposals) + i) for i in range(size)]
        batch = [Proposal(d, fraction_of_max_pools(d)) for d in drawn]
        controller.learn(batch)
        proposals += batch
    return proposals


def test_the_controller_learns_what_is_rewarded_and_random_search_does_not():
    proposals = history(Controller(SPACE, CONFIG, seed=0), 10)
    first, last = ([p.reward for p in part] for part in (proposals[:20], proposals[-40:]))
    assert sum(first) / 20 < 0.5
    assert sum(last) / 40 > 0.85
    random = [fraction_of_max_pools(SPACE.sample(stream(i))) for i in range(400)]
    assert sum(random) / 400 == pytest.approx(1 / 3, abs=0.05)


def test_replaying_a_history_gives_the_uninterrupted_controller():
    controller = Controller(SPACE, CONFIG, seed=3)
    proposals = history(controller, 3)
    replayed = Controller.replay(SPACE, CONFIG, seed=3, history=[*proposals, *proposals[:7]])
    assert replayed.num_batches == 3  # the incomplete fourth batch is not learned yet
    assert replayed.baseline == controller.baseline
    assert [replayed.propose(n) for n in range(60, 80)] == [
        controller.propose(n) for n in range(60, 80)
    ]


def test_proposals_depend_on_the_seed():
    one, two = (Controller(SPACE, CONFIG, seed=seed) for seed in (0, 1))
    assert [one.propose(n) for n in range(5)] != [two.propose(n) for n in range(5)]


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
