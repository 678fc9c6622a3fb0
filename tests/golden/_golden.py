"""Small data and recorders of both drivers. Imports nothing of this project."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch.nn import functional

STEPS = 20


def write_data(root: Path) -> None:
    """Write ``images``, ``coco`` and ``results.json`` below ``root``; the same every time."""
    _write_images(root / "images")
    _write_coco(root / "coco")


def _write_images(root: Path) -> None:
    """Write noise that is brighter at the top, in the middle or at the bottom: three classes."""
    random = np.random.default_rng(0)
    for split, count in (("train", 30), ("val", 10)):
        for label, name in enumerate("abc"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 160, (32, 32, 3))
                pixels[10 * label : 10 * label + 12] += random.integers(20, 90)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")


def _write_coco(root: Path) -> None:
    """Write squares of two colors on noise, and made-up detections for the validation images."""
    random = np.random.default_rng(1)
    for split, count in (("train", 12), ("val", 24)):
        (root / split).mkdir(parents=True)
        images, annotations, results = [], [], []
        for number in range(1, count + 1):
            height, width = ((64, 96), (64, 64), (80, 64))[number % 3]
            pixels = random.integers(0, 80, (height, width, 3))
            for _ in range(0 if number == 2 else int(random.integers(1, 5))):
                w, h = (int(v) for v in random.integers(8, 60, 2))
                x, y = int(random.integers(0, max(width - w, 1))), int(random.integers(0, 20))
                w, h = min(w, width - x), min(h, height - y)
                label = int(random.integers(2))
                pixels[y : y + h, x : x + w, label] = 255
                crowd = int(random.random() < 0.1)
                annotations.append(
                    {
                        "id": len(annotations) + 1, "image_id": number,
                        "category_id": (3, 7)[label], "bbox": [x, y, w, h], "area": w * h,
                        "iscrowd": crowd,
                    }
                )  # fmt: skip
                for _ in range(int(random.integers(0, 4))):
                    moved = np.array([x, y, w, h]) + random.normal(0, 4, 4)
                    results.append(
                        {
                            "image_id": number,
                            "category_id": (3, 7)[label if random.random() < 0.8 else 1 - label],
                            "bbox": [round(float(v), 2) for v in np.clip(moved, 1, 80)],
                            "score": round(float(random.random()), 2),
                        }
                    )
            path = root / split / f"{number}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            images.append({"id": number, "file_name": path.name, "width": width, "height": height})
        categories = [{"id": 3, "name": "red"}, {"id": 7, "name": "green"}]
        record = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(record))
        (root / "results.json").write_text(json.dumps(results))


class Recorder(Callback):
    """Record the loss of each optimizer step of a Lightning training."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.losses.append(outputs["loss"].item())


@contextmanager
def cross_entropies():
    """Record every value of ``torch.nn.functional.cross_entropy`` in a list."""
    values: list[float] = []
    original = functional.cross_entropy

    def recorded(*arguments, **settings):
        loss = original(*arguments, **settings)
        values.append(float(loss.detach()))
        return loss

    functional.cross_entropy = recorded
    try:
        yield values
    finally:
        functional.cross_entropy = original


def pattern(side: int) -> torch.Tensor:
    """Return (1, 3, side, side) in [0, 1]."""
    values = torch.arange(3 * side * side, dtype=torch.float64)
    return (0.5 + 0.5 * torch.sin(0.37 * values + 1e-4 * values**2)).float().view(1, 3, side, side)
