import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from _harness import machine, measure
from _reference_proxy import train_reference
from benchmark_proxy import summarize
from search.randomness import stream
from search.rewards.config import ProxyConfig
from search.rewards.proxy import ProxyReward
from search.space import SearchSpace

ROOT = Path(__file__).parents[2]
SPACE = SearchSpace(operations=("identity", "conv_3x3", "max_pool_3x3"), num_blocks=1)
CELLS = SPACE.to_genotype([0, 1, 1, 1, 0] * 2)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Horizontal stripes against vertical ones."""
    root = tmp_path_factory.mktemp("stripes")
    random = stream("stripes")
    rows = torch.arange(16)[:, None].expand(16, 16)
    for index in range(120):
        phase = int(torch.randint(4, (), generator=random))
        stripes = ((rows + phase) % 4 < 2) * 120
        pixels = stripes if index % 2 else stripes.T
        noisy = pixels[..., None] + torch.randint(60, (16, 16, 3), generator=random)
        folder = root / "train" / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.to(torch.uint8).numpy()).save(folder / f"{index}.png")
    return ProxyConfig(
        data_root=str(root), num_cells=1, first_filters=4, epochs=4, batch_size=10,
        learning_rate=0.05, weight_decay=1e-4, crop_padding_px=1, held_out_images=40,
        num_threads=1,
    )  # fmt: skip


def test_the_reference_loop_learns_the_same_task(config):
    reward = ProxyReward(config)
    accuracy = train_reference(CELLS, config, sample=reward.tensors[0], num_workers=0, seed=0)
    assert accuracy > 0.8
    assert reward(CELLS, seed=0, report=lambda *_: None) > 0.8


def test_entries_take_turns_and_the_median_counts():
    order = []

    def entry(name, seconds):
        times = iter(seconds)

        def run():
            order.append(name)
            return next(times), 0.5

        return run

    rounds = measure({"a": entry("a", [1, 9, 2]), "b": entry("b", [4, 4, 4])}, rounds=3)
    assert order == ["a", "b"] * 3
    figures = summarize(rounds, num_genotypes=5)
    assert figures["a"]["trials_per_hour"] == 5 * 3600 / 2
    assert figures["b"]["trials_per_hour"] == 5 * 3600 / 4


@pytest.mark.slow
@pytest.mark.ci
def test_the_tool_prints_ratios_to_the_fastest_reference_loop(config, tmp_path):
    command = [
        sys.executable, ROOT / "tools" / "benchmarks" / "benchmark_proxy.py", f"out={tmp_path}",
        f"reward.data_root={config.data_root}", "reward.held_out_images=40", "space.num_blocks=1",
        "num_genotypes=2", "rounds=1", "loader_workers=[0]", "workers=[1]",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = {line.split("  ")[0]: line.split() for line in done.stdout.splitlines() if line}
    assert rows["reference loop, 0 loader workers"][-2] == "1.00"
    figures = json.loads((tmp_path / "benchmark.json").read_text())["figures"]
    reference, proxy = (f["trials_per_hour"] for f in figures.values())
    assert float(rows["proxy, 1 at a time"][-2]) == pytest.approx(proxy / reference, abs=0.006)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rounds=0", "at least 1"),
        ("workers=[0]", "workers needs numbers"),
        ("loader_workers=[]", "at least 0, not []"),
    ],
)
def test_what_cannot_be_measured_is_refused(override, message, tmp_path):
    command = [
        sys.executable,
        ROOT / "tools" / "benchmarks" / "benchmark_proxy.py",
        f"out={tmp_path}",
        override,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert message in done.stderr


def test_the_machine_is_described_where_the_system_has_no_cpu_affinity(monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    assert machine()["cpus"] == 3
