r"""Measure how fast detectors are: latency of one image, and images per second in batches.

Writes benchmark.json. All are measured in one run, in turns, on noise; nothing else should be
running. A backbone spec gets a detector with new weights, which finds nothing and so suppresses
little: its figures are a lower bound.

python tools/benchmark_detector.py detectors='[runs/detector/detector.safetensors]'
python tools/benchmark_detector.py detectors='["nasnet_a:4@1056","timm:resnet50"]' \
    height_px=800 width_px=1216 precision=bf16-mixed accelerator=gpu
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from _detection_schemas import BenchmarkDetector
from _entry import start_tool
from _run import plain_errors, start_run

if TYPE_CHECKING:
    import torch

    from detection.engine.latency import Contender


@hydra.main(version_base=None, config_path="../conf", config_name="benchmark_detector")
def main(config: DictConfig) -> None:
    with plain_errors():
        import torch

        from backbone.io.files import write_json
        from backbone.io.runtime import choose_device
        from backbone.io.text_tables import text_table
        from detection.engine.latency import measure_speed, speed_rows

        run = start_run(config)
        settings: BenchmarkDetector = run.settings
        device = choose_device(settings.accelerator)
        if settings.precision == "16-mixed" and device.type == "cpu":
            raise ValueError("precision=16-mixed needs a GPU; a CPU has bf16-mixed")
        if settings.num_threads:
            torch.set_num_threads(settings.num_threads)
        speeds = measure_speed(
            {name: build(name, settings, device) for name in settings.detectors},
            (settings.height_px, settings.width_px),
            batch_size=settings.batch_size,
            rounds=settings.rounds,
            warmup_rounds=settings.warmup_rounds,
            precision=settings.precision,
        )
        machine = {
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
        }
        path = run.out / "benchmark.json"
        figures = {name: asdict(speed) for name, speed in speeds.items()}
        write_json(path, machine | {"figures": figures})
        run.finish()
        print(f"\n{text_table(*speed_rows(speeds))}\n")
        print(f"figures: {path}")


def build(name: str, settings: BenchmarkDetector, device: torch.device) -> Contender:
    """Return a trained detector, or one with new weights around a backbone spec."""
    import torch

    from backbone.io.weights import read_metadata
    from backbone.models.backbone import build_backbone
    from detection.engine.latency import Contender
    from detection.models.build import build_detector
    from detection.models.checkpoint import load_detector

    shortest, longest = sorted((settings.height_px, settings.width_px))
    if name.endswith(".safetensors") and read_metadata(name).get("kind") == "detector":
        detector, info = load_detector(name)
        shortest, longest = info.shortest_side_px, info.longest_side_px
    else:
        torch.manual_seed(0)
        detector = build_detector(
            build_backbone(name), num_classes=settings.num_classes, config=settings.detector
        )
    if settings.shortest_side_px:
        longest = round(longest * settings.shortest_side_px / shortest)
        shortest = settings.shortest_side_px
    on_device = detector.to(device).to(memory_format=torch.channels_last).eval()
    return Contender(on_device, shortest, longest)


if __name__ == "__main__":
    start_tool(main, about=__doc__)
