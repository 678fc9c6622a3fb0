"""The tools around searches: tables, replays, simulations and comparisons."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import all_tools
import compare_searches
import replay_strategies
from _choices import register_choices
from _cli import Tool
from replay_strategies import named_strategy
from search.randomness import stream
from search.rewards.tabular import read_table
from search.strategies.config import ControllerConfig, EvolutionConfig, RandomConfig

ROOT = Path(__file__).parents[2]
SMALL = ["space.operations=[identity,max_pool_3x3]", "space.num_blocks=1"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    pixels = torch.randint(256, (24, 8, 8, 3), generator=stream("pixels")).to(torch.uint8)
    for index, image in enumerate(pixels):
        folder = root / "train" / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(folder / f"{index}.png")
    return root


@pytest.fixture
def _conf():
    register_choices()
    with Tool.config_dir():
        yield


def run(tool, *overrides, folder=ROOT):
    command = [sys.executable, all_tools.PATHS[tool], *overrides]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.mark.slow
@pytest.mark.ci
def test_a_table_is_recorded_and_then_searched(images, tmp_path):
    recorded = run(
        "tabulate_rewards", f"out={tmp_path}", *SMALL, f"reward.data_root={images}",
        "reward.held_out_images=8", "reward.batch_size=8", "executor=inline", "progress=false",
    )  # fmt: skip
    assert recorded.returncode == 0, recorded.stderr
    path = tmp_path / "rewards.jsonl"
    rows = read_table(path)[1]
    best = max(rows, key=lambda row: row.reward)
    lines = recorded.stdout.splitlines()
    assert lines[0] == "4 genotypes, 0 left out because their training failed"
    digest, cost = best.genotype.digest, f"{best.cost:,.0f}"
    assert lines[1] == f"best: {digest} with reward {best.reward:.4f}, mult_adds {cost}"
    assert lines[2] == f"table: {path}"
    assert (tmp_path / "config.yaml").is_file()

    out = tmp_path / "replays"
    searched = run(
        "replay_strategies", f"out={out}", f"table={path}", "num_seeds=3", "num_trials=12",
        "strategies=[random,{evolution: {population_size: 2, sample_size: 2}}]", "progress=false",
    )  # fmt: skip
    assert searched.returncode == 0, searched.stderr
    assert searched.stderr == ""
    assert "one of the 1 best of 4 genotypes" in searched.stdout
    record = json.loads((out / "replays.json").read_text())
    names = [strategy["name"] for strategy in record["strategies"]]
    assert names == ["random", "evolution population_size=2 sample_size=2"]
    assert record["strategies"][1]["settings"]["population_size"] == 2
    for strategy in record["strategies"]:
        assert len(strategy["trainings_by_seed"]) == 3
        assert re.search(rf"^{strategy['name']}  .* {strategy['mean']:.0f} ", searched.stdout, re.M)
    assert (out / "replays.png").is_file()


@pytest.mark.slow
@pytest.mark.ci
def test_a_simulated_search_says_how_busy_its_workers_were(tmp_path):
    arguments = [
        f"out={tmp_path}", "num_trials=20", "workers.num_workers=4", "workers.failed_fraction=0.5",
        "strategy=random", "progress=false",
    ]  # fmt: skip
    done = run("simulate_search", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # failures that are only pretended are no warnings
    result = json.loads((tmp_path / "simulation.json").read_text())
    assert result["num_trials"] == 20
    assert done.stdout.startswith(f"20 trials on 4 workers: {result['num_failed']} failed, ")
    assert f"{result['busy_percent']:.2f} % until the end" in done.stdout
    again = run("simulate_search", *arguments)
    assert again.returncode == 1
    assert again.stderr.endswith("study.journal exists already; give a folder without a journal\n")


@pytest.mark.slow
@pytest.mark.ci
def test_searches_are_compared_on_one_page(images, tmp_path):
    done = run(
        "search_cells", "--multirun", f"out={tmp_path / 'random'}", "seed=0,1", "strategy=random",
        "space.num_blocks=1", "num_trials=2", "num_reevaluated=0", f"reward.data_root={images}",
        "reward.held_out_images=8", "reward.batch_size=8", "executor=inline", "logger=none",
        folder=tmp_path,  # Hydra leaves a multirun.yaml there
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folders = [str(tmp_path / "random" / seed) for seed in "01"]
    out = tmp_path / "page"
    done = run("compare_searches", f"out={out}", f"searches={{at random: [{','.join(folders)}]}}")
    assert (done.returncode, done.stdout) == (0, f"report: {out / 'report.html'}\n"), done.stderr
    assert "at random, 1" in (out / "report.html").read_text()

    refused = run("compare_searches", f"out={tmp_path / 'no'}", f"searches={{mine: [{images}]}}")
    sentence = f"error: {images} holds no finished search: it has no cells.json\n"
    assert (refused.returncode, refused.stderr) == (1, sentence)
    assert not (tmp_path / "no").exists()


@pytest.mark.usefixtures("_conf")
def test_strategies_are_named_as_they_are_chosen():
    assert named_strategy("random") == ("random", RandomConfig())
    assert named_strategy({"evolution": {"population_size": 7}}) == (
        "evolution population_size=7",
        EvolutionConfig(population_size=7),
    )
    name, controller = named_strategy({"controller_short": {"batch_size": 5}})
    assert name == "controller_short batch_size=5"
    assert isinstance(controller, ControllerConfig)
    assert controller.batch_size == 5
    assert controller.learning_rate > ControllerConfig().learning_rate


@pytest.mark.usefixtures("_conf")
@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("evolutoin", "there is no strategy 'evolutoin'; choose from ['controller', "),
        (3, "there is no strategy 3; choose from"),
        ({"random": {}, "tpe": {}}, "there is no strategy {'random': {}, 'tpe': {}}; choose from"),
        ({"tpe": 5}, "tpe needs settings such as {batch_size: 10}, not 5"),
        ({"controller": {"rate": 1}}, "strategy=controller has no setting 'rate'; choose from"),
        ({"controller": {"batch_size": "many"}}, "batch_size='many': Expected `int`, got `str`"),
        ({"controller": {"batch_size": 0}}, "batch_size must be at least 1, not 0"),
    ],
)
def test_strategies_that_there_are_not_are_refused_in_one_sentence(entry, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        named_strategy(entry)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_seeds": 0}, "num_seeds must be at least 1, not 0"),
        ({"num_trials": 0}, "num_trials must be at least 1, not 0"),
        ({"top_fraction": 0.0}, "top_fraction must be above 0 and at most 1, not 0.0"),
        ({"strategies": []}, "strategies needs at least one name"),
    ],
)
def test_replays_that_cannot_be_are_refused(changes, sentence):
    defaults = {
        "out": "x", "table": "y", "strategies": ["random"], "num_seeds": 1, "num_trials": 1,
        "top_fraction": 0.1,
    }  # fmt: skip
    with pytest.raises(ValueError, match=sentence):
        replay_strategies.Args(**(defaults | changes))


@pytest.mark.parametrize("searches", [{}, {"random": []}, {"random": "runs/a"}, ["runs/a"], None])
def test_a_comparison_of_nothing_is_refused(searches):
    with pytest.raises(ValueError, match=r"searches needs folders for every name, as in \{"):
        compare_searches.Args(out="x", searches=searches)


@pytest.mark.parametrize("setting", ["cost.target=5", "cost.front=true"])
def test_a_table_weighs_no_costs(tmp_path, setting):
    done = run("tabulate_rewards", f"out={tmp_path}", setting)
    assert done.returncode == 1
    assert done.stderr.startswith("error: a table holds plain rewards and costs; cost.target")
