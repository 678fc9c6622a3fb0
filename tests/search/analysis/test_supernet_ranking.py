import json
import random
from dataclasses import asdict, replace

import pytest
import torch
from PIL import Image

from search.analysis import supernet_ranking
from search.analysis.config import SupernetRankingConfig
from search.analysis.supernet_ranking import measure_supernet_ranking
from search.randomness import stream
from search.rewards.config import SupernetConfig
from search.rewards.tabular import FORMAT
from search.space import SpaceConfig, build_space

SPACE = SpaceConfig(operations=["identity", "max_pool_3x3"], num_blocks=1, combinations=["add"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with images and with a table whose rewards are noise."""
    root = tmp_path_factory.mktemp("folder")
    pixels = torch.randint(256, (40, 8, 8, 3), generator=stream("pixels")).to(torch.uint8)
    for index, image in enumerate(pixels):
        folder = root / "train" / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(folder / f"{index}.png")
    space = build_space(SPACE)
    lines = [{"format": FORMAT, "space": asdict(SPACE), "reward": {}, "data": {}}]
    for genotype in list(space.enumerate())[:24]:
        reward = round(random.Random(genotype.digest).random(), 3)
        decisions = space.to_decisions(genotype)
        lines.append({"decisions": decisions, "reward": reward, "seconds": 1, "cost": None})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (root / "table.jsonl").write_text(text, encoding="utf-8")
    return root


def measure(folder, out, **changes):
    config = SupernetRankingConfig(
        table=str(folder / "table.jsonl"), num_resamples=200, progress=False
    )
    reward = SupernetConfig(
        data_root=str(folder), weights=str(folder / "supernet.safetensors"),
        space=SpaceConfig(num_blocks=4), num_cells=1, first_filters=4, epochs=1, batch_size=8,
        learning_rate=0.05, weight_decay=0, crop_padding_px=1, num_threads=1, held_out_images=20,
    )  # fmt: skip
    return measure_supernet_ranking(replace(config, **changes), reward, out)


def test_scores_of_the_tables_own_space_are_compared_with_its_rewards(folder, tmp_path):
    result = measure(folder, tmp_path)
    assert [compared.name for compared in result.compared] == ["supernet", "multiply-adds"]
    assert [c.overall.num_genotypes for c in result.compared] == [24, 24]
    written = json.loads(result.path.read_text())
    assert len(written["genotypes"]) == 24
    assert result.path.with_suffix(".png").is_file()
    first = max(written["genotypes"], key=lambda row: row["score"])
    better = [row for row in written["genotypes"] if row["reward"] > first["reward"]]
    assert (result.chosen_reward, result.chosen_rank) == (first["reward"], 1 + len(better))


def test_scores_equal_to_the_table_agree_with_it_entirely(folder, tmp_path, monkeypatch):
    def looked_up(rows, _supernet, *, progress):
        return [row.reward for row in rows], [0.0] * len(rows)

    monkeypatch.setattr(supernet_ranking, "_score", looked_up)
    result = measure(folder, tmp_path, best_fraction=0.3)
    supernet = result.compared[0]
    assert (supernet.overall.tau, supernet.best.tau) == pytest.approx((1, 1))
    assert supernet.best.num_genotypes == 8  # of 24, rounded up
    assert (result.chosen_rank, result.chosen_reward) == (1, result.best_reward)
    head, rows = result.table()
    assert [row[:3] for row in rows[:2]] == [
        ["supernet", "all", "24"],
        ["supernet", "best 30%", "8"],
    ]
    assert {len(row) for row in rows} == {len(head)}


def test_too_few_of_the_best_are_left_out_and_of_all_are_refused(folder, tmp_path):
    result = measure(folder, tmp_path, num_genotypes=6, best_fraction=0.5)
    assert result.compared[0].overall.num_genotypes == 6
    assert result.compared[0].best is None
    with pytest.raises(
        ValueError, match="has 24 genotypes; num_genotypes must be from 5 to 24, not 25"
    ):
        measure(folder, tmp_path, num_genotypes=25)
    with pytest.raises(ValueError, match="num_genotypes must be at least 5, not 4"):
        measure(folder, tmp_path, num_genotypes=4)
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        measure(folder, tmp_path, table="none.jsonl")
    with pytest.raises(ValueError, match="best_fraction must be above 0"):
        measure(folder, tmp_path, best_fraction=0)
