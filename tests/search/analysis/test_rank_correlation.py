import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from search.analysis.rank_correlation import kendall_tau, measure_rank_correlation
from search.randomness import stream

FEW = st.integers(0, 4)  # few values, so that there are ties


def tau_by_counting(first, second):
    """Tau-b from its definition, pair by pair."""
    alike = firsts = seconds = 0
    for (a, b), (c, d) in itertools.combinations(zip(first, second, strict=True), 2):
        alike += ((a > c) - (a < c)) * ((b > d) - (b < d))
        firsts += a != c
        seconds += b != d
    return alike / math.sqrt(firsts * seconds) if firsts and seconds else None


def correlated(number, tau, name):
    """Bivariate normal samples whose population has that Kendall's tau (Greiner's relation)."""
    correlation = math.sin(math.pi * tau / 2)
    normal = torch.randn(2, number, generator=stream("correlated", *name)).double()
    second = correlation * normal[0] + math.sqrt(1 - correlation**2) * normal[1]
    return normal[0].tolist(), second.tolist()


@pytest.mark.parametrize(
    ("second", "tau"),
    [
        # With ties the values are those of scipy.stats.kendalltau 1.17.
        ([1, 2, 3, 4, 5, 6], 1.0),
        ([6, 5, 4, 3, 2, 1], -1.0),
        ([2, 1, 3, 4, 5, 6], 1 - 2 / 15),
        ([1, 1, 2, 2, 3, 3], 0.894427190999916),
        ([3, 1, 2, 2, 5, 1], -0.07161148740394328),
        ([1, 0, 1, 1, 2, 2], 0.7006490497453707),
    ],
)
def test_tau_counts_the_pairs_in_the_same_order(second, tau):
    assert kendall_tau([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], second) == pytest.approx(tau)


@given(st.lists(st.tuples(FEW, FEW), min_size=2, max_size=12))
def test_tau_is_what_counting_pairs_gives(pairs):
    first, second = zip(*pairs, strict=True)
    expected = tau_by_counting(first, second)
    assert kendall_tau(first, second) == (None if expected is None else pytest.approx(expected))
    assert kendall_tau(second, first) == kendall_tau(first, second)


@given(st.lists(st.tuples(FEW, FEW), min_size=5, max_size=12), st.sampled_from([0.5, 0.95]))
def test_an_interval_holds_its_tau_and_widens_with_confidence(pairs, confidence):
    first, second = zip(*pairs, strict=True)
    if kendall_tau(first, second) is None:
        with pytest.raises(ValueError, match="rewards of one side are equal, which is no order"):
            measure_rank_correlation(first, second)
        return
    result = measure_rank_correlation(first, second, confidence=confidence, num_resamples=300)
    wider = measure_rank_correlation(first, second, confidence=0.99, num_resamples=300)
    assert -1 <= wider.low <= result.low <= result.high <= wider.high <= 1
    assert wider.low <= result.tau <= wider.high
    assert result.num_genotypes == len(first)


def test_a_perfect_order_of_few_genotypes_is_no_certainty():
    lows = []
    for number in (5, 10, 40):
        result = measure_rank_correlation(range(number), range(number))
        assert result.tau == result.high == 1
        # The chance that a pair is discordant, given that none of P is: up to 1 - 0.025^(1/P).
        assert result.low == pytest.approx(2 * 0.025 ** (2 / (number * (number - 1))) - 1)
        lows.append(result.low)
    assert lows == sorted(lows)
    reversed_order = measure_rank_correlation(range(10), range(10, 0, -1))
    assert (reversed_order.low, reversed_order.high) == (-1, pytest.approx(-lows[1]))


@pytest.mark.parametrize("number", [8, 16, 32])
@pytest.mark.parametrize("tau", [0.0, 0.5, 0.93])
def test_intervals_of_simulated_rewards_cover_the_true_tau_at_their_confidence_level(number, tau):
    samples = [correlated(number, tau, (number, tau, n)) for n in range(250)]
    results = [measure_rank_correlation(*sample, num_resamples=500) for sample in samples]
    covered = sum(a.low <= tau <= a.high for a in results) / len(results)
    not_overstated = sum(a.low <= tau for a in results) / len(results)
    # 250 samples tell 0.95 to within 0.03 (two deviations).
    assert covered >= 0.92
    assert not_overstated >= 0.945


def test_more_genotypes_narrow_an_interval():
    few, many = (
        measure_rank_correlation(*correlated(number, 0.5, ("w", 0))) for number in (10, 100)
    )
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_an_interval_is_deterministic_and_independent_of_scale():
    first, second = correlated(20, 0.4, ("s", 0))
    result = measure_rank_correlation(first, second)
    assert measure_rank_correlation(first, second) == result
    assert (
        measure_rank_correlation([math.exp(x) for x in first], [3 * y - 1 for y in second])
        == result
    )


def test_too_few_genotypes_are_refused():
    with pytest.raises(ValueError, match=r"4 genotypes with both rewards are too few.* needs 5"):
        measure_rank_correlation([1, 2, 3, 4], [1, 2, 3, 4])
