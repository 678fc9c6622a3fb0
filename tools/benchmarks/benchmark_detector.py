r"""Measure the speed of detectors: latency of one image, and images per second in batches.

Writes benchmark.json. All are measured in one run, in turns, on noise; nothing else should be
running. A backbone spec gets a detector with new weights, which detects nothing and so suppresses
little: its latency is a lower bound.

nasdet benchmark detector detectors='[runs/detector/detector.safetensors]'
nasdet benchmark detector detectors='["nasnet_a:4@1056","timm:resnet50"]' \
    height_px=800 width_px=1216 precision=bf16-mixed accelerator=gpu
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).parents[1]))  # modules that all tools share

from _cli import Run, tool
from _output import print_line
from backbone.config import require_at_least
from detection.models.config import DetectorConfig

if TYPE_CHECKING:
    import torch

    from detection.engine.latency import BenchmarkEntry

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass(kw_only=True, slots=True)
class Args:
    """Settings of ``benchmark_detector``."""

    out: str
    """The folder for ``benchmark.json``."""
    detectors: list[str]
    """Each a ``detector.safetensors``, or a backbone spec, which gets ``detector`` with new
    weights."""
    detector: DetectorConfig
    """The detector for backbone specs."""
    height_px: int = 480
    """Height of the images."""
    width_px: int = 640
    """Width of the images."""
    shortest_side_px: int = 0
    """Length that the shorter side is resized to; 0: as in the detector's file, and not at all for
    specs."""
    batch_size: int = 8
    """Images per batch for throughput; latency is that of one image."""
    rounds: int = 20
    """Measurements of each detector; the median counts."""
    warmup_rounds: int = 3
    """Rounds before them that do not count."""
    precision: str = "32-true"
    """Arithmetic: ``32-true``, ``bf16-mixed``, or on a GPU ``16-mixed``."""
    num_classes: int = 80
    """Classes of detectors for backbone specs."""
    num_threads: int = 0
    """CPU threads; 0: torch's default."""
    accelerator: str = "auto"
    """Device type: ``auto``, ``cpu``, ``gpu``."""

    def __post_init__(self) -> None:
        if not self.detectors:
            raise ValueError("detectors needs at least one file or backbone spec")
        lowest = {"height_px": 1, "width_px": 1, "shortest_side_px": 0, "batch_size": 1,
                  "rounds": 1, "warmup_rounds": 0, "num_classes": 1, "num_threads": 0}  # fmt: skip
        for name, least in lowest.items():
            require_at_least(least, **{name: getattr(self, name)})
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"unknown precision {self.precision!r}; choose from {list(PRECISIONS)}"
            )


@tool(Args)
def main(run: Run[Args]) -> None:
    import torch

    from _harness import machine
    from backbone.io.files import write_json
    from backbone.io.runtime import choose_device
    from backbone.io.text_tables import text_table
    from detection.engine.latency import measure_speed, speed_rows

    args = run.args
    device = choose_device(args.accelerator)
    if args.precision == "16-mixed" and device.type == "cpu":
        raise ValueError("precision=16-mixed needs a GPU; a CPU supports bf16-mixed")
    if args.num_threads:
        torch.set_num_threads(args.num_threads)
    speeds = measure_speed(
        {name: build(name, args, device) for name in args.detectors},
        (args.height_px, args.width_px),
        batch_size=args.batch_size,
        rounds=args.rounds,
        warmup_rounds=args.warmup_rounds,
        precision=args.precision,
    )
    path = run.out / "benchmark.json"
    figures = {name: asdict(speed) for name, speed in speeds.items()}
    record = machine() | {"device": device.type, "figures": figures}
    write_json(path, record)
    run.report(**record, benchmark=path)
    run.finish()
    print(f"\n{text_table(*speed_rows(speeds))}\n")
    print_line("figures", path)


def build(name: str, args: Args, device: torch.device) -> BenchmarkEntry:
    """Return a trained detector, or one with new weights on a backbone spec."""
    import torch

    from backbone.io.weights import read_metadata
    from backbone.models.backbone import build_backbone
    from detection.engine.latency import BenchmarkEntry
    from detection.models.build import build_detector
    from detection.models.checkpoint import load_detector

    shortest, longest = sorted((args.height_px, args.width_px))
    if name.endswith(".safetensors") and read_metadata(name).get("kind") == "detector":
        detector, info = load_detector(name)
        shortest, longest = info.shortest_side_px, info.longest_side_px
    else:
        torch.manual_seed(0)
        detector = build_detector(
            build_backbone(name), num_classes=args.num_classes, config=args.detector
        )
    if args.shortest_side_px:
        longest = round(longest * args.shortest_side_px / shortest)
        shortest = args.shortest_side_px
    on_device = detector.to(device).to(memory_format=torch.channels_last).eval()
    return BenchmarkEntry(on_device, shortest, longest)


if __name__ == "__main__":
    main()
