import gc
import json
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from backbone.io.provenance import Provenance
from backbone.training.images import read_image
from detection.config import DetectionDataConfig, DetectorRecipe
from detection.data.dataset import load_split
from detection.engine.config import TrainDetectorConfig
from detection.engine.train import run_training
from detection.engine.train_step import training_steps
from detection.evaluation.metrics import compute_coco_metrics
from detection.models.checkpoint import load_detector
from detection.models.config import TorchvisionFasterRCNNConfig
from detection.reward import DetectionReward, DetectionRewardConfig
from search.rewards.base import Pruned, Reward
from search.space import SearchSpace

SIDE = 64
SPACE = SearchSpace(operations=("identity", "conv_3x3", "max_pool_3x3"), num_blocks=1)
CELLS = SPACE.to_genotype([0, 1, 1, 0, 0] * 2)
OTHER_CELLS = SPACE.to_genotype([0, 1, 1, 1, 1] * 2)


def write_split(root, split, count, *, seed):
    """Bright squares on noise, two categories by color."""
    rng = np.random.default_rng(seed)
    (root / split).mkdir()
    images, annotations = [], []
    for number in range(1, count + 1):
        pixels = rng.integers(0, 80, (SIDE, SIDE, 3), dtype=np.uint8)
        for _ in range(2):
            x, y = (int(v) for v in rng.integers(0, SIDE - 24, 2))
            channel = int(rng.integers(2))
            pixels[y : y + 20, x : x + 20, channel] = 255
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": (3, 7)[channel],
                    "bbox": [x, y, 20, 20],
                    "area": 400,
                    "iscrowd": 0,
                }
            )
        Image.fromarray(pixels).save(root / split / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
    categories = [{"id": 3, "name": "red"}, {"id": 7, "name": "green"}]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (root / f"{split}.json").write_text(text)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco")
    write_split(root, "train", 24, seed=0)
    write_split(root, "val", 8, seed=1)
    return root


@pytest.fixture(scope="module")
def config(data_root):
    return DetectionRewardConfig(
        num_cells=1,
        first_filters=4,
        detector=TorchvisionFasterRCNNConfig(
            anchor_sizes=[20, 32, 48, 64],
            fpn_channels=8,
            fpn_norm="batch",
            box_head_dim=16,
            rpn_pre_nms_top_n_train=50,
            rpn_pre_nms_top_n_test=50,
            rpn_post_nms_top_n_train=20,
            rpn_post_nms_top_n_test=20,
            roi_batch_size_per_image=16,
            roi_sampling_ratio=1,
            roi_num_levels=1,
        ),
        data=DetectionDataConfig(
            root=str(data_root),
            train_annotations="train.json",
            train_images="train",
            val_annotations="val.json",
            val_images="val",
            shortest_side_px=SIDE,
            longest_side_px=SIDE,
        ),
        recipe=DetectorRecipe(
            iterations=4,
            batch_size=2,
            optimizer="adamw",
            learning_rate=5e-3,
            warmup_iterations=1,
        ),
        accelerator="cpu",
        num_threads=1,
    )


def no_report(_step, _value):
    pass


def reward_of(reward: Reward, genotype, seed=0, report=no_report):
    return reward(genotype, seed=seed, report=report)


def test_a_task_that_can_be_learnt_is_learnt_and_the_way_there_reported(config):
    recipe = replace(config.recipe, iterations=90, batch_size=4, learning_rate=1e-2)
    reward = DetectionReward(replace(config, recipe=recipe, report_every=40))
    reported = []
    value = reward_of(reward, CELLS, report=lambda *pair: reported.append(pair))
    assert [step for step, _ in reported] == [40, 80, 90]
    assert reported[-1][1] == value
    assert reported[0][1] < value
    assert 0.05 < value <= 1


def test_the_steps_are_those_of_a_training_of_the_detector(config, tmp_path):
    (tmp_path / "cells.json").write_text(json.dumps(CELLS.to_dict()))
    training = TrainDetectorConfig(
        backbone=f"{tmp_path}/cells.json:1@16",
        detector=config.detector,
        data=config.data,
        recipe=replace(config.recipe, checkpoint_every=3),
        seed=5,
        accelerator="cpu",
    )
    trained, _ = load_detector(run_training(training, tmp_path / "run").path)

    reward = DetectionReward(config)
    train, _ = reward._splits
    torch.manual_seed(5)
    detector = reward._build(CELLS)
    steps = training_steps(detector, train, config.recipe, seed=5, device=torch.device("cpu"))
    assert list(steps) == [1, 2, 3, 4]
    ours, theirs = detector.state_dict(), trained.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_reward_is_a_function_of_genotype_and_seed(config, monkeypatch):
    reward = DetectionReward(config)
    trained = []

    def weights(genotype, seed):
        monkeypatch.setattr(
            DetectionReward, "_score",
            lambda _self, detector, _device: trained.append(detector.state_dict()) or 0.5,
        )  # fmt: skip
        reward_of(reward, genotype, seed)
        return torch.cat([tensor.flatten().double() for tensor in trained[-1].values()])

    torch.manual_seed(1)
    one = weights(CELLS, 0)
    weights(OTHER_CELLS, 0)
    torch.manual_seed(2)
    assert torch.equal(weights(CELLS, 0), one)
    assert not torch.equal(weights(CELLS, 1), one)


def test_reporting_more_often_does_not_change_the_reward(config):
    recipe = replace(config.recipe, iterations=40, batch_size=4, learning_rate=1e-2)
    seldom = reward_of(DetectionReward(replace(config, recipe=recipe)), CELLS)
    often = reward_of(DetectionReward(replace(config, recipe=recipe, report_every=15)), CELLS)
    assert seldom == often > 0


def test_generators_and_threads_are_left_alone_and_nothing_is_said_or_written(
    config, data_root, capfd, caplog, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    files = sorted(data_root.rglob("*"))
    reward_of(DetectionReward(config), CELLS)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert not list(tmp_path.iterdir())
    assert sorted(data_root.rglob("*")) == files


def test_files_are_read_once_however_many_genotypes_are_rewarded(config, monkeypatch):
    read = []

    def counted(path, *, size):
        read.append(path)
        return read_image(path, size=size)

    monkeypatch.setattr("detection.data.dataset.read_image", counted)
    reward = DetectionReward(replace(config, max_train_images=6, max_val_images=3))
    reward_of(reward, CELLS)
    monkeypatch.setattr(
        "detection.data.coco_file.read_bytes", lambda path, *_: pytest.fail(f"{path} again")
    )
    reward_of(reward, OTHER_CELLS)
    assert len(read) == len(set(read)) == 9


def test_a_detector_is_gone_once_it_is_scored(config, monkeypatch):
    reward, alive = DetectionReward(config), []
    score = DetectionReward._score

    def scored(self, detector, device):
        alive.append(weakref.ref(detector))
        return score(self, detector, device)

    monkeypatch.setattr(DetectionReward, "_score", scored)
    gc.disable()
    try:
        reward_of(reward, CELLS)
        assert [one() for one in alive] == [None]
    finally:
        gc.enable()


def test_what_a_report_raises_is_let_through_and_the_generator_comes_back(config):
    def prune(_step, _value):
        raise Pruned

    state = torch.random.get_rng_state()
    with pytest.raises(Pruned):
        reward_of(DetectionReward(replace(config, report_every=2)), CELLS, report=prune)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_training_that_diverges_is_an_arithmetic_error(config):
    recipe = replace(config.recipe, learning_rate=1e30, optimizer="sgd", gradient_clip=0)
    with pytest.raises(FloatingPointError, match=r"loss is (nan|-?inf) at step \d on images"):
        reward_of(DetectionReward(replace(config, recipe=recipe)), CELLS)


def test_arguments_tell_what_decides_the_reward_and_not_where_things_lie(config, data_root):
    reward = DetectionReward(config)
    text = json.dumps(reward.arguments)
    assert str(data_root) not in text
    assert "num_threads" not in text
    assert reward.arguments["detector"]["type"] == "TorchvisionFasterRCNNConfig"
    assert set(reward.data) == {
        "train_annotations", "train_images", "val_annotations", "val_images",
    }  # fmt: skip
    assert Provenance(stage="search", arguments=reward.arguments, data=reward.data).key

    def arguments(**changes):
        return DetectionReward(replace(config, **changes)).arguments

    assert arguments(num_threads=0) == reward.arguments
    kept = replace(config.recipe, checkpoint_every=7)
    assert arguments(recipe=kept) == reward.arguments
    assert arguments(recipe=replace(config.recipe, iterations=5)) != reward.arguments
    assert arguments(max_val_images=2) != reward.arguments
    assert arguments(data=replace(config.data, keep_empty=True)) != reward.arguments


def test_a_sample_is_the_same_every_time_and_evaluated_alone(config):
    val = load_split(config.data, "val")
    one, other = val.sample(3), val.sample(3)
    assert one.image_ids == other.image_ids
    assert len(one) == len(set(one.image_ids)) == 3
    assert set(one.image_ids) < set(val.image_ids)
    assert [one[i].image_id for i in range(3)] == one.image_ids
    assert one.num_objects == 6
    truth = val.annotations.ground_truth
    results = [
        {
            "image_id": image_id,
            "category_id": val.annotations.category_ids[int(label)],
            "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
            "score": 1.0,
        }
        for image_id, example in zip(one.image_ids, (one[i] for i in range(3)), strict=True)
        for box, label in zip(example.target.boxes, example.target.labels, strict=True)
    ]
    assert compute_coco_metrics(truth, results, image_ids=one.image_ids).ap == pytest.approx(100)
    assert compute_coco_metrics(truth, results).ap < 80
    assert compute_coco_metrics(truth, results) == compute_coco_metrics(truth.path, results)


def test_what_cannot_be_rewarded_is_one_sentence(config, data_root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data root .* does not exist"):
        DetectionReward(replace(config, data=replace(config.data, root=str(tmp_path / "none"))))
    truth = json.loads((data_root / "val.json").read_text())
    (data_root / "bare.json").write_text(json.dumps(truth | {"annotations": []}))
    with pytest.raises(ValueError, match=r"bare.json: the 8 validation images have no objects"):
        DetectionReward(replace(config, data=replace(config.data, val_annotations="bare.json")))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device 'gpu' is not available"):
            DetectionReward(replace(config, accelerator="gpu"))
    with pytest.raises(ValueError, match="first_filters must be at least 4, not 2"):
        replace(config, first_filters=2)
    with pytest.raises(ValueError, match=r"unknown precision '16-mixed'; choose from .*bf16-mixed"):
        replace(config, precision="16-mixed")
