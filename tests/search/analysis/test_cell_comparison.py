import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from backbone.cells.published import DARTS_V2, NASNET_A
from search.analysis.cell_comparison import compare_cells, scaled
from search.analysis.config import CellComparisonConfig
from search.execution.local import LocalConfig
from search.randomness import stream
from search.rewards.config import ProxyConfig
from search.rewards.image_tensors import ImageTensors
from search.space import SearchSpace

SPACE = SearchSpace(operations=("identity", "conv_3x3", "max_pool_3x3"), num_blocks=1)
PLAIN, POOLED = SPACE.to_genotype([0, 1, 1, 1, 0] * 2), SPACE.to_genotype([0, 1, 1, 2, 0] * 2)
IMAGES = ImageTensors(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2).long(), 10)
PROXY = ProxyConfig(
    data_root="", num_cells=1, first_filters=4, epochs=2, batch_size=10, learning_rate=0.05,
    weight_decay=1e-4, crop_padding_px=1, num_threads=1,
)  # fmt: skip
COMPARISON = CellComparisonConfig(mult_adds=0.3, num_seeds=2, progress=False)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    random = stream("comparison")
    for split, num in (("train", 40), ("val", 20)):
        for index in range(num):
            pixels = torch.randint(128, (16, 16, 3), generator=random) + 127 * (index % 2)
            folder = root / split / f"class{index % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.to(torch.uint8).numpy()).save(folder / f"{index}.png")
    return replace(PROXY, data_root=str(root))


@pytest.mark.parametrize("genotype", [NASNET_A, DARTS_V2])
@pytest.mark.parametrize("mult_adds", [6e6, 20e6])
def test_networks_of_different_cells_are_scaled_to_the_same_cost(genotype, mult_adds):
    config, size = scaled(genotype, PROXY, IMAGES, mult_adds=mult_adds)
    assert config.first_filters == size.first_filters
    assert size.mult_adds == pytest.approx(mult_adds, rel=0.15)
    for width in (size.first_filters - 1, size.first_filters + 1):
        # No neighbour is nearer: the search for the width would find it from there, too.
        other = mult_adds * (width / size.first_filters) ** 2
        assert scaled(genotype, PROXY, IMAGES, mult_adds=other)[1].first_filters == width


def test_a_cost_below_the_narrowest_network_is_refused():
    with pytest.raises(ValueError, match=r"million mult-adds; 0.10 were requested"):
        scaled(NASNET_A, PROXY, IMAGES, mult_adds=1e5)


def test_cells_are_compared_on_the_val_split_and_the_best_comes_first(proxy, tmp_path):
    results = compare_cells(COMPARISON, proxy, {"plain": PLAIN, "pooled": POOLED}, tmp_path)
    assert {r.name for r in results} == {"plain", "pooled"}
    assert results[0].mean <= results[1].mean
    assert all(error * 20 == pytest.approx(round(error * 20)) for error in results[0].errors)
    record = json.loads((tmp_path / "cells_compared.json").read_text())
    assert [row["name"] for row in record["cells"]] == [r.name for r in results]
    assert record["reward"]["is_test"]


def test_workers_and_an_interruption_change_nothing(proxy, tmp_path):
    cells = {"plain": PLAIN, "pooled": POOLED}
    whole = compare_cells(COMPARISON, proxy, cells, tmp_path / "whole")
    part = tmp_path / "part"
    compare_cells(COMPARISON, proxy, {"plain": PLAIN}, part)
    lines = (part / "measurements.jsonl").read_text().splitlines()
    workers = replace(COMPARISON, executor=LocalConfig(num_workers=2))
    resumed = compare_cells(workers, proxy, cells, part)
    assert [(r.name, r.errors) for r in resumed] == [(r.name, r.errors) for r in whole]
    assert (part / "measurements.jsonl").read_text().splitlines()[:2] == lines


def test_a_training_that_fails_is_named(proxy, tmp_path):
    broken = replace(proxy, learning_rate=1e38, gradient_clip=0)
    with pytest.raises(FloatingPointError, match="2 trainings failed; the first, plain with seed"):
        compare_cells(COMPARISON, broken, {"plain": PLAIN}, tmp_path)
    assert (tmp_path / "measurements.jsonl").read_text() == ""


@pytest.mark.parametrize("mult_adds", [0, -1, float("nan")])
def test_an_impossible_cost_is_refused(mult_adds):
    with pytest.raises(ValueError, match="mult_adds must be above 0"):
        CellComparisonConfig(mult_adds=mult_adds)
