import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace

import pytest

from backbone.cells.genotype import Genotype
from search.analysis.config import FidelityConfig
from search.analysis.fidelity import draw_genotypes, measure_fidelity
from search.analysis.rank_correlation import kendall_tau
from search.space import SearchSpace, SpaceConfig

SMALL = SpaceConfig(operations=["identity", "conv_1x1", "max_pool_3x3"], num_blocks=2)
CONFIG = FidelityConfig(
    num_genotypes=20, wanted_tau=0.3, space=SMALL, num_resamples=300, progress=False
)


@dataclass
class Noisy:
    """A genotype's quality, from its digest, with noise that depends on the seed."""

    noise: float = 0.0
    pause: float = 0.0
    fail_at: tuple[int, ...] = ()
    interrupt_at: int = -1
    asked: list = field(default_factory=list)
    data: dict = field(default_factory=dict)

    @property
    def arguments(self):
        return {"reward": "noisy", "noise": self.noise}

    def __call__(self, genotype, *, seed, report):
        if len(self.asked) == self.interrupt_at:
            self.interrupt_at = -1
            raise KeyboardInterrupt
        self.asked.append((genotype.digest, seed))
        time.sleep(self.pause)
        if len(self.asked) - 1 in self.fail_at:
            raise FloatingPointError("the loss became nan")
        quality = random.Random(genotype.digest).random()
        luck = random.Random(f"{genotype.digest} {seed} {self.noise}").random()
        return quality + self.noise * luck


def measure(folder, config=CONFIG, reference=None, **proxies):
    return measure_fidelity(
        config,
        folder,
        reference=reference or Noisy(0.02, pause=0.002),
        proxies=proxies or {"good": Noisy(0.05), "poor": Noisy(50.0)},
    )


def without_times(folder):
    text = (folder / "measurements.jsonl").read_text()
    return [json.loads(line) | {"seconds": 0} for line in text.splitlines()]


def test_a_good_proxy_is_distinguished_from_a_poor_one(tmp_path):
    result = measure(tmp_path)
    good, poor = result.proxies
    assert (good.name, poor.name) == ("good", "poor")
    assert good.correlation.tau > 0.8
    assert poor.correlation.low < 0.3
    assert result.recommended == "good"
    assert result.self_agreement.correlation.tau > 0.9
    assert result.reference_seconds > good.seconds


def test_the_files_hold_every_reward_and_where_it_came_from(tmp_path):
    result = measure(tmp_path)
    data = json.loads((tmp_path / "fidelity.json").read_text())
    rows = data["genotypes"]
    assert len({Genotype.from_dict(row["genotype"]).digest for row in rows}) == 20
    rewards = [row["rewards"] for row in rows]
    tau = kendall_tau([r["reference"] for r in rewards], [r["good"] for r in rewards])
    assert data["proxies"][0]["correlation"]["tau"] == tau == result.proxies[0].correlation.tau
    assert data["recommended"] == "good"
    assert data["provenance"]["arguments"]["rewards"]["poor"]["noise"] == 50
    assert (tmp_path / "fidelity.png").read_bytes().startswith(b"\x89PNG")


def test_reference_and_proxies_have_different_seeds(tmp_path):
    reference, good = Noisy(0.02), Noisy(0.05)
    measure(tmp_path, replace(CONFIG, seed=7), reference=reference, good=good)
    assert [seed for _, seed in reference.asked] == [7, 8] * 20
    assert {seed for _, seed in good.asked} == {8}


@pytest.mark.parametrize("moment", [0, 5, 19])
def test_an_interrupted_measurement_is_resumed_without_a_difference(tmp_path, moment):
    whole = measure(tmp_path / "whole")
    good = Noisy(0.05, interrupt_at=moment)
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path / "cut", good=good, poor=Noisy(50.0))
    assert not (tmp_path / "cut" / "fidelity.json").exists()
    resumed = measure(tmp_path / "cut", good=good, poor=Noisy(50.0))
    assert len(good.asked) == 20  # nothing is measured twice
    assert without_times(tmp_path / "cut") == without_times(tmp_path / "whole")
    assert [c.correlation for c in resumed.proxies] == [c.correlation for c in whole.proxies]


KILLED = """
import pathlib, sys
sys.path.insert(0, sys.argv[2])
from test_fidelity import Noisy, measure
print("ready", flush=True)
measure(pathlib.Path(sys.argv[1]), reference=Noisy(0.02, pause=0.01))
"""


def test_a_measurement_that_is_killed_at_any_instant_is_resumed(tmp_path):
    milliseconds = random.SystemRandom().randrange(10, 400)
    here = os.path.dirname(__file__)  # noqa: PTH120
    command = [sys.executable, "-c", KILLED, str(tmp_path / "cut"), here]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        time.sleep(milliseconds / 1000)
        process.send_signal(signal.SIGKILL)
    measure(tmp_path / "cut")
    measure(tmp_path / "whole")
    assert without_times(tmp_path / "cut") == without_times(tmp_path / "whole"), (
        f"killed at {milliseconds} ms"
    )


def test_more_genotypes_and_more_rewards_continue_an_earlier_measurement(tmp_path):
    measure(tmp_path, replace(CONFIG, num_genotypes=8), good=Noisy(0.05))
    reference, good, new = Noisy(0.02), Noisy(0.05), Noisy(0.5)
    measure(tmp_path, reference=reference, good=good, new=new)
    assert [len(reward.asked) for reward in (reference, good, new)] == [2 * 12, 12, 20]


def test_other_settings_in_the_same_folder_are_measured_anew(tmp_path):
    first = measure(tmp_path)
    reference = Noisy(0.02, data={"train": "other images"})
    measure(tmp_path, reference=reference)
    assert len(reference.asked) == 40
    idle = Noisy(0.02, interrupt_at=0)
    again = measure(tmp_path, reference=idle)
    assert not idle.asked
    assert again.proxies == first.proxies


def test_a_failed_genotype_is_recorded_and_left_out_on_both_sides(tmp_path):
    result = measure(tmp_path, good=Noisy(0.05, fail_at=(3,)), reference=Noisy(0.02, fail_at=(0,)))
    (good,) = result.proxies
    assert good.num_failed == 1
    assert good.correlation.num_genotypes == 18
    assert result.self_agreement.correlation.num_genotypes == 19
    rows = json.loads((tmp_path / "fidelity.json").read_text())["genotypes"]
    assert rows[0]["failures"] == {"reference": "FloatingPointError: the loss became nan"}
    assert rows[3]["rewards"]["good"] is None


def test_too_few_successes_are_reported_with_their_reason(tmp_path):
    result = measure(tmp_path, bad=Noisy(0.05, fail_at=tuple(range(16))))
    assert result.recommended is None
    assert "4 genotypes with both rewards are too few; an interval needs 5" in result.advice
    assert "the loss became nan" in result.advice
    head, rows = result.table()
    assert dict(zip(head, rows[1], strict=True))["failed"] == "16"
    assert json.loads((tmp_path / "fidelity.json").read_text())["proxies"][0]["correlation"] is None


def test_rewards_that_are_all_equal_are_no_order(tmp_path):
    class Constant(Noisy):
        arguments = {"reward": "constant"}  # noqa: RUF012

        def __call__(self, genotype, *, seed, report):
            return 0.5

    result = measure(tmp_path, flat=Constant(), good=Noisy(0.05))
    assert "all 20 rewards of one side are equal" in result.proxies[0].problem
    assert result.recommended == "good"


def test_genotypes_differ_and_a_larger_number_begins_with_the_same_ones():
    space = SearchSpace(operations=("identity", "conv_1x1"), num_blocks=1)
    few, many = (draw_genotypes(space, number=number, seed=3) for number in (6, 30))
    assert many[:6] == few
    assert len({genotype.digest for genotype in many}) == 30
    assert draw_genotypes(space, number=6, seed=4) != few


def test_a_space_without_so_many_genotypes_is_one_sentence():
    space = SearchSpace(operations=("identity",), num_blocks=1, combinations=("add",))
    with pytest.raises(ValueError, match="9 different genotypes; the space is too small for num"):
        draw_genotypes(space, number=10, seed=0)


@pytest.mark.parametrize("proxies", [{}, {"reference": Noisy()}, {"reference again": Noisy()}])
def test_proxies_must_have_names_of_their_own(tmp_path, proxies):
    with pytest.raises(ValueError, match="give at least one proxy, with another name than"):
        measure_fidelity(CONFIG, tmp_path, reference=Noisy(), proxies=proxies)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_genotypes": 4}, "num_genotypes must be at least 5, not 4"),
        ({"wanted_tau": 1.5}, "wanted_tau must be from -1 to 1, not 1.5"),
        ({"confidence": 1.0}, "confidence must be between 0 and 1, not 1.0"),
        ({"num_resamples": 9}, "num_resamples must be at least 100, not 9"),
    ],
)
def test_impossible_settings_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(CONFIG, **changes)


def test_the_progress_bar_shows_tau_so_far(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("backbone.io.progress.shows_bars", lambda: True)
    result = measure(tmp_path, replace(CONFIG, progress=True))
    good, own = result.proxies[0].correlation.tau, result.self_agreement.correlation.tau
    assert f"tau: good {good:.2f}, reference again {own:.2f}" in capfd.readouterr().err
