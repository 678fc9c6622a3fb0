"""The Python API of the search."""

import pytest
import torch
from PIL import Image

from backbone import build_backbone
from search import RewardConfig, SpaceConfig, StrategyConfig, search_cells
from search.randomness import stream

SPACE = SpaceConfig(operations=["identity", "max_pool_3x3"], num_blocks=1)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    pixels = torch.randint(256, (32, 16, 16, 3), generator=stream("pixels")).to(torch.uint8)
    for index, image in enumerate(pixels):
        folder = root / ("train" if index < 24 else "val") / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(folder / f"{index}.png")
    return root


def test_a_search_by_names_writes_cells_that_are_a_backbone(images, tmp_path):
    seen = []
    arguments = {
        "out": tmp_path, "data_root": images, "num_trials": 3, "strategy": "random",
        "space": SPACE, "num_reevaluated": 0, "progress": False,
    }  # fmt: skip
    result = search_cells("proxy_quick", **arguments, on_trial=seen.append)
    assert len(seen) == 3
    assert result.reward == max(trial.reward for trial in seen)
    assert (tmp_path / "report.html").is_file()
    channels = build_backbone(f"{result.path}:1@96").channels
    assert len(channels) == 4
    again = search_cells("proxy_quick", **arguments)
    assert again.skipped
    assert again.genotype == result.genotype


def test_a_reward_is_a_name_a_config_or_an_object(images, tmp_path):
    class NumBlocks:
        arguments = {"reward": "blocks"}  # noqa: RUF012
        data = {}  # noqa: RUF012
        test_reward = None

        def __call__(self, architecture, *, seed, report):
            report(1, 1.0)
            return float(len(architecture.normal.blocks))

    common = {
        "num_trials": 2, "space": SPACE, "strategy": StrategyConfig.preset("random"),
        "num_reevaluated": 0, "progress": False,
    }  # fmt: skip
    assert search_cells(NumBlocks(), out=tmp_path / "a", **common).reward == 1.0
    config = RewardConfig.preset("proxy_quick", data_root=images, max_train_images=8)
    by_config = search_cells(config, out=tmp_path / "b", **common)
    assert 0 <= by_config.reward <= 1
    with pytest.raises(ValueError, match="data_root is for a reward given by its name"):
        search_cells(config, out=tmp_path / "c", data_root=images, **common)
    with pytest.raises(ValueError, match="no reward=proxy_slow; choose from"):
        search_cells("proxy_slow", out=tmp_path / "c", **common)
    with pytest.raises(ValueError, match="no strategy=greedy; choose from"):
        search_cells(config, out=tmp_path / "c", **{**common, "strategy": "greedy"})
