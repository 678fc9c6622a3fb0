import pytest

from search.analysis.config import FidelityConfig
from search.analysis.rank_correlation import Agreement
from search.analysis.recommendation import Comparison, compare, recommend
from search.analysis.reward_log import Measurement

CONFIG = FidelityConfig(num_genotypes=6, wanted_tau=0.5, num_resamples=200)


def compared(name, low, *, seconds=1.0, problem=""):
    """A comparison whose interval begins at ``low``; None for one without agreement."""
    agreement = None
    if low is not None:
        agreement = Agreement(tau=low + 0.1, low=low, high=low + 0.2, num_genotypes=20)
    return Comparison(
        name=name, agreement=agreement, problem=problem, seconds=seconds, num_failed=0
    )


CEILING = compared("dear again", 0.7, seconds=10)


def choose(*cheap, wanted=0.5, ceiling=CEILING, dear_seconds=10.0):
    return recommend(cheap, ceiling=ceiling, dear_seconds=dear_seconds, wanted_tau=wanted)


def measured(values):
    return [
        Measurement(
            key="", name="", genotype="", seed=0, value=value, seconds=number + 1.0,
            failure="" if value is not None else f"failure {number}",
        )
        for number, value in enumerate(values)
    ]  # fmt: skip


def test_the_cheapest_that_keeps_the_wanted_tau_is_recommended():
    rewards = (
        compared("good", 0.8, seconds=5),
        compared("enough", 0.5, seconds=2),
        compared("free", 0.49, seconds=0.1),
    )
    name, advice = choose(*rewards)
    assert name == "enough"
    assert "Search with enough" in advice
    assert "20.0% of the dear reward's cost" in advice
    assert choose(*rewards, wanted=0.6)[0] == "good"


def test_that_none_keeps_it_is_said_with_the_nearest_and_the_ceiling():
    name, advice = choose(compared("near", 0.3), compared("far", 0.1), wanted=0.9)
    assert name is None
    assert "No cheap reward surely keeps tau 0.9; the nearest is near (tau 0.40" in advice
    assert "agrees with itself by tau 0.80, 0.70 to 0.90" in advice


def test_without_a_ceiling_the_advice_goes_without():
    name, advice = choose(compared("near", 0.3), ceiling=compared("dear again", None))
    assert name is None
    assert "itself" not in advice


def test_what_costs_as_much_as_the_dear_reward_is_not_recommended():
    name, advice = choose(compared("long", 0.9, seconds=10))
    assert name is None
    assert "costs no less than the dear reward: long" in advice


@pytest.mark.parametrize("dear_seconds", [10.0, None])
def test_without_any_agreement_the_reason_is_given(dear_seconds):
    ceiling = compared("dear again", None, problem="3 genotypes are too few")
    name, advice = choose(compared("a", None), ceiling=ceiling, dear_seconds=dear_seconds)
    assert name is None
    assert advice == "No recommendation: 3 genotypes are too few."


def test_genotypes_that_lack_a_reward_are_left_out_on_both_sides():
    dear = measured([1, 2, 3, None, 5, 6, 7])
    other = measured([10, 20, None, 0, 50, 60, 70])
    found = compare("other", dear, other, CONFIG)
    assert found.agreement.tau == 1
    assert found.agreement.num_genotypes == 5
    assert found.num_failed == 1
    assert found.seconds == 4.5  # median of 1, 2, 4, 5, 6, 7


def test_too_few_that_have_both_is_a_problem_with_its_cause():
    found = compare("other", measured([1, 2, 3, 4, 5]), measured([1, 2, 3, 4, None]), CONFIG)
    assert found.agreement is None
    assert found.problem == (
        "4 genotypes with both rewards are too few; an interval needs 5. "
        "The last failed because of failure 4"
    )


def test_a_reward_that_never_came_costs_nothing_known():
    found = compare("other", measured([1, 2, 3, 4, 5]), measured([None] * 5), CONFIG)
    assert (found.agreement, found.seconds, found.num_failed) == (None, None, 5)
