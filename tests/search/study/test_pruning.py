import pytest

from search.execution.worker import Outcome
from search.study.pruning import PruningConfig, stopping_thresholds, top_fraction_threshold


def outcomes(*steps):
    return [Outcome(number=number, steps=reported) for number, reported in enumerate(steps)]


def test_the_threshold_is_the_lowest_of_the_best_fraction():
    assert top_fraction_threshold([0.1, 0.4, 0.2, 0.3], 0.5) == 0.3
    assert top_fraction_threshold([0.1, 0.4, 0.2, 0.3], 0.3) == 0.3  # ceil(1.2) = 2 values
    assert top_fraction_threshold([0.1, 0.4, 0.2, 0.3], 1.0) == 0.1


def test_the_best_fraction_is_at_least_one_value():
    assert top_fraction_threshold([0.1, 0.4], 0.001) == 0.4


def test_no_trial_is_stopped_at_the_last_step_of_a_whole_training():
    past = outcomes({1: 0.1, 2: 0.2}, {1: 0.3, 2: 0.4}, {1: 0.2})
    config = PruningConfig(keep=0.5, num_startup_trials=1)
    assert stopping_thresholds(past, config) == {1: 0.2}


def test_no_trial_is_stopped_before_enough_have_reported():
    past = outcomes({1: 0.1, 2: 0.2}, {1: 0.3, 2: 0.4})
    assert stopping_thresholds(past, PruningConfig(keep=0.5, num_startup_trials=3)) == {}


def test_step_0_has_a_fraction_of_its_own():
    past = outcomes({0: 5.0, 1: 0.1}, {0: 7.0, 1: 0.3})
    config = PruningConfig(keep_scored=0.5, num_startup_trials=2)
    assert stopping_thresholds(past, config) == {0: 7.0}


def test_a_score_alone_stops_trials_too():
    config = PruningConfig(keep_scored=0.5, num_startup_trials=2)
    assert stopping_thresholds(outcomes({0: 5.0}, {0: 7.0}), config) == {0: 7.0}


def test_nothing_is_stopped_without_a_past():
    assert stopping_thresholds([], PruningConfig(keep=0.5)) == {}


@pytest.mark.parametrize("name", ["keep", "keep_scored"])
@pytest.mark.parametrize("value", [0.0, 1.5])
def test_fractions_outside_their_range_are_rejected(name, value):
    with pytest.raises(ValueError, match=f"{name} must be above 0 and at most 1, not {value}"):
        PruningConfig(**{name: value})
