import pytest

from search.analysis.config import FidelityConfig
from search.analysis.rank_correlation import RankCorrelation
from search.analysis.recommendation import Comparison, compare, recommend
from search.analysis.reward_log import LoggedReward

CONFIG = FidelityConfig(num_genotypes=6, wanted_tau=0.5, num_resamples=200)


def compared(name, low, *, seconds=1.0, problem=""):
    """A comparison whose interval begins at ``low``; None for one without a correlation."""
    correlation = None
    if low is not None:
        correlation = RankCorrelation(tau=low + 0.1, low=low, high=low + 0.2, num_genotypes=20)
    return Comparison(
        name=name, correlation=correlation, problem=problem, seconds=seconds, num_failed=0
    )


SELF_AGREEMENT = compared("reference again", 0.7, seconds=10)


def choose(*proxies, wanted=0.5, self_agreement=SELF_AGREEMENT, seconds=10.0):
    return recommend(
        proxies, self_agreement=self_agreement, reference_seconds=seconds, wanted_tau=wanted
    )


def measured(values):
    return [
        LoggedReward(
            key="", name="", genotype="", seed=0, value=value, seconds=number + 1.0,
            failure="" if value is not None else f"failure {number}",
        )
        for number, value in enumerate(values)
    ]  # fmt: skip


def test_the_fastest_proxy_that_reaches_the_wanted_tau_is_recommended():
    rewards = (
        compared("good", 0.8, seconds=5),
        compared("enough", 0.5, seconds=2),
        compared("free", 0.49, seconds=0.1),
    )
    name, advice = choose(*rewards)
    assert name == "enough"
    assert "Search with enough" in advice
    assert "20.0% of the reference's cost" in advice
    assert choose(*rewards, wanted=0.6)[0] == "good"


def test_without_a_sufficient_proxy_the_nearest_and_the_self_agreement_are_named():
    name, advice = choose(compared("near", 0.3), compared("far", 0.1), wanted=0.9)
    assert name is None
    assert "No proxy reaches tau 0.9 with confidence; the nearest is near (tau 0.40" in advice
    assert "agrees with itself by tau 0.80, 0.70 to 0.90" in advice


def test_a_missing_self_agreement_is_left_out_of_the_advice():
    name, advice = choose(compared("near", 0.3), self_agreement=compared("reference again", None))
    assert name is None
    assert "itself" not in advice


def test_a_proxy_as_slow_as_the_reference_is_not_recommended():
    name, advice = choose(compared("long", 0.9, seconds=10))
    assert name is None
    assert "is no faster than the reference: long" in advice


@pytest.mark.parametrize("seconds", [10.0, None])
def test_without_any_correlation_the_reason_is_given(seconds):
    failed = compared("reference again", None, problem="3 genotypes are too few")
    name, advice = choose(compared("a", None), self_agreement=failed, seconds=seconds)
    assert name is None
    assert advice == "No recommendation: 3 genotypes are too few."


def test_genotypes_that_lack_a_reward_are_left_out_on_both_sides():
    reference = measured([1, 2, 3, None, 5, 6, 7])
    other = measured([10, 20, None, 0, 50, 60, 70])
    result = compare("other", reference, other, CONFIG)
    assert result.correlation.tau == 1
    assert result.correlation.num_genotypes == 5
    assert result.num_failed == 1
    assert result.seconds == 4.5  # median of 1, 2, 4, 5, 6, 7


def test_too_few_that_have_both_is_a_problem_with_its_cause():
    result = compare("other", measured([1, 2, 3, 4, 5]), measured([1, 2, 3, 4, None]), CONFIG)
    assert result.correlation is None
    assert result.problem == (
        "4 genotypes with both rewards are too few; an interval needs 5. "
        "The last failed because of failure 4"
    )


def test_a_reward_that_never_came_costs_nothing_known():
    result = compare("other", measured([1, 2, 3, 4, 5]), measured([None] * 5), CONFIG)
    assert (result.correlation, result.seconds, result.num_failed) == (None, None, 5)
