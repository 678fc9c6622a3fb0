from dataclasses import replace

import pytest
import torch

from detection.engine import dry_run
from detection.engine.dry_run import try_training
from detection.engine.train_step import autocast_dtype
from detection.models.torchvision.faster_rcnn import TorchvisionFasterRCNN


@pytest.fixture
def settings(config):
    base = config()
    return replace(base, recipe=replace(base.recipe, learning_rate=3e-3, iterations=100))


def test_a_sound_set_up_is_called_so_and_nothing_is_written(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = try_training(settings, progress=False)
    assert outcome.faults == ()
    assert outcome.losses[-1] < outcome.losses[0]
    assert outcome.maps["c2"][0] == settings.recipe.batch_size
    assert "sound" in outcome.describe()
    assert not list(tmp_path.iterdir())


def test_a_rate_that_teaches_nothing_is_found(settings):
    slow = replace(settings, recipe=replace(settings.recipe, learning_rate=1e-9))
    outcome = try_training(slow, progress=False)
    assert len(outcome.faults) == 1
    assert "recipe.learning_rate" in outcome.faults[0]


def test_too_few_steps_are_no_judgment_of_the_loss(settings, monkeypatch):
    """A slow machine takes few steps in the time; that is no fault of the data."""
    monkeypatch.setattr(dry_run, "MAX_SECONDS", 0.0)
    slow = replace(settings, recipe=replace(settings.recipe, learning_rate=1e-9))
    outcome = try_training(slow, progress=False)
    assert outcome.faults == ()
    assert "too few steps in the time to judge the loss" in outcome.describe()


def test_the_data_are_named(settings, data_root):
    first = try_training(settings, progress=False).describe().splitlines()[0]
    assert first == f"data: {data_root}, 5 training and 4 validation images, 2 classes: red, green"


def test_weights_that_no_gradient_reaches_are_named(settings, monkeypatch):
    real = TorchvisionFasterRCNN.__init__

    def with_a_stray(self, *args, **kwargs):
        real(self, *args, **kwargs)
        self.stray = torch.nn.Linear(2, 2)

    monkeypatch.setattr(TorchvisionFasterRCNN, "__init__", with_a_stray)
    (fault,) = try_training(settings, progress=False).faults
    assert "2 weights had no gradient" in fault
    assert "stray.weight" in fault


@pytest.mark.parametrize(
    ("precision", "on_cpu", "on_gpu"),
    [
        ("32-true", None, None),
        ("bf16-mixed", torch.bfloat16, torch.bfloat16),
        ("16-mixed", torch.bfloat16, torch.float16),
    ],
)
def test_a_precision_is_computed_as_lightning_does(
    settings, monkeypatch, precision, on_cpu, on_gpu
):
    assert autocast_dtype(torch.device("cuda"), precision) == on_gpu
    used = set()
    real = TorchvisionFasterRCNN.losses

    def losses(self, *args):
        enabled = torch.is_autocast_enabled("cpu")
        used.add(torch.get_autocast_dtype("cpu") if enabled else None)
        return real(self, *args)

    monkeypatch.setattr(TorchvisionFasterRCNN, "losses", losses)
    monkeypatch.setattr(dry_run, "MAX_STEPS", 4)
    try_training(replace(settings, precision=precision), progress=False)
    assert used == {on_cpu}


def test_a_precision_that_cannot_be_tried_is_refused(settings):
    with pytest.raises(ValueError, match=r"unknown precision 'bf16'; choose from \('32-true'"):
        try_training(replace(settings, precision="bf16"), progress=False)
