"""A trained detector as a file that runs without this program, written only if it is as good.

An ONNX file takes one image of a fixed size: resized as in training, then padded with zeros below
and to the right. It gives boxes (N, 4) in that image's pixels, scores (N,) and labels (N,).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from backbone.io.files import replacing, write_json
from backbone.io.provenance import fingerprint_file
from backbone.models.export import export_network, require_onnx
from detection.data.coco import CocoTable, require_categories
from detection.data.dataset import CocoDataset, Example
from detection.data.transforms import Augmentation
from detection.engine.tta import rescale
from detection.evaluation.metrics import compute_coco_metrics, to_coco_results
from detection.models.checkpoint import DetectorInfo, load_detector
from detection.models.config import FasterRCNNConfig, TorchvisionFasterRCNNConfig
from detection.models.detector import Detector
from detection.structures import SIZE_DIVISOR, Detections

FORMATS = {"onnx": "detector.onnx", "torch": "backbone.pt2"}
MAX_DROP = 0.1
"""A file whose AP, in percent, is lower than the original's by this much or more is not written."""

Detect = Callable[[Tensor], Detections]
"""Finds objects in (1, 3, H, W) in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A file, and what it was held against."""

    path: Path
    height_px: int
    width_px: int
    ap: float
    """Of the file on the images it was held against, in percent."""
    original_ap: float
    """Of the detector itself, on the same input."""
    images: int
    """How many they were."""


class OneImage(nn.Module):
    """A detector for batches of one image, as a network from tensor to tensors."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (1, 3, H, W) to boxes (N, 4), scores (N,) and labels (N,)."""
        (found,) = self.detector.predict([images[0]])
        return found.boxes, found.scores, found.labels


def export_detector(
    weights: Path,
    out_dir: Path,
    *,
    annotations: CocoTable,
    image_root: Path,
    file_format: str,
    progress: bool = True,
) -> Exported:
    """Write a detector as ONNX, or its backbone by ``torch.export``, and a JSON about it.

    Args:
        weights: a ``detector.safetensors``; for ONNX one of the torchvision engine.
        out_dir: the folder to write to.
        annotations: of the images that the file is held against.
        image_root: their folder.
        file_format: ``onnx`` or ``torch``.
        progress: whether to show a bar.

    Raises:
        FileNotFoundError: if something is missing.
        ValueError: if the file's AP is lower by ``MAX_DROP`` or more, then nothing is written; if
            the engine cannot be exported; or the detector knows other categories.
        ImportError: if ONNX's packages are not installed.
    """
    if file_format not in FORMATS:
        raise ValueError(f"unknown file_format {file_format!r}; choose from {sorted(FORMATS)}")
    detector, info = load_detector(weights)
    _check(weights, info, annotations, file_format)
    side = -(-info.longest_side_px // SIZE_DIVISOR) * SIZE_DIVISOR
    dataset = CocoDataset(
        annotations,
        image_root,
        augmentation=Augmentation(
            shortest_sides_px=(info.shortest_side_px,), longest_side_px=info.longest_side_px
        ),
    )
    path = out_dir / FORMATS[file_format]
    with replacing(path) as temporary:
        detects = (
            _write_onnx(detector, info, temporary, side)
            if file_format == "onnx"
            else _write_backbone(weights, detector, temporary, side)
        )
        aps = [
            _average_precision(detect, dataset, info, side, name if progress else "")
            for name, detect in (("original", _direct(detector)), ("file", detects))
        ]
        if aps[1] <= aps[0] - MAX_DROP or aps[1] != aps[1]:  # NaN
            raise ValueError(
                f"the file's AP is {aps[1]:.2f} % and the detector's {aps[0]:.2f} % on the same "
                f"{len(dataset)} images; it is not written"
            )
    exported = Exported(path, side, side, aps[1], aps[0], len(dataset))
    _write_about(exported, info, weights)
    return exported


def _check(weights: Path, info: DetectorInfo, annotations: CocoTable, file_format: str) -> None:
    if file_format == "onnx":
        require_onnx()
        # RetinaNet's traced file gave other numbers of boxes than the detector.
        if type(info.config) is not TorchvisionFasterRCNNConfig:
            raise ValueError(
                f"{weights} is a {type(info.config).__name__}; only Faster R-CNN of torchvision's "
                "engine goes to ONNX; export its backbone (file_format=torch), or train with "
                "detector=torchvision"
            )
    elif isinstance(info.config, FasterRCNNConfig) and info.config.neck == "c4":
        raise ValueError(f"{weights} has neck=c4, whose backbone is not one network")
    require_categories(info.categories, weights, annotations)


def _direct(detector: Detector) -> Detect:
    return lambda images: detector.predict([images[0]])[0]


def _write_onnx(detector: Detector, info: DetectorInfo, path: Path, side: int) -> Detect:
    import onnx
    import onnxruntime

    generator = torch.Generator().manual_seed(0)
    sample = torch.rand(1, 3, side, side, generator=generator)
    names = ["boxes", "scores", "labels"]
    with torch.inference_mode(), _quiet():
        # Counts of boxes depend on what is seen, which torchvision's parts can only be traced with.
        torch.onnx.export(
            OneImage(detector).eval(), (sample,), str(path), dynamo=False, opset_version=17,
            input_names=["images"], output_names=names,
            dynamic_axes={name: {0: "detections"} for name in names},
        )  # fmt: skip
    model = onnx.load(str(path))
    for key, value in _about(info).items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    onnx.save(model, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def detect(images: Tensor) -> Detections:
        boxes, scores, labels = session.run(names, {"images": images.numpy()})
        return Detections(*(torch.from_numpy(array) for array in (boxes, scores, labels)))

    return detect


def _write_backbone(weights: Path, detector: Detector, path: Path, side: int) -> Detect:
    export_network(detector.backbone, path, side_px=side, file_format="torch")
    program = torch.export.load(path).module()
    twin, _ = load_detector(weights)

    def maps(images: Tensor) -> Any:
        with torch.no_grad():
            return program(images)

    twin.backbone.forward = maps  # type: ignore[method-assign]
    return _direct(twin)


@torch.inference_mode()
def _average_precision(
    detect: Detect, dataset: CocoDataset, info: DetectorInfo, side: int, name: str
) -> float:
    results = []
    for position in tqdm(range(len(dataset)), desc=name, unit="image", disable=not name):
        example = dataset[position]
        found = rescale(
            detect(_padded(example, side)), example.image.shape[-2:], example.original_size
        )
        results += to_coco_results([example.image_id], [found], info.category_ids)
    return compute_coco_metrics(
        dataset.annotations.ground_truth, results, image_ids=dataset.image_ids
    ).ap


def _padded(example: Example, side: int) -> Tensor:
    height, width = example.image.shape[-2:]
    return F.pad(example.image, (0, side - width, 0, side - height))[None]


def _about(info: DetectorInfo) -> dict[str, Any]:
    """Return what one needs to know to use the file."""
    return {
        "class_names": list(info.class_names),
        "category_ids": list(info.category_ids),
        "shortest_side_px": info.shortest_side_px,
        "longest_side_px": info.longest_side_px,
    }


def _write_about(exported: Exported, info: DetectorInfo, weights: Path) -> None:
    figures = asdict(exported) | {"path": exported.path.name}
    write_json(
        exported.path.with_suffix(".json"),
        figures | _about(info) | {"detector": fingerprint_file(weights)},
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what tracing says of sizes that it fixes, which is meant here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
