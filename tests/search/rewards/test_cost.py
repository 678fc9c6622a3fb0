from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backbone.cells.genotype import Genotype
from backbone.cells.published import NASNET_A, PUBLISHED
from backbone.config import MIN_WIDTH, STEMS
from backbone.models.backbone import build_backbone
from backbone.profile.complexity import measure_cost
from search.rewards.config import CostConfig
from search.rewards.cost import constrained_reward, genotype_cost, pareto_front
from search.space import SearchSpace

SMALL = CostConfig(measure="mult_adds", num_cells=1, first_filters=8, side_px=32)
SPACE = SearchSpace(num_blocks=2)


@pytest.mark.parametrize("measure", ["mult_adds", "parameters"])
def test_the_cost_is_that_of_the_backbone_that_a_spec_builds(measure, tmp_path):
    config = replace(SMALL, measure=measure, num_cells=2, side_px=64)
    cost = genotype_cost(NASNET_A, config)
    built = measure_cost(build_backbone("nasnet_a:2@192"), side_px=64)
    assert (cost.value, cost.spread) == (getattr(built, measure), 0)


def test_counts_are_those_of_a_network_that_computes():
    backbone = build_backbone("nasnet_a:1@192").eval()
    mult_adds = 0

    def count(layer, _, output):
        nonlocal mult_adds
        mult_adds += layer.weight[0].numel() * output.numel()

    for module in backbone.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    backbone(torch.zeros(1, 3, 32, 32))
    assert genotype_cost(NASNET_A, SMALL).value == mult_adds


def test_a_cifar_network_of_identities_has_the_parameters_of_its_hand_count():
    # One block that adds two identities; both cells concatenate it alone.
    genotype = SearchSpace(operations=("identity",), num_blocks=1).to_genotype([0, 1, 0, 0, 0] * 2)
    assert len(genotype.normal.concat) == 1
    config = CostConfig(measure="parameters", num_cells=1, first_filters=4, stem="cifar")
    norm, stem = 2, 3 * 4
    normal_1 = stem * 4 + norm * 4  # the newer input squeezed; the older is the same, raw,
    normal_1 += stem * 4 + norm * 4  # and its identity adapts
    reduction_1 = stem * 8 + 4 * 8 + 2 * norm * 8  # older and newer brought to 8
    reduction_1 += 2 * (8 * 8 + norm * 8)  # two identities of stride 2
    normal_2 = 4 * 8 + 8 * 8 + 2 * norm * 8  # older halved by two 1x1 of 4 each, newer
    reduction_2 = 8 * 16 + 8 * 16 + 2 * norm * 16 + 2 * (16 * 16 + norm * 16)
    normal_3 = 8 * 16 + 16 * 16 + 2 * norm * 16
    expected = 27 * stem + norm * stem
    expected += normal_1 + reduction_1 + normal_2 + reduction_2 + normal_3
    assert genotype_cost(genotype, config).value == expected


def test_latency_is_positive_and_leaves_generator_and_threads_alone():
    config = replace(SMALL, measure="latency_ms", warmup_runs=1, timed_runs=4, device="cpu")
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    cost = genotype_cost(NASNET_A, config)
    assert cost.value > 0
    assert cost.spread >= 0
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("stem", STEMS)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_every_genotype_of_a_search_has_a_cost_at_the_least_width(stem, data):
    decisions = [data.draw(st.integers(0, c.num_options - 1)) for c in SPACE.choices]
    config = replace(SMALL, stem=stem, first_filters=MIN_WIDTH)
    assert genotype_cost(SPACE.to_genotype(decisions), config).value > 0


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_cells_cost_more_with_more_filters(name):
    genotype: Genotype = PUBLISHED[name]
    narrow = genotype_cost(genotype, SMALL).value
    assert narrow < genotype_cost(genotype, replace(SMALL, first_filters=16)).value


def test_a_hard_constraint_takes_rewards_down_beyond_the_target_only():
    hard = replace(SMALL, target=100.0, exponent_within=0.0, exponent_beyond=1.0)
    assert constrained_reward(0.8, 50, hard) == 0.8
    assert constrained_reward(0.8, 100, hard) == 0.8
    assert constrained_reward(0.8, 200, hard) == pytest.approx(0.4)
    squared = replace(hard, exponent_beyond=2.0)
    assert constrained_reward(0.8, 200, squared) == pytest.approx(0.2)


def test_mnasnet_s_soft_form_trades_twice_the_latency_for_a_twentieth_of_the_accuracy():
    soft = replace(SMALL, target=80.0, exponent_within=0.07, exponent_beyond=0.07)
    # Tan et al. 2019, section 3: 5 % better at twice the latency is about as good.
    at_target, twice = constrained_reward(0.5, 80, soft), constrained_reward(0.525, 160, soft)
    assert at_target == 0.5
    assert twice == pytest.approx(at_target, rel=0.01)
    assert constrained_reward(0.5, 40, soft) == pytest.approx(0.5 * 2**0.07)


def test_the_front_of_a_few_points_by_hand():
    points = [(0.5, 3), (0.9, 9), (0.5, 2), (0.4, 2), (0.9, 9), (0.95, 20), (0.1, 1), (0.9, 10)]
    assert pareto_front(points) == [6, 2, 1, 4, 5]
    assert pareto_front([]) == []
    assert pareto_front([(0.0, 0.0)]) == [0]


# Few different values, so that ties are common.
coordinates = st.integers(0, 6) | st.sampled_from([float("inf"), 0.5])


@given(points=st.lists(st.tuples(coordinates, coordinates), max_size=25))
def test_the_front_is_what_no_other_point_beats(points):
    def beats(one, other):
        at_least = one[0] >= other[0] and one[1] <= other[1]
        return at_least and one != other

    front = pareto_front(points)
    expected = [i for i, p in enumerate(points) if not any(beats(q, p) for q in points)]
    assert sorted(front) == expected
    assert [points[i][1] for i in front] == sorted(points[i][1] for i in front)


def test_what_cannot_be_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"unknown measure 'flops'.*mult_adds"):
        CostConfig(measure="flops")
    with pytest.raises(ValueError, match=r"unknown stem 'tiny'.*imagenet"):
        CostConfig(stem="tiny")
    with pytest.raises(ValueError, match="first_filters must be at least 4, not 3"):
        CostConfig(first_filters=3)
    with pytest.raises(ValueError, match=r"needs a measure: .*parameters"):
        CostConfig(measure="none", target=5.0)
    with pytest.raises(ValueError, match="exponent_beyond must be at least 0, not nan"):
        CostConfig(exponent_beyond=float("nan"))
    with pytest.raises(ValueError, match="cannot be measured by 'none'"):
        genotype_cost(NASNET_A, CostConfig(measure="none"))
    with pytest.raises(ValueError, match="target must be above 0"):
        constrained_reward(0.5, 1.0, SMALL)
    with pytest.raises(ValueError, match="cost must be above 0, not 0"):
        constrained_reward(0.5, 0, replace(SMALL, target=1.0))
    with pytest.raises(ValueError, match=r"point 1, \(nan, 2\)"):
        pareto_front([(1, 1), (float("nan"), 2)])
