import json

import numpy as np
import pytest
import torch
from PIL import Image

from backbone.sampling import IterationSampler
from detection.config import (
    DetectionDataConfig,
    DetectorRecipe,
    TorchvisionDetectorConfig,
    TrainDetectorConfig,
)
from detection.data import load_split, resize_image
from detection.training import DetectorModule, train_detector
from detection.weights import load_detector

SIDE = 64


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """Bright squares on noise, two categories by colour, a crowd, and an image without objects."""
    root = tmp_path_factory.mktemp("coco")
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 4)):
        (root / split).mkdir()
        images, annotations = [], []
        for number in range(1, count + 1):
            pixels = rng.integers(0, 80, (SIDE, SIDE, 3), dtype=np.uint8)
            for _ in range(0 if number == 2 else 2):
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
                        "iscrowd": int(number == 3 and len(annotations) % 2),
                    }
                )
            Image.fromarray(pixels).save(root / split / f"{number}.png")
            images.append(
                {"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE}
            )
        categories = [{"id": 3, "name": "red"}, {"id": 7, "name": "green"}]
        text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
        (root / f"{split}.json").write_text(text)
    return root


def config(data_root, **changes):
    settings = {
        "backbone": "nasnet_a:1@96",
        "detector": TorchvisionDetectorConfig(
            anchor_sizes=[8, 16, 32, 64],
            neck_channels=8,
            head_features=16,
            proposals_train=20,
            proposals_test=20,
            roi_batch=16,
        ),
        "data": DetectionDataConfig(
            root=str(data_root),
            train_annotations="train.json",
            train_images="train",
            val_annotations="val.json",
            val_images="val",
            shortest_side_px=SIDE,
            longest_side_px=SIDE,
        ),
        "recipe": DetectorRecipe(
            iterations=6,
            batch_size=2,
            optimizer="adamw",
            learning_rate=1e-3,
            warmup_iterations=1,
            checkpoint_every=2,
        ),
        "accelerator": "cpu",
    }
    return TrainDetectorConfig(**(settings | changes))


def test_training_leaves_a_detector_results_and_metrics_that_agree(data_root, tmp_path):
    result = train_detector(config(data_root), tmp_path)
    detector, info = load_detector(result.path)
    assert (info.class_names, info.category_ids) == (("red", "green"), (3, 7))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["ap"] == pytest.approx(result.metrics.ap)
    assert metrics["provenance"]["stage"] == "detector"
    results = json.loads((tmp_path / "results.json").read_text())
    assert {r["category_id"] for r in results} <= {3, 7}
    assert {r["image_id"] for r in results} <= {1, 2, 3, 4}
    assert not detector.training
    assert not list(tmp_path.glob("*.ckpt"))


def test_it_is_made_once_and_again_when_anything_differs(data_root, tmp_path):
    first = train_detector(config(data_root), tmp_path)
    again = train_detector(config(data_root), tmp_path)
    assert (first.skipped, again.skipped) == (False, True)
    assert again.metrics.ap == first.metrics.ap
    assert not train_detector(config(data_root, seed=1), tmp_path).skipped


def test_only_the_evaluation_is_done_again_if_only_that_is_missing(
    data_root, tmp_path, monkeypatch
):
    first = train_detector(config(data_root), tmp_path)
    (tmp_path / "metrics.json").unlink()
    monkeypatch.setattr(DetectorModule, "training_step", lambda *_: pytest.fail("trained again"))
    assert train_detector(config(data_root), tmp_path).metrics.ap == first.metrics.ap


def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(
    data_root, tmp_path, interruption
):
    whole = train_detector(config(data_root), tmp_path / "whole")
    with interruption(DetectorModule, at=lambda module, _: module.global_step == 3):
        train_detector(config(data_root), tmp_path / "parts")
    assert list((tmp_path / "parts").glob("*.ckpt"))
    resumed = train_detector(config(data_root), tmp_path / "parts")
    one = load_detector(whole.path)[0].state_dict()
    other = load_detector(resumed.path)[0].state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_images(
    data_root, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "detection.torchvision_engine.TorchvisionDetector.losses",
        lambda *_: {"loss": torch.tensor(float("nan"), requires_grad=True)},
    )
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 0 on images \[\d, \d\]"):
        train_detector(config(data_root), tmp_path)
    assert not (tmp_path / "detector.safetensors").exists()


def test_training_leaves_out_crowds_and_images_without_objects(data_root):
    settings = config(data_root).data
    train = load_split(settings, "train")
    assert [train[i].image_id for i in range(len(train))] == [1, 3, 4, 5, 6]
    crowd_image = next(e for e in (train[i] for i in range(len(train))) if e.image_id == 3)
    assert len(crowd_image.target.boxes) == 1
    assert len(load_split(settings, "val")) == 4


def test_flipped_boxes_surround_the_same_pixels(data_root):
    settings = config(data_root).data
    plain = load_split(settings, "train")[0]
    flipped = load_split(settings, "train", horizontal_flip=True, vertical_flip=True)
    seen = set()
    for seed in range(20):
        example = flipped[0, seed]
        for box, original in zip(example.target.boxes, plain.target.boxes, strict=True):
            x1, y1, x2, y2 = (int(v) for v in box)
            u1, v1, u2, v2 = (int(v) for v in original)
            inside = example.image[:, y1:y2, x1:x2].sum()
            torch.testing.assert_close(inside, plain.image[:, v1:v2, u1:u2].sum())
        seen.add(tuple(example.target.boxes[0].tolist()))
    assert len(seen) == 4


def test_a_missing_root_is_named(data_root, tmp_path):
    settings = config(data_root).data
    settings.root = str(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"data root .*nowhere does not exist"):
        load_split(settings, "train")


@pytest.mark.parametrize(
    ("size", "expected"), [((100, 200), (50, 100)), ((100, 400), (30, 120)), ((20, 20), (50, 50))]
)
def test_images_are_resized_by_the_shorter_side_within_the_limit(size, expected):
    image, scale = resize_image(torch.zeros(3, *size, dtype=torch.uint8), shortest=50, longest=120)
    assert image.shape[1:] == expected
    assert scale == tuple(new / old for new, old in zip(expected, size, strict=True))


def test_processes_share_a_stream_that_shows_every_image_once_per_pass():
    stream = []
    for epoch in range(7):
        shares = [
            list(
                IterationSampler(
                    7,
                    items_per_epoch=6,
                    items_done=lambda done=6 * epoch: done,
                    seed=3,
                    rank=rank,
                    world_size=2,
                )
            )
            for rank in (0, 1)
        ]
        stream += [item for pair in zip(*shares, strict=True) for item in pair]
    assert len({seed for _, seed in stream}) == len(stream)
    stream = [index for index, _ in stream]
    passes = [stream[i : i + 7] for i in range(0, len(stream), 7)]
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert len({tuple(one) for one in passes}) > 1
