import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, Timer
from PIL import Image

from backbone.config import ClassifierRecipe, PretrainConfig
from backbone.io.weights import read_metadata
from backbone.models.backbone import build_backbone
from backbone.models.checkpoint import load_backbone
from backbone.models.classifier import Classifier, load_classifier
from backbone.training.augmentation import prepare
from backbone.training.images import load_image_set
from backbone.training.module import ClassifierModule, build_schedule
from backbone.training.optim import build_optimizer
from backbone.training.preflight import Forecast
from backbone.training.pretrain import run_pretraining


@pytest.fixture(scope="module")
def image_root(tmp_path_factory):
    """Two classes that differ in the direction of stripes."""
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


def test_a_pretrained_backbone_is_a_spec_and_has_a_provenance_record(image_root, tmp_path):
    result = run_pretraining(config(image_root), tmp_path)
    backbone = build_backbone(str(result.path))
    assert torch.isfinite(backbone.eval()(torch.rand(1, 3, 64, 64))["c5"]).all()
    metadata = read_metadata(result.path)
    assert metadata["classes"] == ["columns", "rows"]
    assert metadata["provenance"]["arguments"]["recipe"]["epochs"] == 2
    assert 0 <= result.accuracy <= 1
    assert not list(tmp_path.glob("*.ckpt"))


def test_a_grayscale_backbone_is_loaded_as_one(image_root, tmp_path):
    in_color = run_pretraining(config(image_root), tmp_path)
    result = run_pretraining(config(image_root, grayscale=True), tmp_path)
    assert not result.skipped
    assert load_backbone(result.path).grayscale
    assert build_backbone(str(result.path), grayscale=False).grayscale
    assert in_color.path == result.path


def test_a_finished_training_is_skipped_unless_its_inputs_change(image_root, tmp_path):
    first = run_pretraining(config(image_root), tmp_path)
    written = first.path.stat().st_mtime_ns
    again = run_pretraining(config(image_root), tmp_path)
    assert (first.skipped, again.skipped) == (False, True)
    assert again.path.stat().st_mtime_ns == written
    assert again.accuracy == first.accuracy
    assert not run_pretraining(config(image_root, seed=1), tmp_path).skipped


def test_a_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(
    image_root, tmp_path, interruption
):
    whole = run_pretraining(config(image_root), tmp_path / "whole")
    with interruption(ClassifierModule, at=lambda m, index: m.current_epoch == 1 and index == 2):
        run_pretraining(config(image_root), tmp_path / "parts")
    assert list((tmp_path / "parts").glob("*.ckpt"))
    resumed = run_pretraining(config(image_root), tmp_path / "parts")
    one, other = load_backbone(whole.path).state_dict(), load_backbone(resumed.path).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


EVERYTHING = {
    "epochs": 3,
    "optimizer": "rmsprop",
    "learning_rate": 0.01,
    "checkpoint_every": 4,
    "ema_decay": 0.8,
    "dropout": 0.3,
    "drop_path_keep_prob": 0.6,
    "auxiliary_weight": 0.4,
    "mixup_alpha": 0.2,
    "cutout_side_px": 8,
    "image_side_px": 32,
    "random_crop_min_area": 0.3,
    "trivial_augment": True,
    "schedule": "exponential",
    "warmup_epochs": 0.5,
}
KILLED_TRAINING = """
import json, os, signal, sys
from pathlib import Path
from lightning.pytorch.callbacks import Callback
from backbone.config import ClassifierRecipe, PretrainConfig
from backbone.training.pretrain import run_pretraining

root, out, losses, kill_at, recipe = sys.argv[1:]

class Log(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        with open(losses, "a") as file:
            print(trainer.global_step, outputs["loss"].item().hex(), file=file, flush=True)
        if trainer.global_step == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)

run_pretraining(
    PretrainConfig(
        backbone="nasnet_a:1@96", data_root=root, accelerator="cpu",
        recipe=ClassifierRecipe(**json.loads(recipe)),
    ),
    Path(out),
    callbacks=[Log()],
)
"""


def test_a_training_killed_at_any_step_has_the_losses_and_weights_of_an_uninterrupted_one(
    image_root, tmp_path
):
    settings = json.dumps(asdict(recipe(**EVERYTHING)))

    def train(name, kill_at):
        losses = tmp_path / f"{name}.txt"
        arguments = (image_root, tmp_path / name, losses, kill_at, settings)
        done = subprocess.run(
            [sys.executable, "-c", KILLED_TRAINING, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == (-signal.SIGKILL if kill_at else 0), done.stderr
        return [line.split() for line in losses.read_text().splitlines()]

    whole = train("whole", 0)
    # 48 images in batches of 8, a checkpoint every 3 steps: killed between two, and after one.
    for step in (2, 8, 15):
        train("parts", step)
    parts = train("parts", 0)
    assert [int(step) for step, _ in whole] == list(range(1, 19))
    assert len(parts) > len(whole)  # some steps were repeated
    assert {tuple(line) for line in parts} == {tuple(line) for line in whole}
    one, other = (load_backbone(tmp_path / n / "backbone.safetensors") for n in ("whole", "parts"))
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_averaged_weights_are_validated_and_saved(image_root, tmp_path):
    seen = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, module, *_):
            seen.append(module.classifier.backbone.body.cells[0].align_newer[1].weight.clone())

        def on_validation_epoch_end(self, trainer, module):
            self.validated = module.classifier.backbone.body.cells[0].align_newer[1].weight.clone()

    watch = Watch()
    result = run_pretraining(
        config(image_root, recipe=recipe(epochs=1, ema_decay=0.5)), tmp_path, callbacks=[watch]
    )
    average = seen[0]
    for weight in seen[1:]:
        average = 0.5 * average + 0.5 * weight
    written = load_backbone(result.path).body.cells[0].align_newer[1].weight
    torch.testing.assert_close(written, average)
    torch.testing.assert_close(watch.validated, average)


def test_the_auxiliary_loss_is_added_with_its_weight(image_root, monkeypatch):
    torch.manual_seed(0)
    classifier = Classifier(
        build_backbone("nasnet_a:1@96"), num_classes=2, auxiliary_side_px=32
    ).eval()
    settings = recipe(
        auxiliary_weight=0.4, crop_padding_px=0, horizontal_flip=False, label_smoothing=0.1
    )
    module = ClassifierModule(classifier, settings, steps_per_epoch=1)
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    labels = torch.tensor([0, 1, 1, 0])
    logits, auxiliary = classifier.forward_with_auxiliary(images.float() / 255)

    def cross_entropy(scores):
        targets = torch.nn.functional.one_hot(labels, 2) * 0.9 + 0.05
        return -(targets * scores.log_softmax(dim=1)).sum(dim=1).mean()

    expected = cross_entropy(logits) + 0.4 * cross_entropy(auxiliary)
    torch.testing.assert_close(module.training_step((images, labels), 0), expected)


def test_drop_path_follows_its_schedule_and_is_for_cells(image_root, tmp_path):
    rates = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, module, *_):
            rates.append(module.classifier.backbone.body.cells[-1].drop_path)

    dropping = recipe(epochs=2, drop_path_keep_prob=0.6)
    run_pretraining(config(image_root, recipe=dropping), tmp_path, callbacks=[Watch()])
    assert rates == pytest.approx([0.4 * step / 12 for step in range(12)])
    with pytest.raises(
        ValueError, match="drop_path_keep_prob is for cells, not for timm:lcnet_035"
    ):
        run_pretraining(
            config(image_root, recipe=dropping, backbone="timm:lcnet_035"), tmp_path / "timm"
        )


def test_images_of_any_size_are_cropped_to_one(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for index in range(4):
                size = (*rng.integers(34, 90, 2), 3)
                Image.fromarray(rng.integers(0, 255, size).astype(np.uint8)).save(
                    folder / f"{index}.png"
                )
    crops = recipe(epochs=1, batch_size=4, image_side_px=32, random_crop_min_area=0.1)
    result = run_pretraining(config(tmp_path / "images", recipe=crops), tmp_path / "out")
    assert 0 <= result.accuracy <= 1


def test_small_images_can_have_the_cifar_stem(image_root, tmp_path):
    result = run_pretraining(
        config(image_root, stem="cifar", recipe=recipe(epochs=1, auxiliary_weight=0.4)), tmp_path
    )
    backbone = load_backbone(result.path)
    assert backbone.strides == {"c0": 1, "c1": 2, "c2": 4}
    assert not run_pretraining(
        config(image_root, recipe=recipe(epochs=1, auxiliary_weight=0.4)), tmp_path
    ).skipped


def test_a_training_that_does_not_fit_into_memory_does_not_start(image_root, tmp_path, monkeypatch):
    monkeypatch.setattr("backbone.training.preflight.available_bytes", lambda _: 0)
    with pytest.raises(ValueError, match="GiB are available; use"):
        run_pretraining(config(image_root), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_metrics_have_the_predicted_and_the_actual_cost(image_root, tmp_path, capsys):
    run_pretraining(config(image_root), tmp_path)
    assert capsys.readouterr().out.startswith("preflight: ")
    record = json.loads((tmp_path / "metrics.json").read_text())["preflight"]
    for kind in ("predicted", "actual"):
        assert record[kind]["peak_bytes"] > 2**20
        assert record[kind]["seconds_per_epoch"] > 0


def test_the_preflight_changes_neither_weights_nor_random_generators(
    image_root, tmp_path, monkeypatch
):
    one = run_pretraining(config(image_root, recipe=recipe(epochs=1)), tmp_path / "one")
    nothing = Forecast(0, 1, 1.0, 1)
    monkeypatch.setattr("backbone.training.pretrain.forecast_pretraining", lambda *_, **__: nothing)
    other = run_pretraining(config(image_root, recipe=recipe(epochs=1)), tmp_path / "other")
    weights, same = (load_backbone(r.path).state_dict() for r in (one, other))
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_an_unknown_schedule_is_refused_with_the_choices():
    optimizer = build_optimizer([(torch.nn.Linear(1, 1), 0.1)], name="sgd", weight_decay=0.0)
    settings = recipe()
    settings.schedule = "linear"  # after the config's own check
    with pytest.raises(ValueError, match=r"unknown schedule 'linear'; choose from .*cosine"):
        build_schedule(optimizer, settings, steps_per_epoch=1)


def test_seconds_are_summed_over_the_runs_of_a_resumed_training(
    image_root, tmp_path, interruption, monkeypatch
):
    clock = itertools.count()  # a second per look
    monkeypatch.setattr("lightning.pytorch.callbacks.timer.time.monotonic", lambda: next(clock))
    elapsed = []

    class Watch(Callback):
        def on_save_checkpoint(self, trainer, module, checkpoint):
            (timer,) = (state for key, state in checkpoint["callbacks"].items() if "Timer" in key)
            elapsed.append(timer["time_elapsed"]["train"])

        def on_train_start(self, trainer, module):
            (timer,) = (c for c in trainer.callbacks if isinstance(c, Timer))
            elapsed.append(timer.time_elapsed("train"))

    watch = Watch()
    with interruption(ClassifierModule, at=lambda m, index: m.current_epoch == 1 and index == 2):
        run_pretraining(config(image_root), tmp_path, callbacks=[watch])
    saved = elapsed[-1]
    result = run_pretraining(config(image_root), tmp_path, callbacks=[watch])
    resumed = elapsed[2]
    assert 0 < saved <= resumed < result.seconds
    assert result.seconds == json.loads((tmp_path / "metrics.json").read_text())["seconds"]
    assert run_pretraining(config(image_root), tmp_path).seconds == result.seconds


TWO_PROCESSES = """
import sys
from pathlib import Path
from backbone.config import ClassifierRecipe, PretrainConfig
from backbone.training.pretrain import run_pretraining

recipe = ClassifierRecipe(
    epochs=1, batch_size=5, optimizer="sgd", learning_rate=0.05, weight_decay=0.0, crop_padding_px=0
)
run_pretraining(
    PretrainConfig(
        backbone="nasnet_a:1@96", norm="group", data_root=sys.argv[1], accelerator="cpu",
        recipe=recipe,
    ),
    Path(sys.argv[2]),
)
"""


def test_two_processes_count_every_validation_image_once(image_root, tmp_path):
    root = tmp_path / "images"
    shutil.copytree(image_root, root)
    (root / "val" / "rows" / "0.png").unlink()  # an odd number; shards of 8 and 7
    script = tmp_path / "train.py"
    script.write_text(TWO_PROCESSES)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = subprocess.run(
        [sys.executable, *launcher, str(script), str(root), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())["accuracy"]
    classifier = load_classifier(tmp_path / "out" / "backbone.safetensors").eval()
    val = load_image_set(root, "val")
    with torch.inference_mode():
        images = torch.stack([image for image, _ in val])
        chosen = classifier(prepare(images, recipe())).argmax(dim=1)
    assert written == pytest.approx((chosen == torch.tensor(val.labels)).float().mean().item())


def test_classes_that_differ_between_the_splits_are_refused(image_root, tmp_path):
    for split, name in (("train", "a"), ("val", "b")):
        folder = tmp_path / split / name
        folder.mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(folder / "0.png")
    with pytest.raises(ValueError, match="train has the classes"):
        run_pretraining(config(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()
