from dataclasses import replace

import pytest
import torch

from detection.engine.dry_run import try_training
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


def test_weights_that_no_gradient_reaches_are_named(settings, monkeypatch):
    real = TorchvisionFasterRCNN.__init__

    def with_a_stray(self, *args, **kwargs):
        real(self, *args, **kwargs)
        self.stray = torch.nn.Linear(2, 2)

    monkeypatch.setattr(TorchvisionFasterRCNN, "__init__", with_a_stray)
    (fault,) = try_training(settings, progress=False).faults
    assert "2 weights had no gradient" in fault
    assert "stray.weight" in fault
