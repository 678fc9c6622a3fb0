import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from measure_fidelity import changed
from search.randomness import stream
from search.rewards.config import ProxyConfig

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    pixels = torch.randint(256, (40, 8, 8, 3), generator=stream("pixels")).to(torch.uint8)
    for index, image in enumerate(pixels):
        folder = root / "train" / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(folder / f"{index}.png")
    return root


def run(images, out, *overrides):
    command = [
        sys.executable, ROOT / "tools" / "research" / "measure_fidelity.py", f"out={out}",
        f"reward.data_root={images}", "reward.held_out_images=10", "reward.epochs=2",
        "space.num_blocks=1", "num_genotypes=5", "num_resamples=100", "zero_cost_batch_size=8",
        *overrides,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.ci
def test_the_tool_prints_a_table_and_a_recommendation(images, tmp_path):
    done = run(
        images, tmp_path, "proxies=[{epochs: 1, max_train_images: 8}]", "zero_cost=[synflow]"
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert rows[1:6] == [
        "reward",
        rows[2],
        "reference again",
        "epochs=1 max_train_images=8",
        "synflow",
    ]
    advice = json.loads((tmp_path / "fidelity.json").read_text())["advice"]
    assert advice in done.stdout
    assert (tmp_path / "config.yaml").is_file()
    assert len((tmp_path / "measurements.jsonl").read_text().splitlines()) == 5 * 4
    assert "tau/synflow" in next(tmp_path.rglob("metrics.csv")).read_text()


PROXY = ProxyConfig(
    data_root="", num_cells=1, first_filters=4, epochs=8, batch_size=8, learning_rate=0.1,
    weight_decay=0,
)  # fmt: skip


def test_a_proxy_is_the_reference_with_some_settings_changed():
    proxy = changed(PROXY, {"epochs": 1, "max_train_images": 500})
    assert proxy == replace(PROXY, epochs=1, max_train_images=500)
    assert PROXY.epochs == 8


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epoch": 1}, "proxies={'epoch': 1}: Key 'epoch' not in 'ProxyConfig'"),
        ({"epochs": "many"}, "could not be converted to Integer"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({}, "a proxy must change at least one setting"),
    ],
)
def test_changes_that_do_not_fit_are_refused_in_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        changed(PROXY, changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("proxies=[{epoch: 1}]", "error: proxies={'epoch': 1}: Key 'epoch' not in 'ProxyConfig'\n"),
        ("zero_cost_batch_size=1", "error: batch_size must be at least 2, not 1\n"),
    ],
)
def test_wrong_settings_leave_no_traceback_and_no_file(images, tmp_path, override, sentence):
    done = run(images, tmp_path, override)
    assert (done.returncode, done.stderr) == (1, sentence)
    assert not list(tmp_path.iterdir())
