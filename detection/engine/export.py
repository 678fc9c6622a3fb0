"""Export a trained detector to a file that runs without nasdet, if its AP is as good.

An ONNX file takes one image of a fixed size: resized as in training, then padded with zeros below
and to the right. It returns boxes (N, 4) in the pixels of that image, scores (N,) and labels (N,).
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

from backbone.io.files import replacing, write_json
from backbone.io.progress import progress_bar
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
"""Drop of AP, in percent, from which on a file is not written."""

Detect = Callable[[Tensor], Detections]
"""Maps an image (1, 3, H, W) in [0, 1] to detections."""


@dataclass(frozen=True, slots=True)
class ExportedDetector:
    """An exported model and its validation result."""

    path: Path
    height_px: int
    width_px: int
    ap: float
    """AP of the file on the validation images, in percent."""
    original_ap: float
    """AP of the detector itself on the same input, in percent."""
    images: int
    """Number of validation images."""


class OneImage(nn.Module):
    """Adapter of a detector for batches of one image, from a tensor to tensors."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (1, 3, H, W) to boxes (N, 4), scores (N,) and labels (N,)."""
        (detections,) = self.detector.predict([images[0]])
        return detections.boxes, detections.scores, detections.labels


def export_detector(
    weights: Path,
    out_dir: Path,
    *,
    annotations: CocoTable,
    image_root: Path,
    file_format: str,
    progress: bool = True,
) -> ExportedDetector:
    """Export a detector to ONNX, or its backbone with ``torch.export``, with a JSON of metadata.

    Args:
        weights: a ``detector.safetensors``; for ONNX, torchvision's Faster R-CNN.
        out_dir: the folder to write to.
        annotations: COCO table of the validation images.
        image_root: folder of the validation images.
        file_format: ``onnx`` or ``torch``.
        progress: whether to show a progress bar.

    Raises:
        FileNotFoundError: if something is missing.
        ValueError: if the file's AP is lower by ``MAX_DROP`` or more (nothing is written then), the
            detector cannot be exported, or it was trained on other categories.
        ImportError: if the packages for ONNX are not installed.
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
    exported = ExportedDetector(path, side, side, aps[1], aps[0], len(dataset))
    _write_metadata(exported, info, weights)
    return exported


def _check(weights: Path, info: DetectorInfo, annotations: CocoTable, file_format: str) -> None:
    if file_format == "onnx":
        require_onnx()
        # The traced RetinaNet returned other numbers of boxes than the detector.
        if type(info.config) is not TorchvisionFasterRCNNConfig:
            raise ValueError(
                f"{weights} is a {type(info.config).__name__}; only torchvision's Faster R-CNN can "
                "be exported to ONNX; export its backbone (file_format=torch), or train with "
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
        # torchvision's components, whose number of boxes depends on the image, can only be traced.
        torch.onnx.export(
            OneImage(detector).eval(), (sample,), str(path), dynamo=False, opset_version=17,
            input_names=["images"], output_names=names,
            dynamic_axes={name: {0: "detections"} for name in names},
        )  # fmt: skip
    model = onnx.load(str(path))
    for key, value in _metadata(info).items():
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
    copy, _ = load_detector(weights)

    def maps(images: Tensor) -> Any:
        with torch.no_grad():
            return program(images)

    copy.backbone.forward = maps  # type: ignore[method-assign]
    return _direct(copy)


@torch.inference_mode()
def _average_precision(
    detect: Detect, dataset: CocoDataset, info: DetectorInfo, side: int, name: str
) -> float:
    results = []
    for index in progress_bar(range(len(dataset)), desc=name, unit="image", shown=bool(name)):
        example = dataset[index]
        detections = rescale(
            detect(_padded(example, side)), example.image.shape[-2:], example.original_size
        )
        results += to_coco_results([example.image_id], [detections], info.category_ids)
    return compute_coco_metrics(
        dataset.annotations.ground_truth, results, image_ids=dataset.image_ids
    ).ap


def _padded(example: Example, side: int) -> Tensor:
    height, width = example.image.shape[-2:]
    return F.pad(example.image, (0, side - width, 0, side - height))[None]


def _metadata(info: DetectorInfo) -> dict[str, Any]:
    """Return the metadata that a user of the file needs."""
    return {
        "class_names": list(info.class_names),
        "category_ids": list(info.category_ids),
        "shortest_side_px": info.shortest_side_px,
        "longest_side_px": info.longest_side_px,
    }


def _write_metadata(exported: ExportedDetector, info: DetectorInfo, weights: Path) -> None:
    figures = asdict(exported) | {"path": exported.path.name}
    write_json(
        exported.path.with_suffix(".json"),
        figures | _metadata(info) | {"detector": fingerprint_file(weights)},
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide tracing's warnings about sizes that it fixes, which is intended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
