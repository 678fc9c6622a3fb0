import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from backbone.cells.published import NASNET_A
from backbone.io.weights import read_metadata
from search.randomness import stream
from search.rewards import supernet_reward as shared_reward
from search.rewards.base import Reward
from search.rewards.config import SupernetConfig
from search.rewards.proxy import ProxyReward
from search.rewards.supernet_reward import SupernetReward
from search.space import SpaceConfig, build_space
from search.strategies.config import RandomConfig
from search.study.config import SearchConfig
from search.study.study import run_search

ROOT = Path(__file__).parents[3]
SPACE = SpaceConfig(operations=["identity", "conv_3x3", "max_pool_3x3"], num_blocks=1)
CELLS = build_space(SPACE).to_genotype([0, 1, 1, 1, 0] * 2)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    pixels = torch.randint(256, (60, 16, 16, 3), generator=stream("pixels")).to(torch.uint8)
    for index, image in enumerate(pixels):
        folder = root / ("val" if index >= 44 else "train") / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(folder / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    """Settings of a network that is there already, and its score of ``CELLS``."""
    config = settings(images, tmp_path_factory.mktemp("trained") / "shared.safetensors")
    return config, score(SupernetReward(config))


def settings(images, weights, **changes):
    given = {
        "data_root": str(images), "weights": str(weights), "space": SPACE, "num_cells": 1,
        "first_filters": 4, "epochs": 2, "batch_size": 8, "learning_rate": 0.05,
        "weight_decay": 1e-4, "crop_padding_px": 1, "num_threads": 1, "held_out_images": 20,
    }  # fmt: skip
    return SupernetConfig(**(given | changes))


def score(reward, genotype=CELLS, *, seed=0):
    return reward(genotype, seed=seed, report=lambda _step, _value: None)


def no_training(*_arguments, **_named):
    raise AssertionError("a trained network is trained again")


def test_the_network_is_trained_at_the_first_call_and_read_afterwards(trained, monkeypatch):
    config, value = trained
    monkeypatch.setattr(shared_reward, "train_supernet", no_training)
    reward: Reward = SupernetReward(config)
    reported = []
    again = reward(CELLS, seed=7, report=lambda step, score: reported.append((step, score)))
    assert again == value
    assert reported == [(1, value)]
    about = read_metadata(config.weights, kind=shared_reward.KIND)
    assert about["provenance"]["arguments"]["epochs"] == 2


def test_the_same_settings_give_the_same_network(trained, tmp_path):
    config, value = trained
    other = replace(config, weights=str(tmp_path / "deep" / "again.safetensors"))
    assert score(SupernetReward(other)) == value
    assert SupernetReward(other).arguments == SupernetReward(config).arguments


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"epochs": 3}, r"\(epochs\)"),
        ({"seed": 1, "first_filters": 8}, r"\(first_filters, seed\)"),
        ({"space": replace(SPACE, concat="all")}, r"\(space\)"),
    ],
)
def test_a_network_of_other_settings_is_refused_by_their_names(trained, changes, names):
    reward = SupernetReward(replace(trained[0], **changes))
    with pytest.raises(ValueError, match=rf"made with other settings {names}; give another file"):
        score(reward)


def test_other_images_to_score_on_need_no_other_network(trained, monkeypatch):
    monkeypatch.setattr(shared_reward, "train_supernet", no_training)
    fewer = SupernetReward(replace(trained[0], max_val_images=5))
    assert score(fewer) in {number / 5 for number in range(6)}
    assert fewer.arguments != SupernetReward(trained[0]).arguments


def test_what_is_no_shared_network_is_refused(images, tmp_path):
    path = tmp_path / "shared.safetensors"
    path.write_bytes(b"torn")
    with pytest.raises(ValueError, match="is damaged"):
        score(SupernetReward(settings(images, path)))


def test_a_winner_is_tested_on_images_that_no_trial_is_scored_on(trained, images):
    unseen = SupernetReward(trained[0]).test_reward
    assert score(unseen) in {number / 16 for number in range(17)}
    assert unseen._network.tensors.keys()
    assert SupernetReward(settings(images, "x.safetensors", held_out_images=0)).test_reward is None


def test_a_pickle_holds_neither_images_nor_tensors_and_gives_the_same(trained):
    reward = SupernetReward(trained[0])
    value = score(reward)
    pickled = pickle.dumps(reward)
    assert len(pickled) < 2000
    assert score(pickle.loads(pickled)) == value


def test_of_several_processes_one_trains_and_the_others_wait(images, tmp_path):
    config = settings(images, tmp_path / "shared.safetensors", epochs=8)
    (tmp_path / "reward").write_bytes(pickle.dumps(SupernetReward(config)))
    code = (
        "import pickle, sys, pathlib; from search.space import build_space\n"
        "reward = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "cells = build_space(reward.config.space).to_genotype([0, 1, 1, 1, 0] * 2)\n"
        "print(reward(cells, seed=0, report=lambda *_: None))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "reward")]
    processes = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(2)
    ]
    scores, notes = zip(*(process.communicate() for process in processes), strict=True)
    assert scores[0] == scores[1] != ""
    assert "".join(notes).count("training the supernet") == 1


def test_a_training_that_diverges_is_nobodys_trial_and_leaves_no_file(images, tmp_path):
    config = settings(
        images, tmp_path / "shared.safetensors", learning_rate=1e38, gradient_clip=0.0
    )
    with pytest.raises(ValueError, match=r"cannot be trained with learning_rate 1e\+38: the loss"):
        score(SupernetReward(config))
    assert not (tmp_path / "shared.safetensors").exists()


def test_a_search_is_made_with_shared_weights(trained, tmp_path):
    config = SearchConfig(
        strategy=RandomConfig(), num_trials=4, space=SPACE, progress=False, num_reevaluated=0
    )
    result = run_search(config, tmp_path, reward=SupernetReward(trained[0]))
    assert (tmp_path / "cells.json").is_file()
    assert 0 <= result.reward <= 1


def test_what_cannot_be_shared_is_one_sentence(trained, images):
    with pytest.raises(ValueError, match="has 5 blocks; this space has cells of 1"):
        score(SupernetReward(trained[0]), NASNET_A)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        SupernetReward(settings(images / "none", "x.safetensors"))
    with pytest.raises(ValueError, match="unknown operation 'conv'"):
        SupernetReward(settings(images, "x.safetensors", space=SpaceConfig(operations=["conv"])))
    with pytest.raises(ValueError, match=r"must name a .safetensors file, not 'x.pt'"):
        settings(images, "x.pt")
    with pytest.raises(ValueError, match="rungs must be empty with a supernet"):
        settings(images, "x.safetensors", rungs=[1])


def test_an_architecture_of_another_kind_is_refused_before_anything_is_loaded_or_trained(
    images, tmp_path, monkeypatch
):
    monkeypatch.setattr(ProxyReward, "tensors", property(no_training))
    monkeypatch.setattr(shared_reward, "train_supernet", no_training)
    config = settings(images, tmp_path / "x.safetensors")
    for reward in (SupernetReward(config), ProxyReward(config)):
        with pytest.raises(TypeError, match=r"not an architecture of type 'SimpleNamespace'"):
            score(reward, SimpleNamespace(family="stages"))
    assert not (tmp_path / "x.safetensors").exists()
