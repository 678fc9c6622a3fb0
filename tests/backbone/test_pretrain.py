import copy

import numpy as np
import pytest
import torch
from PIL import Image

from backbone.config import OPTIMIZERS, ClassifierRecipe, PretrainConfig
from backbone.optimization import build_optimizer, warmup_cosine
from backbone.pretrain import ClassifierModule, augment, pretrain_backbone, shift
from backbone.specs import build_backbone
from backbone.weights import load_backbone, read_about


@pytest.fixture(scope="module")
def image_root(tmp_path_factory):
    """Two classes that stripes' direction tells apart."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    stripes = np.tile(np.array([0, 0, 255, 255], dtype=np.uint8), 8)
    for split, count in (("train", 24), ("val", 8)):
        for name, pattern in (("columns", stripes[None, :]), ("rows", stripes[:, None])):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                noise = rng.integers(0, 60, (32, 32))
                pixels = np.clip(np.broadcast_to(pattern, (32, 32)) * 0.7 + noise, 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    return root


def recipe(**changes):
    settings = {
        "epochs": 2,
        "batch_size": 8,
        "optimizer": "adamw",
        "learning_rate": 3e-3,
        "weight_decay": 0.01,
        "crop_padding_px": 2,
    }
    return ClassifierRecipe(**(settings | changes))


def config(image_root, **changes):
    settings = {
        "backbone": "nasnet_a:1@96",
        "data_root": str(image_root),
        "recipe": recipe(),
        "accelerator": "cpu",
    }
    return PretrainConfig(**(settings | changes))


def test_a_pretrained_backbone_is_a_spec_and_says_how_it_was_made(image_root, tmp_path):
    result = pretrain_backbone(config(image_root), tmp_path)
    backbone = build_backbone(str(result.path))
    assert torch.isfinite(backbone.eval()(torch.rand(1, 3, 64, 64))["c5"]).all()
    about = read_about(result.path)
    assert about["classes"] == ["columns", "rows"]
    assert about["provenance"]["arguments"]["recipe"]["epochs"] == 2
    assert 0 <= result.accuracy <= 1
    assert not list(tmp_path.glob("*.ckpt"))


def test_a_grayscale_backbone_stays_one_wherever_its_file_goes(image_root, tmp_path):
    in_colour = pretrain_backbone(config(image_root), tmp_path)
    result = pretrain_backbone(config(image_root, grayscale=True), tmp_path)
    assert not result.skipped
    assert load_backbone(result.path).grayscale
    assert build_backbone(str(result.path), grayscale=False).grayscale
    assert in_colour.path == result.path


def test_it_is_made_once_and_again_when_anything_differs(image_root, tmp_path):
    first = pretrain_backbone(config(image_root), tmp_path)
    written = first.path.stat().st_mtime_ns
    again = pretrain_backbone(config(image_root), tmp_path)
    assert (first.skipped, again.skipped) == (False, True)
    assert again.path.stat().st_mtime_ns == written
    assert again.accuracy == first.accuracy
    assert not pretrain_backbone(config(image_root, seed=1), tmp_path).skipped


def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(
    image_root, tmp_path, interruption
):
    whole = pretrain_backbone(config(image_root), tmp_path / "whole")
    with interruption(ClassifierModule, at=lambda m, index: m.current_epoch == 1 and index == 2):
        pretrain_backbone(config(image_root), tmp_path / "parts")
    assert list((tmp_path / "parts").glob("*.ckpt"))
    resumed = pretrain_backbone(config(image_root), tmp_path / "parts")
    one, other = load_backbone(whole.path).state_dict(), load_backbone(resumed.path).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_classes_that_differ_between_the_splits_are_refused(image_root, tmp_path):
    for split, name in (("train", "a"), ("val", "b")):
        folder = tmp_path / split / name
        folder.mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(folder / "0.png")
    with pytest.raises(ValueError, match="train has the classes"):
        pretrain_backbone(config(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_shift_moves_each_image_by_its_own_whole_number_of_pixels():
    torch.manual_seed(0)
    images = torch.arange(64.0).view(1, 1, 8, 8).repeat(16, 3, 1, 1)
    moved = shift(images, 2)
    padded = torch.nn.functional.pad(images[:1], (2,) * 4, mode="reflect")[0]
    windows = [padded[:, y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
    places = [next(i for i, w in enumerate(windows) if torch.equal(w, m)) for m in moved]
    assert len(set(places)) > 5


def test_without_augmentation_images_stay_as_they_are():
    images = torch.rand(4, 3, 8, 8)
    plain = recipe(crop_padding_px=0, horizontal_flip=False)
    assert torch.equal(augment(images, plain), images)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_biases_and_normalization_do_not_decay(name):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    optimizer = build_optimizer([(module, 0.1)], name=name, weight_decay=0.5)
    decay = {p.ndim: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay == {4: 0.5, 1: 0.0}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_goes_on_from_its_state_as_if_it_had_not_stopped(name):
    def steps(module, optimizer, numbers):
        for number in numbers:
            torch.manual_seed(number)
            optimizer.zero_grad()
            module(torch.rand(2, 3, 4, 4)).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    one = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    other = copy.deepcopy(one)
    first = build_optimizer([(one, 0.1)], name=name, weight_decay=0.1)
    steps(one, first, range(2))
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    second = build_optimizer([(other, 0.1)], name=name, weight_decay=0.1)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(one, first, range(2, 5))
    steps(other, second, range(2, 5))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_muon_moves_all_directions_of_a_filter_bank_alike():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(4, 16, 3, bias=False)
    before = layer.weight.detach().clone()
    # a gradient whose directions differ in strength by a factor of more than 30
    scales = torch.logspace(0, 1.5, 16).reshape(16, 1, 1, 1)
    optimizer = build_optimizer([(layer, 0.1)], name="muon", weight_decay=0.0)
    (layer.weight * torch.randn_like(layer.weight) * scales).sum().backward()
    optimizer.step()
    strengths = torch.linalg.svdvals((layer.weight.detach() - before).flatten(1))
    assert strengths.max() < 3 * strengths.min()


def test_the_rate_rises_to_its_highest_and_falls_to_zero():
    parameter = torch.nn.Linear(1, 1)
    optimizer = build_optimizer([(parameter, 1.0)], name="sgd", weight_decay=0.0)
    schedule = warmup_cosine(optimizer, warmup=3, total=10)
    rates = []
    for _ in range(11):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[10] == pytest.approx(0)
