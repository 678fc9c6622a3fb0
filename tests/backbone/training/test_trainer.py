"""Progress bars of the shared trainer."""

import logging

import lightning as L
import pytest
from lightning.pytorch.callbacks import ProgressBar

from backbone.training.trainer import TrainingBar, build_trainer, expected_warnings_hidden


def bars(monkeypatch, tmp_path, *callbacks, terminal):
    monkeypatch.setattr("backbone.training.trainer.shows_bars", lambda: terminal)
    trainer = build_trainer(
        max_epochs=1, precision="32-true", accelerator="cpu", gradient_clip=0.0, loggers=[],
        callbacks=callbacks, root=tmp_path,
    )  # fmt: skip
    return [callback for callback in trainer.callbacks if isinstance(callback, ProgressBar)]


def test_a_trainer_has_one_bar_on_a_terminal(monkeypatch, tmp_path):
    (bar,) = bars(monkeypatch, tmp_path, terminal=True)
    assert type(bar) is TrainingBar
    named = TrainingBar(process_position=1)
    assert bars(monkeypatch, tmp_path, named, terminal=True) == [named]


@pytest.mark.parametrize("callbacks", [[], [TrainingBar()], [L.Callback()]])
def test_a_trainer_has_no_bar_when_standard_error_is_redirected(monkeypatch, tmp_path, callbacks):
    assert bars(monkeypatch, tmp_path, *callbacks, terminal=False) == []


def test_the_bar_is_drawn_on_standard_error(capsys):
    bar = TrainingBar()
    bar.init_train_tqdm().close()
    out, err = capsys.readouterr()
    assert not out
    assert "Training" in err


def test_the_levels_of_lightnings_loggers_are_those_of_before(monkeypatch, tmp_path, caplog):
    names = ("lightning", "lightning.pytorch", "lightning.fabric")
    before = [logging.getLogger(name).level for name in names]
    with caplog.at_level(logging.INFO):
        bars(monkeypatch, tmp_path, terminal=False)
        with expected_warnings_hidden():
            logging.getLogger("lightning.pytorch").info("an advertisement")
    assert not caplog.records
    assert [logging.getLogger(name).level for name in names] == before
