"""Latency and throughput of detectors, from an image in memory to its boxes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.benchmark.utils.timer import timer

from backbone.io.progress import progress_bar
from detection.data.transforms import resize_image
from detection.engine.train_step import autocast
from detection.engine.tta import rescale
from detection.models.detector import Detector


@dataclass(frozen=True, slots=True)
class BenchmarkEntry:
    """A detector to measure, and the size of its input."""

    detector: Detector
    """On its device, in evaluation mode."""
    shortest_side_px: int
    longest_side_px: int


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Seconds of the stages of one pass over a batch."""

    preprocessing: float
    """Resizing on the CPU and the transfer to the device."""
    network: float
    """``Detector.predict``: the network, including NMS."""
    postprocessing: float
    """Transfer of the boxes back, and scaling to the images' pixels."""

    @property
    def total(self) -> float:
        """Sum of all stages."""
        return self.preprocessing + self.network + self.postprocessing


@dataclass(frozen=True, slots=True)
class Speed:
    """Measured speed of a detector; milliseconds are those of a single image."""

    latency_ms: float
    """Median."""
    latency_p90_ms: float
    """90th percentile."""
    preprocessing_ms: float
    network_ms: float
    postprocessing_ms: float
    images_per_second: float
    """From the median pass over a batch."""


@torch.inference_mode()
def measure_pass(entry: BenchmarkEntry, images: Sequence[Tensor], *, precision: str) -> StageTimes:
    """Detect once in images as read, each (3, H, W) uint8, and return the times."""
    detector = entry.detector
    device = next(detector.parameters()).device
    # torch.utils.benchmark's clock waits for the GPU.
    times = [timer()]
    resized = [
        resize_image(image, shortest=entry.shortest_side_px, longest=entry.longest_side_px)[0].to(
            device
        )
        for image in images
    ]
    times.append(timer())
    with autocast(device, precision):
        outputs = detector.predict(resized)
    times.append(timer())
    for detections, small, image in zip(outputs, resized, images, strict=True):
        rescale(detections, small.shape[-2:], image.shape[-2:])
    times.append(timer())
    return StageTimes(*(end - start for start, end in pairwise(times)))


def measure_speed(
    entries: Mapping[str, BenchmarkEntry],
    size: tuple[int, int],
    *,
    batch_size: int,
    rounds: int,
    warmup_rounds: int,
    precision: str = "32-true",
    progress: bool = True,
) -> dict[str, Speed]:
    """Measure detectors in turns, so that a change of the machine's speed affects all of them.

    Args:
        entries: name -> detector.
        size: height and width of the images, which are noise.
        batch_size: images per batch for the throughput.
        rounds: number of measured passes, of one image and of a batch each.
        warmup_rounds: number of passes before them that are not measured.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        progress: whether to show a progress bar.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, 3, *size)
    images = list(torch.randint(256, shape, dtype=torch.uint8, generator=generator))
    single: dict[str, list[StageTimes]] = {name: [] for name in entries}
    batched: dict[str, list[StageTimes]] = {name: [] for name in entries}
    all_rounds = range(-warmup_rounds, rounds)
    for number in progress_bar(all_rounds, desc="measuring", unit="round", shown=progress):
        for name, entry in entries.items():
            alone = measure_pass(entry, images[:1], precision=precision)
            together = measure_pass(entry, images, precision=precision)
            if number >= 0:
                single[name].append(alone)
                batched[name].append(together)
    return {name: summarize(single[name], batched[name], batch_size=batch_size) for name in entries}


def summarize(
    single: Sequence[StageTimes], batched: Sequence[StageTimes], *, batch_size: int
) -> Speed:
    """Return medians and the 90th percentile of the latency."""
    totals = sorted(stages.total for stages in single)
    return Speed(
        latency_ms=1000 * statistics.median(totals),
        latency_p90_ms=1000 * totals[max(-(-9 * len(totals) // 10) - 1, 0)],
        preprocessing_ms=1000 * statistics.median(s.preprocessing for s in single),
        network_ms=1000 * statistics.median(s.network for s in single),
        postprocessing_ms=1000 * statistics.median(s.postprocessing for s in single),
        images_per_second=batch_size / statistics.median(s.total for s in batched),
    )


def speed_rows(speeds: Mapping[str, Speed]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a table."""
    head = ["detector", "median ms", "p90 ms", "resize", "network", "boxes", "images/s"]
    rows = [
        [
            name,
            f"{s.latency_ms:.1f}",
            f"{s.latency_p90_ms:.1f}",
            f"{s.preprocessing_ms:.1f}",
            f"{s.network_ms:.1f}",
            f"{s.postprocessing_ms:.1f}",
            f"{s.images_per_second:.2f}",
        ]
        for name, s in speeds.items()
    ]
    return head, rows
