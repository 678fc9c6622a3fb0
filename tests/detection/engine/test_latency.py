import pytest
import torch

from detection.engine.latency import (
    BenchmarkEntry,
    StageTimes,
    measure_pass,
    measure_speed,
    speed_rows,
    summarize,
)
from small_detectors import KINDS, make


def entry(kind=0, **changes):
    detector = make(KINDS[kind].values[0]).eval()
    return BenchmarkEntry(detector, **({"shortest_side_px": 64, "longest_side_px": 96} | changes))


def test_the_parts_of_a_latency_are_medians_and_the_batch_gives_the_throughput():
    single = [StageTimes(0.001 * n, 0.01 * n, 0.002) for n in range(1, 11)]
    batched = [StageTimes(0.0, seconds, 0.0) for seconds in (0.5, 8.0, 0.4)]
    speed = summarize(single, batched, batch_size=4)
    assert speed.latency_ms == pytest.approx(5.5 * 11 + 2)
    assert speed.latency_p90_ms == pytest.approx(9 * 11 + 2)
    assert (speed.preprocessing_ms, speed.network_ms) == pytest.approx((5.5, 55))
    assert speed.postprocessing_ms == pytest.approx(2)
    assert speed.images_per_second == pytest.approx(8)


def test_detectors_take_turns_with_one_image_and_with_a_batch(monkeypatch):
    seen, first, second = [], entry(), entry(shortest_side_px=32)
    for name, one in (("first", first), ("second", second)):

        def predict(images, name=name, real=one.detector.predict):
            seen.append((name, len(images), min(images[0].shape[-2:])))
            return real(images)

        monkeypatch.setattr(one.detector, "predict", predict)
    speeds = measure_speed(
        {"first": first, "second": second},
        (64, 96),
        batch_size=2,
        rounds=1,
        warmup_rounds=1,
        progress=False,
    )
    turn = [("first", 1, 64), ("first", 2, 64), ("second", 1, 32), ("second", 2, 32)]
    assert seen == turn * 2
    assert [row[0] for row in speed_rows(speeds)[1]] == ["first", "second"]
    assert all(speed.images_per_second > 0 for speed in speeds.values())


@pytest.mark.parametrize("kind", range(len(KINDS)), ids=[kind.id for kind in KINDS])
def test_every_kind_of_detector_can_be_measured_in_half_precision(kind):
    if KINDS[kind].marks:
        pytest.importorskip("detectron2")
    images = [torch.randint(256, (3, 64, 96), dtype=torch.uint8)]
    stages = measure_pass(entry(kind), images, precision="bf16-mixed")
    assert stages.total == stages.preprocessing + stages.network + stages.postprocessing > 0
