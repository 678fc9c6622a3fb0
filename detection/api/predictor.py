"""Detect objects in images with a trained detector; results are NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from backbone.io.runtime import choose_device
from backbone.training.images import image_tensor, read_image
from detection.config import InferenceConfig
from detection.engine.tta import TestTimeAugmentation, group_batches, predict_images
from detection.engine.visualize import draw_detections
from detection.models.checkpoint import DetectorInfo, load_detector
from detection.models.detector import Detector
from detection.structures import Detections

if TYPE_CHECKING:
    import supervision

ImageInput = str | Path | Image.Image | NDArray[np.uint8] | Tensor
"""An image: a file, a PIL image, (H, W, 3) or (H, W) uint8 RGB or gray, or (3, H, W) uint8 RGB."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageDetections:
    """Detected objects of one image, by descending score."""

    boxes: NDArray[np.float32]
    """(N, 4), xyxy in pixels of the image."""
    scores: NDArray[np.float32]
    """(N,), 0 to 1."""
    names: NDArray[np.str_]
    """(N,), name of each object's class."""
    class_ids: NDArray[np.int64]
    """(N,), index of each object's class, 0 to K - 1."""
    category_ids: NDArray[np.int64]
    """(N,), category id of each object in the COCO JSON of the training."""

    def __len__(self) -> int:
        return len(self.scores)

    def to_supervision(self) -> supervision.Detections:
        """Convert to ``supervision.Detections``, with ``class_name`` in its ``data``.

        Raises:
            ImportError: if supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError(f"{error}; install it: pip install supervision") from error
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.class_ids,
            data={"class_name": self.names},
        )

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dict of JSON types per object.

        Its keys are ``box_xyxy``, ``score``, ``class_name`` and ``category_id``.
        """
        rows = zip(self.boxes, self.scores, self.names, self.category_ids, strict=True)
        return [
            {
                "box_xyxy": box.tolist(),
                "score": float(score),
                "class_name": str(name),
                "category_id": int(category_id),
            }
            for box, score, name, category_id in rows
        ]


class Predictor:
    """A trained detector, ready to use.

    ``Predictor.load("runs/detector/detector.safetensors")("photo.jpg")`` returns the objects of an
    image. Images are resized as in training; boxes are in the pixels of the image given.

    Args:
        detector: the detector.
        info: its classes and input size.
        device: ``auto`` (the first GPU if there is one), ``cpu``, ``cuda`` or any torch device.
        inference: score threshold, number of detections, and test-time augmentation.
    """

    def __init__(
        self,
        detector: Detector,
        info: DetectorInfo,
        *,
        device: str | torch.device = "auto",
        inference: InferenceConfig | None = None,
    ) -> None:
        self.device = choose_device(str(device))
        self.detector = detector.to(self.device).eval()
        self.info = info
        self._tta = TestTimeAugmentation.from_config(info, inference)
        self._names = np.array(info.class_names)
        self._category_ids = np.array(info.category_ids, dtype=np.int64)

    @classmethod
    def load(  # the settings of InferenceConfig, by name
        cls,
        path: str | Path,
        *,
        device: str | torch.device = "auto",
        score_threshold: float | None = None,
        max_detections: int = 0,
        shortest_sides_px: Sequence[int] = (),
        horizontal_flip: bool = False,
    ) -> Predictor:
        """Load a ``detector.safetensors``.

        Args:
            path: the file.
            device: ``auto`` (the first GPU if there is one), ``cpu``, ``cuda`` or any torch device.
            score_threshold: minimum score of a detection, 0 to 1; None: that of the training.
            max_detections: maximum number of detections per image; 0: that of the training.
            shortest_sides_px: shorter sides to which each image is resized; the detections of
                several sizes are merged. Empty: the size of the training.
            horizontal_flip: whether to detect in the horizontally flipped image, too.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is damaged or no detector, or a setting is out of range.
            ImportError: if the detector needs detectron2 and that is not installed.
        """
        inference = InferenceConfig(
            score_threshold=score_threshold,
            max_detections=max_detections,
            shortest_sides_px=list(shortest_sides_px),
            horizontal_flip=horizontal_flip,
        )
        detector, info = load_detector(path, inference=inference)
        return cls(detector, info, device=device, inference=inference)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class, indexed by ``class_ids``."""
        return self.info.class_names

    def __call__(self, image: ImageInput) -> ImageDetections:
        """Detect the objects of one image.

        Args:
            image: a file, a PIL image, an array (H, W, 3) or (H, W) uint8, or a tensor (3, H, W)
                uint8; colors are RGB. The EXIF rotation of a file is applied, that of a PIL image
                is not.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it cannot be read or has another shape.
            TypeError: if it is of another type.
        """
        return self.predict([image])[0]

    def predict(
        self, images: Sequence[ImageInput], *, batch_size: int = 1
    ) -> list[ImageDetections]:
        """Detect the objects of several images; images of equal size form batches.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if one cannot be read or has another shape.
            TypeError: if one is of another type.
        """
        if isinstance(images, str | Path):
            raise TypeError(f"images must be a list of images, as in [{str(images)!r}]")
        pixels = [_to_pixels(image) for image in images]
        outputs: dict[int, ImageDetections] = {}
        for indices in group_batches([p.shape for p in pixels], batch_size):
            batch = predict_images(self.detector, [pixels[index] for index in indices], self._tta)
            outputs.update(zip(indices, map(self._to_arrays, batch), strict=True))
        return [outputs[index] for index in range(len(pixels))]

    def draw(self, image: ImageInput, detections: ImageDetections) -> Image.Image:
        """Return the image with boxes, class names and scores; small images are enlarged."""
        return draw_detections(
            _to_pixels(image),
            torch.from_numpy(detections.boxes),
            torch.from_numpy(detections.class_ids),
            torch.from_numpy(detections.scores),
            self.class_names,
        )

    def _to_arrays(self, detections: Detections) -> ImageDetections:
        labels = detections.labels.numpy()
        return ImageDetections(
            boxes=detections.boxes.numpy(),
            scores=detections.scores.numpy(),
            names=self._names[labels],
            class_ids=labels,
            category_ids=self._category_ids[labels],
        )


def _to_pixels(image: ImageInput) -> Tensor:
    """Return an image as (3, H, W) uint8."""
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        return image_tensor(image)
    if isinstance(image, Tensor):
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(
                "a tensor must be (3, H, W) uint8, not "
                f"{tuple(image.shape)} {str(image.dtype).removeprefix('torch.')}"
            )
        return image.cpu()
    if isinstance(image, np.ndarray):
        is_color = image.ndim == 3 and image.shape[2] == 3
        if image.dtype != np.uint8 or not (is_color or image.ndim == 2):
            raise ValueError(
                f"an array must be (H, W, 3) or (H, W) uint8, not {image.shape} {image.dtype}"
            )
        return image_tensor(Image.fromarray(image))
    raise TypeError(
        f"an image must be a path, a PIL image, an array or a tensor, not {type(image).__name__}; "
        "predict takes several images"
    )
