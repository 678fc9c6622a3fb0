import pytest
import torch

from backbone.training.preflight import Forecast, available_bytes, forecast, peak_bytes

CPU = torch.device("cpu")
MIB = 2**20


def test_small_steps_tell_of_large_ones(monkeypatch):
    now = 0.0

    def a_step(num_images):
        """Holds 1 MiB and 2 MiB per image at once; takes 5 ms and 2 ms per image."""
        nonlocal now
        fixed = torch.empty(MIB, dtype=torch.uint8)
        images = torch.empty(num_images, 2 * MIB, dtype=torch.uint8)
        now += 0.005 + 0.002 * num_images
        del fixed, images

    # A clock of its own: on a busy machine steps of milliseconds tell nothing.
    monkeypatch.setattr("backbone.training.preflight.time.perf_counter", lambda: now)
    found = forecast(a_step, batch_size=100, steps_per_epoch=10, device=CPU, data_bytes=7 * MIB)
    base = peak_bytes(CPU)
    assert found.peak_bytes - base == pytest.approx((1 + 200 + 7) * MIB, abs=2 * MIB)
    assert found.seconds_per_epoch == pytest.approx(10 * 0.205)
    fitting = (found.available_bytes - base) / (2 * MIB)
    assert found.largest_batch == pytest.approx(fitting, rel=0.05)


def test_what_cannot_fit_is_refused_with_advice():
    fits = Forecast(10 * MIB, 20 * MIB, 90.0, 64)
    fits.check()
    assert fits.describe() == "preflight: 0.0 GiB of 0.0 GiB available, about 1.5 min per epoch"
    with pytest.raises(ValueError, match=r"take recipe.batch_size=64 or less, activation_checkp"):
        Forecast(30 * MIB, 20 * MIB, 90.0, 64).check()
    with pytest.raises(ValueError, match="take a smaller network, activation_checkpointing=true"):
        Forecast(30 * MIB, 20 * MIB, 90.0, 0).check()


def test_there_is_some_memory_but_not_more_than_can_be():
    assert 64 * MIB < available_bytes(CPU) < 2**50
    assert 64 * MIB < peak_bytes(CPU) < 2**50
