import json
import shutil
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from backbone.io.weights import read_metadata
from backbone.training.optim import build_optimizer, multistep_schedule
from backbone.training.samplers import IterationSampler
from detection.config import DetectionDataConfig, DetectorRecipe
from detection.data import coco_file
from detection.data.coco import CocoTable
from detection.data.dataset import load_split
from detection.data.transforms import resize_image
from detection.engine.evaluate import detect_with_file
from detection.engine.train import DetectorModule, run_training
from detection.engine.train_step import scale_recipe
from detection.engine.visualize import draw_showcase
from detection.models.checkpoint import load_detector
from detection.models.torchvision.faster_rcnn import TorchvisionFasterRCNN


def test_training_leaves_a_detector_results_and_metrics_that_agree(config, tmp_path):
    result = run_training(config(), tmp_path)
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


def test_a_training_with_evaluations_and_a_showcase_reads_each_annotation_file_once(
    config, tmp_path, monkeypatch
):
    reads = Counter()

    def counted(path):
        reads[Path(path).name] += 1
        return Path(path).read_bytes()

    monkeypatch.setattr(coco_file, "read_bytes", counted)
    settings = config(recipe=replace(config().recipe, evaluate_every=2))
    result = run_training(settings, tmp_path)
    draw_showcase(result.path, result.val, tmp_path / "detections.png")
    assert len(read_metadata(result.path)["evaluations"]) == 3
    assert reads == {"train.json": 1, "val.json": 1}


def test_a_warm_up_that_outlasts_the_training_is_reported(config, tmp_path, caplog):
    recipe = replace(config().recipe, iterations=2, warmup_iterations=2)
    run_training(config(recipe=recipe), tmp_path)
    assert "recipe.warmup_iterations=2 is not below recipe.iterations=2" in caplog.text


def test_a_folder_in_another_format_is_named_with_the_command_that_converts_it(config, tmp_path):
    (tmp_path / "labels").mkdir()
    data = replace(config().data, root=str(tmp_path))
    hint = "train.json does not exist; the folder looks like yolo: convert it with `nasdet convert-"
    with pytest.raises(FileNotFoundError, match=hint):
        run_training(config(data=data), tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="looks like yolo"):
        DetectionDataConfig.find(tmp_path)
    missing = replace(config().data, root=str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match=r"give the folder of your data, data\.root="):
        run_training(config(data=missing), tmp_path / "out")


def test_objects_that_cannot_be_scored_are_named_before_the_training_starts(
    config, data_root, tmp_path
):
    data = json.loads((data_root / "val.json").read_text())
    data["annotations"][0]["area"] = None
    (tmp_path / "val.json").write_text(json.dumps(data))
    settings = replace(config().data, val_annotations=str(tmp_path / "val.json"))
    with pytest.raises(ValueError, match=r"val\.json: annotation 1 has area null"):
        run_training(config(data=settings), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_detector_is_not_held_against_other_names_of_its_classes_ids(config, data_root, tmp_path):
    path = run_training(config(), tmp_path).path
    data = json.loads((data_root / "val.json").read_text())
    for category, name in zip(data["categories"], ("green", "red"), strict=True):
        category["name"] = name
    (tmp_path / "swapped.json").write_text(json.dumps(data))
    swapped = CocoTable.load(tmp_path / "swapped.json")
    with pytest.raises(ValueError, match="id 3 is 'red' in the first and 'green' in the second"):
        detect_with_file(path, swapped, data_root / "val", batch_size=2)


def test_a_missing_image_is_named_before_the_training_starts(config, data_root, tmp_path):
    shutil.copytree(data_root, tmp_path / "data")
    (tmp_path / "data" / "train" / "5.png").unlink()
    data = replace(config().data, root=str(tmp_path / "data"))
    with pytest.raises(FileNotFoundError, match=r"1 of 5 images of .* first '5\.png'"):
        run_training(config(data=data), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_sentence(config, tmp_path):
    with pytest.raises(ValueError, match="'gpu' is not available: torch finds no GPU here"):
        run_training(config(accelerator="gpu"), tmp_path)


def test_it_is_made_once_and_again_when_anything_differs(config, tmp_path):
    first = run_training(config(), tmp_path)
    again = run_training(config(), tmp_path)
    assert (first.skipped, again.skipped) == (False, True)
    assert again.metrics.ap == first.metrics.ap
    assert not run_training(config(seed=1), tmp_path).skipped


def test_only_the_evaluation_is_done_again_if_only_that_is_missing(config, tmp_path, monkeypatch):
    first = run_training(config(), tmp_path)
    (tmp_path / "metrics.json").unlink()
    monkeypatch.setattr(DetectorModule, "training_step", lambda *_: pytest.fail("trained again"))
    assert run_training(config(), tmp_path).metrics.ap == first.metrics.ap


def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(
    config, tmp_path, interruption
):
    whole = run_training(config(), tmp_path / "whole")
    with interruption(DetectorModule, at=lambda module, _: module.global_step == 3):
        run_training(config(), tmp_path / "parts")
    assert list((tmp_path / "parts").glob("*.ckpt"))
    resumed = run_training(config(), tmp_path / "parts")
    one = load_detector(whole.path)[0].state_dict()
    other = load_detector(resumed.path)[0].state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_images(
    config, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "detection.models.torchvision.faster_rcnn.TorchvisionFasterRCNN.losses",
        lambda *_: {"loss": torch.tensor(float("nan"), requires_grad=True)},
    )
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 0 on images \[\d, \d\]"):
        run_training(config(), tmp_path)
    assert not (tmp_path / "detector.safetensors").exists()


def test_training_leaves_out_crowds_and_images_without_objects(config):
    settings = config().data
    train = load_split(settings, "train")
    assert [train[i].image_id for i in range(len(train))] == [1, 3, 4, 5, 6]
    crowd_image = next(e for e in (train[i] for i in range(len(train))) if e.image_id == 3)
    assert len(crowd_image.target.boxes) == 1
    assert len(load_split(settings, "val")) == 4


def test_flipped_boxes_surround_the_same_pixels(config):
    settings = config().data
    plain = load_split(settings, "train")[0]
    recipe = replace(config().recipe, vertical_flip=True)
    flipped = load_split(settings, "train", recipe=recipe)
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


def test_a_missing_root_is_named(config, tmp_path):
    settings = config().data
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


def ambitious(config, **changes):
    """Every option of a training that keeps a state."""
    recipe = {
        "iterations": 7,
        "accumulate_grad_batches": 2,
        "ema_decay": 0.5,
        "group_by_aspect": True,
        "evaluate_every": 2,
        "schedule": "multistep",
        "lr_milestones": [4, 6],
        "optimizer": "sgd",
        "shortest_sides_px": [48, 64],
    }
    base = config()
    return replace(base, recipe=replace(base.recipe, **(recipe | changes)))


def same_weights(one, other):
    one, other = (load_detector(path)[0].state_dict() for path in (one, other))
    return all(torch.equal(one[name], other[name]) for name in one)


def test_averages_evaluations_and_accumulation_go_on_exactly_too(config, tmp_path, interruption):
    whole = run_training(ambitious(config), tmp_path / "whole")
    with interruption(DetectorModule, at=lambda module, _: module.global_step == 5):
        run_training(ambitious(config), tmp_path / "parts")
    resumed = run_training(ambitious(config), tmp_path / "parts")
    assert same_weights(whole.path, resumed.path)
    histories = [read_metadata(result.path)["evaluations"] for result in (whole, resumed)]
    assert histories[0] == histories[1]
    assert list(histories[0]) == ["2", "4", "6", "7"]


@pytest.fixture
def aps(monkeypatch):
    """Let validations give these APs one after the other."""
    real = DetectorModule.evaluate

    def set_aps(values):
        left = iter(values)
        monkeypatch.setattr(
            DetectorModule, "evaluate", lambda module: replace(real(module), ap=next(left))
        )

    return set_aps


def test_the_weights_with_the_best_ap_are_written(config, tmp_path, aps):
    plain = {"evaluate_every": 0, "ema_decay": 0.0}
    early = run_training(
        ambitious(config, **plain | {"iterations": 4, "checkpoint_every": 4}), tmp_path / "early"
    )
    aps([10.0, 30.0, 20.0, float("nan")])
    best = run_training(ambitious(config, ema_decay=0.0), tmp_path / "best")
    assert same_weights(early.path, best.path)
    history = read_metadata(best.path)["evaluations"]
    assert history == {"2": 10.0, "4": 30.0, "6": 20.0, "7": None}


def test_of_equal_aps_the_later_weights_are_written(config, tmp_path, aps):
    aps([30.0, 10.0, 30.0, 20.0])
    settings = ambitious(config, ema_decay=0.0)
    tied = run_training(settings, tmp_path / "tied")
    aps([float("nan"), 10.0, 30.0, 20.0])
    third = run_training(settings, tmp_path / "third")
    assert read_metadata(tied.path)["evaluations"]["2"] == 30.0
    assert same_weights(tied.path, third.path)


def test_averaged_weights_are_selected_as_they_were_evaluated(config, tmp_path, aps):
    aps([30.0, 20.0, 10.0, 10.0])
    best = run_training(ambitious(config), tmp_path / "best")
    stopped = ambitious(config, iterations=2, evaluate_every=0, lr_milestones=[4, 6])
    early = run_training(stopped, tmp_path / "early")
    assert same_weights(best.path, early.path)


def test_without_any_ap_the_last_weights_are_written_and_training_goes_on(config, tmp_path, aps):
    plain = ambitious(config, evaluate_every=0)
    last = run_training(plain, tmp_path / "last")
    aps([float("nan")] * 4)
    result = run_training(ambitious(config, patience=1), tmp_path / "nan")
    assert same_weights(last.path, result.path)
    history = read_metadata(result.path)["evaluations"]
    assert history == {"2": None, "4": None, "6": None, "7": None}


def test_a_training_that_no_longer_improves_ends_early(config, tmp_path, aps):
    aps([30.0, 20.0, 30.0, 50.0])
    result = run_training(ambitious(config, patience=2), tmp_path)
    assert read_metadata(result.path)["evaluations"] == {"2": 30.0, "4": 20.0, "6": 30.0}


def test_patience_and_the_best_weights_survive_an_interruption(config, tmp_path, aps, interruption):
    settings = ambitious(config, patience=2, iterations=9, checkpoint_every=3)
    aps([30.0, 20.0, 10.0, 50.0])
    whole = run_training(settings, tmp_path / "whole")
    for step in (3, 4, 5):
        parts = tmp_path / f"parts{step}"
        aps([30.0, 20.0])
        with interruption(
            DetectorModule, at=lambda module, _, step=step: module.global_step == step
        ):
            run_training(settings, parts)
        aps([20.0, 10.0, 50.0] if step == 3 else [10.0, 50.0])
        resumed = run_training(settings, parts)
        assert same_weights(whole.path, resumed.path)
        evaluations = read_metadata(resumed.path)["evaluations"]
        assert evaluations == {"2": 30.0, "4": 20.0, "6": 10.0}
        assert not list(parts.glob("*.ckpt"))


def test_a_nan_names_the_last_good_checkpoint(config, tmp_path, monkeypatch):
    real = TorchvisionFasterRCNN.losses
    calls = []

    def losses(self, *args):
        calls.append(1)
        return {
            k: v * (float("nan") if len(calls) > 3 else 1) for k, v in real(self, *args).items()
        }

    monkeypatch.setattr(TorchvisionFasterRCNN, "losses", losses)
    with pytest.raises(
        FloatingPointError, match=r"step 3 on images .*last good checkpoint is .*ckpt"
    ):
        run_training(config(), tmp_path)


def test_a_recipe_scales_with_the_batch():
    recipe = DetectorRecipe(
        iterations=90000,
        batch_size=2,
        accumulate_grad_batches=2,
        optimizer="sgd",
        learning_rate=0.02,
        warmup_iterations=1000,
        schedule="multistep",
        lr_milestones=[60000, 80000],
        reference_batch_size=16,
    )
    scaled = scale_recipe(recipe, world_size=2)
    assert scaled.learning_rate == pytest.approx(0.01)
    assert (scaled.iterations, scaled.warmup_iterations) == (180000, 2000)
    assert scaled.lr_milestones == [120000, 160000]
    assert scale_recipe(scaled, world_size=2) == scaled


def test_steps_and_sgd_are_detectron2s():
    solver = pytest.importorskip("detectron2.solver.lr_scheduler")
    build = pytest.importorskip("detectron2.solver.build")
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    ours = build_optimizer([(network, 0.1)], name="sgd", weight_decay=1e-4, detectron2_sgd=True)
    groups = build.get_default_optimizer_params(
        network, base_lr=0.1, weight_decay=1e-4, weight_decay_norm=0.0
    )
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert {id(p): g["weight_decay"] for g in ours.param_groups for p in g["params"]} == decays
    theirs = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    mine = multistep_schedule(ours, warmup_steps=10, milestones=[20, 30], gamma=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no optimizer takes a step here
        other = solver.WarmupMultiStepLR(theirs, [20, 30], warmup_iters=10)
        for _ in range(40):
            assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"])
            mine.step()
            other.step()


@pytest.mark.parametrize("recipe", [{}, {"evaluate_every": 2, "ema_decay": 0.5}])
def test_a_training_killed_before_its_file_is_written_only_writes_it(
    config, tmp_path, monkeypatch, recipe
):
    base = config()
    settings = replace(base, recipe=replace(base.recipe, **recipe))
    whole = run_training(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("detection.engine.train.save_detector", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_training(settings, tmp_path / "parts")
    monkeypatch.setattr(DetectorModule, "training_step", lambda *_: pytest.fail("trained again"))
    assert same_weights(whole.path, run_training(settings, tmp_path / "parts").path)


def raise_interrupt(*_, **__):
    raise KeyboardInterrupt
