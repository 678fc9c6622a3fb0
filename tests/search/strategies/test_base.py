import optuna
import pytest

from search.space import SearchSpace
from search.strategies import build_sampler
from search.strategies.base import HistoryWindow, StrategyConfig
from search.strategies.config import EvolutionConfig, NsgaConfig, RandomConfig, TpeConfig
from search.strategies.controller import ControllerConfig, ControllerSampler

SPACE = SearchSpace(operations=("identity", "conv_1x1", "max_pool_3x3"), num_blocks=1)
CONTROLLER = ControllerConfig(batch_size=4, num_units=8, learning_rate=0.05)
EVOLUTION = EvolutionConfig(population_size=5, sample_size=3)
STRATEGIES = [
    RandomConfig(),
    CONTROLLER,
    EVOLUTION,
    TpeConfig(num_startup_trials=4),
    NsgaConfig(population_size=4),
]


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def ask(study):
    trial = study.ask()
    study.sampler.suggest(trial)
    return trial


def run(study, num_trials, *, fail=()):
    for _ in range(num_trials):
        trial = ask(study)
        if trial.number in fail:
            trial.set_user_attr("failure", "it diverged")
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, trial.params["normal_0_left_operation"] / 2)
    return [trial.params for trial in study.trials]


def new_study(strategy, *, seed=0):
    sampler = build_sampler(strategy, SPACE, seed=seed)
    return optuna.create_study(direction="maximize", sampler=sampler)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_sampler_that_is_rebuilt_continues_like_the_original(strategy):
    whole = run(new_study(strategy), 14, fail={2})
    study = new_study(strategy)
    run(study, 7, fail={2})
    study.sampler = build_sampler(strategy, SPACE, seed=0)
    assert run(study, 7) == whole


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_another_seed_gives_other_proposals(strategy):
    assert run(new_study(strategy), 5) != run(new_study(strategy, seed=1), 5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_proposal_looks_no_further_than_its_history_window(strategy):
    def proposals(rewards):
        sampler = build_sampler(strategy, SPACE, seed=0, history=HistoryWindow(lag=3))
        study = optuna.create_study(direction="maximize", sampler=sampler)
        params = []
        for reward in rewards:
            trial = ask(study)
            params.append(trial.params)
            study.tell(trial, reward)
        return params

    rewards = [0.1, 0.5, 0.3, 0.9, 0.2, 0.8, 0.4, 0.7, 0.6, 0.35, 0.15, 0.95]
    changed = [*rewards[:8], *(1 - reward for reward in rewards[8:])]
    # Trial 8's reward can change no proposal before trial 12's.
    assert proposals(changed) == proposals(rewards)


def test_the_controller_ignores_an_orphaned_trial():
    study = new_study(CONTROLLER)
    for _ in range(4):
        study.tell(ask(study), state=optuna.trial.TrialState.FAIL)
    run(study, 1)
    assert study.sampler._controller.baseline is None


def test_a_batch_with_a_running_trial_is_not_learned():
    study = new_study(CONTROLLER)
    running = ask(study)
    run(study, 6)
    assert isinstance(study.sampler, ControllerSampler)
    assert study.sampler._controller.num_batches == 0
    study.tell(running, 1.0)
    run(study, 1)
    assert study.sampler._controller.num_batches == 1


def test_the_controller_learns_a_reward_of_zero_from_a_failed_trial():
    study = new_study(CONTROLLER)
    run(study, 5, fail={0, 1, 2, 3})
    assert study.sampler._controller.baseline == 0.0


def test_one_sampler_can_serve_two_studies():
    sampler = build_sampler(CONTROLLER, SPACE, seed=0)
    one, two = (optuna.create_study(direction="maximize", sampler=sampler) for _ in range(2))
    assert run(one, 9) == run(two, 9)


def test_a_config_that_is_in_no_row_of_the_table_is_named():
    with pytest.raises(TypeError, match="unknown choice StrategyConfig"):
        build_sampler(StrategyConfig(), SPACE, seed=0)


def test_a_parameter_that_is_no_choice_is_refused():
    trial = new_study(RandomConfig()).ask()
    with pytest.raises(ValueError, match="'learning_rate' is not a choice"):
        trial.suggest_float("learning_rate", 0.0, 1.0)
