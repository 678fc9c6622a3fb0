import optuna
import pytest

from search.analysis.config import SimulationConfig
from search.analysis.simulation import SimulatedExecutor, SimulatedReward, simulate_search
from search.execution.worker import Task
from search.rewards.config import CostConfig
from search.space import SpaceConfig, build_space
from search.strategies.config import EvolutionConfig, RandomConfig
from search.study.config import SearchConfig
from search.study.storage import open_storage

SPACE = SpaceConfig(operations=["identity", "conv_1x1", "max_pool_3x3"], num_blocks=3)
GENOTYPE = build_space(SPACE).to_genotype([0] * len(build_space(SPACE).choices))
HOUR = 3600.0
# So long that what the driver really takes is nothing beside it.
LONG = 1000 * HOUR
STEADY = SimulationConfig(
    num_workers=4, mean_seconds=LONG, spread=0.0, straggler_fraction=0.0, failed_fraction=0.0,
    lost_fraction=0.0,
)  # fmt: skip
ROUGH = SimulationConfig(
    num_workers=4, mean_seconds=60.0, straggler_fraction=0.2, failed_fraction=0.2, lost_fraction=0.3
)


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def config(**changes):
    given = {
        "strategy": RandomConfig(), "num_trials": 12, "space": SPACE, "progress": False,
        "cost": CostConfig(measure="none"),
    }  # fmt: skip
    return SearchConfig(**(given | changes))


def trials(folder):
    (study,) = optuna.get_all_study_summaries(open_storage("", folder))
    return optuna.load_study(study_name=study.study_name, storage=open_storage("", folder)).trials


def tasks_done(simulation, *, seed=0, number=200):
    """An executor that has done so many tasks, as fast as it can, and their outcomes by number."""
    executor = SimulatedExecutor(simulation, seed=seed)
    outcomes, submitted = {}, 0
    while len(outcomes) < number:
        while submitted < number and submitted - len(outcomes) < executor.num_slots:
            executor.submit(Task(number=submitted, architecture=GENOTYPE, seed=0))
            submitted += 1
        for outcome in executor.wait():
            assert outcome.number not in outcomes
            outcomes[outcome.number] = outcome
    return executor, outcomes


def test_every_trial_comes_to_an_end_though_workers_are_lost(tmp_path):
    result = simulate_search(config(num_trials=60), ROUGH, tmp_path)
    states = [trial.state for trial in trials(tmp_path)]
    assert result.num_trials == len(states) == 60
    assert result.num_failed == states.count(optuna.trial.TrialState.FAIL) > 3
    assert states.count(optuna.trial.TrialState.COMPLETE) == 60 - result.num_failed
    assert result.num_lost > 6


def test_every_lost_worker_is_counted_and_its_task_done_again():
    executor, outcomes = tasks_done(ROUGH, number=400)
    assert sorted(outcomes) == list(range(400))
    # Attempts until one is not lost: 1 / 0.7 on average, with a variance of 0.3 / 0.7 ** 2.
    assert executor.num_lost / 400 == pytest.approx(0.3 / 0.7, abs=4 * (0.3 / 0.49 / 400) ** 0.5)
    calm, _ = tasks_done(STEADY, number=20)
    assert calm.num_lost == 0


def test_busy_time_is_what_the_trainings_took():
    calm = SimulationConfig(
        num_workers=4,
        mean_seconds=LONG,
        straggler_fraction=0.2,
        failed_fraction=0.2,
        lost_fraction=0.0,
    )
    executor, outcomes = tasks_done(calm)
    assert executor.busy_seconds == pytest.approx(sum(o.seconds for o in outcomes.values()))
    lossy, outcomes = tasks_done(ROUGH)
    assert lossy.busy_seconds > sum(o.seconds for o in outcomes.values())


def test_trainings_take_as_long_as_they_are_told_to_on_average():
    calm = SimulationConfig(
        num_workers=4, mean_seconds=LONG, spread=0.3, straggler_fraction=0.25, straggler_factor=3.0,
        failed_fraction=0.0, lost_fraction=0.0,
    )  # fmt: skip
    _, outcomes = tasks_done(calm, number=1500)
    mean = sum(o.seconds for o in outcomes.values()) / len(outcomes) / LONG
    assert mean == pytest.approx(1 + 0.25 * 2, abs=0.1)  # four standard errors


@pytest.mark.parametrize(("num_trials", "rounds", "tail"), [(8, 2, 1), (9, 3, 1), (4, 1, 1)])
def test_steady_workers_take_whole_rounds(tmp_path, num_trials, rounds, tail):
    result = simulate_search(config(num_trials=num_trials), STEADY, tmp_path)
    assert result.virtual_hours == pytest.approx(1000 * rounds, rel=1e-3)
    assert result.tail_hours == pytest.approx(1000 * tail, rel=1e-3)
    assert result.busy_percent == pytest.approx(100 * num_trials / (4 * rounds), rel=1e-3)
    assert (result.num_failed, result.num_lost) == (0, 0)


def test_workers_wait_for_nothing_but_the_driver_before_the_tail(tmp_path):
    result = simulate_search(config(num_trials=20), STEADY, tmp_path)
    assert 99.9 < result.busy_percent_before_tail <= 100


def test_workers_that_must_wait_for_others_are_not_called_busy(tmp_path):
    # Trial n waits for all before n - 0, so that one of four workers has work.
    lagging = config(deterministic=True, history_lag=0, num_trials=8)
    result = simulate_search(lagging, STEADY, tmp_path)
    assert result.busy_percent == pytest.approx(25, abs=0.1)
    assert result.busy_percent_before_tail == pytest.approx(25, abs=0.1)


@pytest.mark.parametrize("seed", [0, 5])
def test_a_deterministic_search_makes_the_same_proposals_every_time(tmp_path, seed):
    told = config(
        strategy=EvolutionConfig(population_size=5, sample_size=3), deterministic=True,
        num_trials=24, seed=seed,
    )  # fmt: skip
    results = [simulate_search(told, ROUGH, tmp_path / name) for name in ("one", "two")]
    one, two = ([t.params for t in trials(tmp_path / name)] for name in ("one", "two"))
    assert one == two
    assert results[0].num_lost == results[1].num_lost
    assert results[0].num_failed == results[1].num_failed


def test_another_seed_makes_other_proposals_and_other_accidents(tmp_path):
    for seed in (0, 1):
        simulate_search(config(seed=seed), ROUGH, tmp_path / str(seed))
    one, two = ([t.params for t in trials(tmp_path / name)] for name in ("0", "1"))
    assert one != two
    durations = [
        [o.seconds for _, o in sorted(tasks_done(ROUGH, seed=s, number=5)[1].items())]
        for s in (0, 1)
    ]
    assert durations[0] != durations[1]


def test_a_folder_with_a_journal_is_refused(tmp_path):
    simulate_search(config(num_trials=2), STEADY, tmp_path)
    with pytest.raises(ValueError, match="exists already; give a folder without a journal"):
        simulate_search(config(num_trials=2), STEADY, tmp_path)


def test_a_simulated_reward_depends_on_the_genotype_and_the_seed():
    reward = SimulatedReward()
    one, same, other = (reward(GENOTYPE, seed=seed, report=None) for seed in (0, 0, 1))
    assert one == same != other
    assert 0 <= one < 1
