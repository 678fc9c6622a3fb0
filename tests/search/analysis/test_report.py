import json
import math
import random
import re
import shutil
from dataclasses import dataclass, field

import optuna
import pytest
from matplotlib.figure import Figure

from backbone.cells.published import ENAS
from search.analysis.report import FinishedSearch, _draw_band, write_report
from search.rewards.config import CostConfig
from search.space import SpaceConfig
from search.strategies.config import EvolutionConfig, RandomConfig
from search.study.config import SearchConfig
from search.study.results import TrialRow
from search.study.study import run_search, search_control

SPACE = SpaceConfig(operations=["identity", "conv_1x1", "max_pool_3x3"], num_blocks=1)


@dataclass
class FromDigest:
    """A reward that is a function of genotype and seed."""

    fail_first: bool = False
    arguments: dict = field(default_factory=lambda: {"reward": "from_digest"})
    data: dict = field(default_factory=lambda: {"train": "1234"})
    test_reward: None = None

    def __call__(self, genotype, *, seed, report):
        if self.fail_first:
            self.fail_first = False
            raise FloatingPointError("the loss became nan in epoch 1")
        return random.Random(f"{genotype.digest} {seed}").random()


def search(folder, reward=None, **changes):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    given = {
        "strategy": RandomConfig(), "num_trials": 6, "space": SPACE, "progress": False,
        "num_reevaluated": 0, "cost": CostConfig(measure="none"),
    }  # fmt: skip
    config = SearchConfig(**(given | changes))
    run_search(config, folder, reward=reward or FromDigest())
    return config


@pytest.fixture(scope="module")
def searches(tmp_path_factory):
    root = tmp_path_factory.mktemp("searches")
    for seed in (0, 1):
        search(root / f"random{seed}", seed=seed)
        evolution = EvolutionConfig(population_size=3, sample_size=2)
        search(root / f"evolution{seed}", seed=seed, strategy=evolution)
    return root


def row(number, reward, seconds, **changes):
    return TrialRow(number=number, reward=reward, seconds=seconds, digest="", **changes)


def finished(*trials):
    return FinishedSearch(folder=None, trials=trials, record={})


@pytest.mark.parametrize(("reevaluated", "expected"), [(None, 0.9), (0.4, 0.4), (0.0, 0.0)])
def test_a_winner_counts_by_its_reevaluated_reward_even_if_that_failed(reevaluated, expected):
    record = {"reward": 0.9, "reevaluated_reward": reevaluated}
    assert FinishedSearch(folder=None, trials=(), record=record).winner_reward == expected


def test_the_best_so_far_ignores_failed_and_stopped_trials():
    search_folder = finished(
        row(0, None, 1800, failure="nan"), row(1, 0.3, 3600), row(2, 0.9, 900, pruned=True),
        row(3, 0.5, 0, same_as=1), row(4, 0.4, 900),
    )  # fmt: skip
    x, y = search_folder.best_so_far(by_time=False)
    assert x == [1, 2, 3, 4, 5]
    assert math.isnan(y[0])
    assert y[1:] == [0.3, 0.3, 0.5, 0.5]
    assert search_folder.best_so_far(by_time=True)[0] == [0.5, 1.5, 1.75, 1.75, 2.0]


def test_the_band_is_the_range_over_seeds_where_all_have_a_curve():
    axis = Figure().subplots()
    _draw_band(axis, [([1, 2, 4], [0.1, 0.3, 0.4]), ([2, 3], [0.2, 0.6])], "any", "red")
    (line,) = axis.lines
    assert line.get_xdata().tolist() == [2, 3]
    assert line.get_ydata().tolist() == pytest.approx([(0.3 + 0.2) / 2, (0.3 + 0.6) / 2])
    (band,) = axis.collections
    assert {round(y, 6) for _, y in band.get_paths()[0].vertices} == {0.2, 0.3, 0.6}


def test_two_curves_may_have_no_time_in_common():
    axis = Figure().subplots()
    _draw_band(axis, [([1, 2], [0.1, 0.3]), ([3, 4], [0.2, 0.6])], "any", "red")
    assert len(axis.lines[0].get_xdata()) == 0


def test_the_report_lists_every_search_by_its_label(searches, tmp_path):
    searches_by_label = {
        "at random": [searches / "random0", searches / "random1"],
        "evolution": [searches / "evolution0"],
    }
    text = write_report(searches_by_label, tmp_path / "new" / "report.html").read_text()
    names = re.findall(r"<tr><td>(.*?)</td><td>6</td>", text)
    assert names == ["at random, random0", "at random, random1", "evolution"]
    assert "Best cells: at random" in text
    assert "Reward and cost" not in text
    assert (tmp_path / "new" / "report_curves.png").is_file()
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)  # it opens without a network


def test_a_search_and_its_control_stand_on_one_page(tmp_path):
    reward = FromDigest(fail_first=True)
    config = search(tmp_path, reward, cost=CostConfig(measure="parameters", first_filters=8))
    control = search_control(config, tmp_path, reward=reward).path.parent
    page = write_report({"search": [tmp_path], "control": [control]}, tmp_path / "report.html")
    assert "Reward and cost" in page.read_text()


def test_costs_in_different_units_are_not_drawn_together(tmp_path):
    for measure in ("parameters", "mult_adds"):
        search(tmp_path / measure, cost=CostConfig(measure=measure, first_filters=8))
    searches_by_label = {name: [tmp_path / name] for name in ("parameters", "mult_adds")}
    assert (
        "Reward and cost"
        not in write_report(searches_by_label, tmp_path / "report.html").read_text()
    )


def test_a_folder_without_a_search_is_refused_in_a_sentence(searches, tmp_path):
    folder = tmp_path / "empty"
    searches_by_label = {"random": [searches / "random0"], "none": [folder]}
    sentence = f"{folder} holds no finished search: it has no cells.json"
    with pytest.raises(FileNotFoundError, match=re.escape(sentence)):
        write_report(searches_by_label, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", [json.dumps(ENAS.to_dict()), "[1, 2", "[]", '{"provenance": 1}'])
def test_cells_that_no_search_wrote_are_refused(tmp_path, text):
    (tmp_path / "cells.json").write_text(text)
    with pytest.raises(ValueError, match=r"cells.json was not written by a search, or is damaged"):
        FinishedSearch.load(tmp_path)


def test_one_name_stands_for_one_search_with_several_seeds(searches, tmp_path):
    random, evolution = searches / "random0", searches / "evolution0"
    with pytest.raises(ValueError, match=r"both 'mine', differ in strategy; searches of one label"):
        write_report({"mine": [random, evolution]}, tmp_path / "report.html")
    with pytest.raises(ValueError, match="both 'mine', have the same seed 0"):
        write_report({"mine": [random, random]}, tmp_path / "report.html")


@pytest.mark.parametrize(
    "other", [FromDigest(arguments={"reward": "other"}), FromDigest(data={"train": "5678"})]
)
def test_rewards_of_different_kinds_are_not_compared(searches, tmp_path, other):
    search(tmp_path / "other", other)
    searches_by_label = {"random": [searches / "random0"], "other": [tmp_path / "other"]}
    with pytest.raises(ValueError, match="are not comparable: their settings or data differ"):
        write_report(searches_by_label, tmp_path / "report.html")


def test_the_cells_shown_are_those_of_the_best_reevaluated_winner(searches, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "search.analysis.report.Picture", lambda title, path, note="": shown.append(path)
    )
    monkeypatch.setattr("search.analysis.report.write_page", lambda *_, **__: None)
    folders = []
    for seed, rewards in enumerate(({"reward": 0.9, "reevaluated_reward": 0.0}, {"reward": 0.4})):
        folders.append(shutil.copytree(searches / f"random{seed}", tmp_path / str(seed)))
        path = folders[-1] / "cells.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | rewards))
    write_report({"random": folders}, tmp_path / "report.html")
    assert shown[-1] == folders[1] / "cells.png"
