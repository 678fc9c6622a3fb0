import pytest
import torch

from backbone.training.preflight import Forecast, available_bytes, forecast, peak_bytes

CPU = torch.device("cpu")
MIB = 2**20


def test_large_steps_are_extrapolated_from_small_ones(monkeypatch):
    now = 0.0

    def a_step(num_images):
        """Allocate 1 MiB plus 2 MiB per image; take 5 ms plus 2 ms per image."""
        nonlocal now
        fixed = torch.empty(MIB, dtype=torch.uint8)
        images = torch.empty(num_images, 2 * MIB, dtype=torch.uint8)
        now += 0.005 + 0.002 * num_images
        del fixed, images

    # A fake clock: on a busy machine, times of milliseconds are unreliable.
    monkeypatch.setattr("backbone.training.preflight.time.perf_counter", lambda: now)
    prediction = forecast(
        a_step, batch_size=100, steps_per_epoch=10, device=CPU, data_bytes=7 * MIB
    )
    base = peak_bytes(CPU)
    assert prediction.peak_bytes - base == pytest.approx((1 + 200 + 7) * MIB, abs=2 * MIB)
    assert prediction.seconds_per_epoch == pytest.approx(10 * 0.205)
    fitting = (prediction.available_bytes - base) / (2 * MIB)
    assert prediction.largest_batch == pytest.approx(fitting, rel=0.05)


def test_a_training_that_does_not_fit_is_refused_with_remedies():
    fits = Forecast(10 * MIB, 20 * MIB, 90.0, 64)
    fits.check()
    assert fits.describe() == "preflight: 0.0 GiB of 0.0 GiB available, about 1.5 min per epoch"
    with pytest.raises(ValueError, match=r"use recipe.batch_size=64 or less, activation_checkp"):
        Forecast(30 * MIB, 20 * MIB, 90.0, 64).check()
    with pytest.raises(ValueError, match="use a smaller network, activation_checkpointing=true"):
        Forecast(30 * MIB, 20 * MIB, 90.0, 0).check()


def test_measured_memory_is_plausible():
    assert 64 * MIB < available_bytes(CPU) < 2**50
    assert 64 * MIB < peak_bytes(CPU) < 2**50
