import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from PIL import Image

import measure_fidelity
from _logger_base import LoggerConfig
from search.randomness import stream
from search.rewards.config import SupernetConfig
from search.rewards.tabular import FORMAT
from search.space import SpaceConfig, build_space

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    pixels = torch.randint(256, (40, 8, 8, 3), generator=stream("pixels")).to(torch.uint8)
    for index, image in enumerate(pixels):
        folder = root / "train" / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(folder / f"{index}.png")
    config = SpaceConfig(operations=["identity", "conv_1x1"], num_blocks=1, combinations=["add"])
    space = build_space(config)
    lines = [{"format": FORMAT, "space": asdict(config), "reward": {}, "data": {}}]
    for number, genotype in enumerate(list(space.enumerate())[:12]):
        decisions = space.to_decisions(genotype)
        lines.append({"decisions": decisions, "reward": number / 20, "seconds": 1, "cost": None})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (root / "table.jsonl").write_text(text, encoding="utf-8")
    return root


def run(data, out, *overrides):
    command = [
        sys.executable, ROOT / "tools" / "research" / "rank_supernet.py", f"out={out}",
        f"reward.data_root={data}", "reward.held_out_images=20", "reward.epochs=1",
        "num_resamples=100", f"table={data / 'table.jsonl'}", *overrides,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.ci
def test_the_tool_prints_how_well_the_order_is_kept(data, tmp_path):
    done = run(data, tmp_path, "best_fraction=0.5")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[3].split("  ")[0] == "supernet"
    record = json.loads((tmp_path / "supernet_ranking.json").read_text())
    assert f"{record['compared'][0]['overall']['tau']:.2f}" in lines[3]
    assert (tmp_path / "supernet.safetensors").is_file()
    assert (tmp_path / "config.yaml").is_file()
    assert "tau/supernet" in next(tmp_path.rglob("metrics.csv")).read_text()


def test_a_supernet_is_refused_as_the_reference_of_measure_fidelity():
    supernet = SupernetConfig(
        data_root="", weights="x.safetensors", space=SpaceConfig(), num_cells=1, first_filters=4,
        epochs=1, batch_size=8, learning_rate=0.1, weight_decay=0,
    )  # fmt: skip
    with pytest.raises(ValueError, match="compared with a table: see rank_supernet"):
        measure_fidelity.Args(
            out="", reward=supernet, proxies=[], zero_cost=[], logger=LoggerConfig(),
            num_genotypes=5, wanted_tau=0,
        )  # fmt: skip
