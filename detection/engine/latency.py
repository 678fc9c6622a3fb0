"""How long detectors take: from an image in memory to its boxes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from tqdm import tqdm

from detection.data.transforms import resize_image
from detection.engine.tta import rescale
from detection.models.detector import Detector

AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Lightning's name of an arithmetic -> the numbers that are computed with."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A detector that is measured."""

    detector: Detector
    """On its device, in evaluation mode."""
    shortest_side_px: int
    longest_side_px: int


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds of the parts of one pass over a batch."""

    preprocessing: float
    """Resizing on the CPU and moving to the device."""
    network: float
    """``Detector.predict``: the network with its suppression of overlapping boxes."""
    postprocessing: float
    """Moving the boxes back and into the images' pixels."""

    @property
    def total(self) -> float:
        """All together."""
        return self.preprocessing + self.network + self.postprocessing


@dataclass(frozen=True, slots=True)
class Speed:
    """What was measured of a detector; milliseconds are of one image alone."""

    latency_ms: float
    """Median."""
    latency_p90_ms: float
    """Nine of ten passes were faster."""
    preprocessing_ms: float
    network_ms: float
    postprocessing_ms: float
    images_per_second: float
    """By the median pass over a batch."""


@torch.inference_mode()
def measure_pass(contender: Contender, images: Sequence[Tensor], *, precision: str) -> Stages:
    """Detect once in images as read, each (3, H, W) uint8, and take the time."""
    detector = contender.detector
    device, numbers = next(detector.parameters()).device, AUTOCAST[precision]
    times = [_now(device)]
    resized = [
        resize_image(image, shortest=contender.shortest_side_px, longest=contender.longest_side_px)[
            0
        ].to(device)
        for image in images
    ]
    times.append(_now(device))
    with torch.autocast(device.type, numbers, enabled=numbers is not None):
        found = detector.predict(resized)
    times.append(_now(device))
    for detections, view, image in zip(found, resized, images, strict=True):
        rescale(detections, view.shape[-2:], image.shape[-2:])
    times.append(_now(device))
    return Stages(*(end - start for start, end in pairwise(times)))


def measure_speed(
    contenders: Mapping[str, Contender],
    size: tuple[int, int],
    *,
    batch_size: int,
    rounds: int,
    warmup_rounds: int,
    precision: str = "32-true",
    progress: bool = True,
) -> dict[str, Speed]:
    """Measure detectors in turns, so that a machine that changes its speed changes it for all.

    Args:
        contenders: by name.
        size: height and width of the images, which are noise.
        batch_size: images at a time for the throughput.
        rounds: passes, of one image and of a batch, that count.
        warmup_rounds: passes before them.
        precision: a name in ``AUTOCAST``.
        progress: whether to show a bar.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, 3, *size)
    images = list(torch.randint(256, shape, dtype=torch.uint8, generator=generator))
    single: dict[str, list[Stages]] = {name: [] for name in contenders}
    batched: dict[str, list[Stages]] = {name: [] for name in contenders}
    all_rounds = range(-warmup_rounds, rounds)
    for number in tqdm(all_rounds, desc="measuring", unit="round", disable=not progress):
        for name, contender in contenders.items():
            alone = measure_pass(contender, images[:1], precision=precision)
            together = measure_pass(contender, images, precision=precision)
            if number >= 0:
                single[name].append(alone)
                batched[name].append(together)
    return {
        name: summarize(single[name], batched[name], batch_size=batch_size) for name in contenders
    }


def summarize(single: Sequence[Stages], batched: Sequence[Stages], *, batch_size: int) -> Speed:
    """Return medians, and the latency that nine of ten passes kept below."""
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
    """Return a table's head and rows."""
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


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
