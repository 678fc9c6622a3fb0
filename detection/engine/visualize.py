"""Draw detections: boxes, class names and scores, and contact sheets.

``torchvision.utils.draw_bounding_boxes`` is not used: without a font file its labels have one tiny
size, they cover one another, and its lines vanish on a background of their own color.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from backbone.io.files import replacing
from backbone.training.images import read_image
from detection.config import InferenceConfig
from detection.data.dataset import CocoDataset
from detection.engine.tta import TestTimeAugmentation, predict_images
from detection.models.checkpoint import load_detector

MIN_SIDE_PX = 512
"""Smaller images are enlarged by an integer factor until their longer side has this many pixels."""
LINE_FRACTION = 1 / 350
"""Line width as a fraction of the picture's longer side."""
FONT_FRACTION = 1 / 40
"""Font size as a fraction of the picture's longer side."""
SHEET_GAP_PX = 8

Color = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_detections(
    image: Tensor,
    boxes: Tensor,
    labels: Tensor,
    scores: Tensor | None,
    class_names: Sequence[str],
    *,
    min_side_px: int = MIN_SIDE_PX,
) -> Image.Image:
    """Draw boxes with their class names and scores, legible at any size of the image.

    Args:
        image: (3, H, W) uint8.
        boxes: (N, 4) xyxy in pixels of ``image``.
        labels: (N,) 0 to K - 1.
        scores: (N,) in [0, 1], written as percent; None for ground truth.
        class_names: K names.
        min_side_px: an image whose longer side is shorter is enlarged by the smallest sufficient
            integer factor.

    Returns:
        An RGB picture.
    """
    height, width = image.shape[-2:]
    factor = max(-(-min_side_px // max(height, width)), 1)
    picture = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    if factor > 1:
        picture = picture.resize((width * factor, height * factor), Image.Resampling.BICUBIC)
    pen = _Pen.on(picture)
    texts = _texts(labels, scores, class_names)
    rectangles = [tuple(factor * value for value in box) for box in boxes.tolist()]
    # The best come first, so they are drawn last, on top; labels are above all boxes.
    items = list(zip(rectangles, labels.tolist(), texts, strict=True))[::-1]
    for rectangle, label, _ in items:
        pen.outline(rectangle, class_color(label))
    occupied: list[Rectangle] = []
    for rectangle, label, text in items[::-1]:
        occupied.append(pen.write(text, rectangle, class_color(label), occupied))
    return picture


def draw_showcase(
    detector_path: Path,
    val: CocoDataset,
    path: Path,
    *,
    num_images: int = 8,
    score_threshold: float = 0.5,
) -> Path:
    """Draw the detections in the first validation images that have objects, as a contact sheet.

    Args:
        detector_path: a ``detector.safetensors``.
        val: the validation images.
        path: the PNG file; written atomically.
        num_images: maximum number of images, four per row.
        score_threshold: minimum score of a drawn detection, 0 to 1.

    Returns:
        ``path``.
    """
    detector, info = load_detector(detector_path)
    tta = TestTimeAugmentation.from_config(info, InferenceConfig(score_threshold=score_threshold))
    chosen = [i for i in range(len(val)) if len(val.annotations.boxes_of(i))][:num_images]
    pictures = []
    for index in chosen:
        record = val.annotations.images[index]
        pixels = read_image(val.image_root / record.file_name, size=(record.width, record.height))
        (detections,) = predict_images(detector, [pixels], tta)
        pictures.append(
            draw_detections(
                pixels, detections.boxes, detections.labels, detections.scores, info.class_names
            )
        )
    with replacing(path) as temporary:
        contact_sheet(pictures, columns=4).save(temporary)
    return path


def contact_sheet(images: Sequence[Image.Image], columns: int) -> Image.Image:
    """Arrange pictures in a grid on white, row by row, each centered in a cell of equal size.

    Raises:
        ValueError: if there are no pictures or no columns.
    """
    if not images or columns < 1:
        raise ValueError(
            f"a contact sheet needs at least 1 picture and 1 column, not {len(images)} "
            f"and {columns}"
        )
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    cell_width, cell_height = (
        max(image.size[axis] for image in images) + SHEET_GAP_PX for axis in (0, 1)
    )
    size = (columns * cell_width + SHEET_GAP_PX, rows * cell_height + SHEET_GAP_PX)
    sheet = Image.new("RGB", size, "white")
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        left = column * cell_width + (cell_width + SHEET_GAP_PX - image.width) // 2
        top = row * cell_height + (cell_height + SHEET_GAP_PX - image.height) // 2
        sheet.paste(image, (left, top))
    return sheet


def class_color(label: int) -> Color:
    """Return the color of a class, the same in every picture.

    Hues advance by the golden ratio, so that consecutive classes are far apart; brightness
    alternates, so that similar hues still differ.
    """
    hue = (0.02 + label * 0.618034) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.85, 0.6)[label // 7 % 2], (1, 0.8)[label % 2])
    return round(255 * red), round(255 * green), round(255 * blue)


@dataclass(frozen=True, slots=True)
class _Pen:
    """Draws on one picture, with line width and font size for its size."""

    draw: ImageDraw.ImageDraw
    size: tuple[int, int]
    line: int
    font: Font

    @classmethod
    def on(cls, picture: Image.Image) -> _Pen:
        side = max(picture.size)
        font = ImageFont.load_default(max(round(side * FONT_FRACTION), 12))
        line = max(round(side * LINE_FRACTION), 2)
        return cls(ImageDraw.Draw(picture), picture.size, line, font)

    def outline(self, rectangle: Sequence[float], color: Color) -> None:
        rim = max(self.line // 2, 1)
        # Around the box, so that the smallest object stays visible inside; a dark rim on both sides
        # keeps the line visible on a background of its own color.
        dark = self._grown(rectangle, self.line + rim)
        self.draw.rectangle(dark, outline=(0, 0, 0), width=self.line + 2 * rim)
        self.draw.rectangle(self._grown(rectangle, self.line), outline=color, width=self.line)

    def _grown(self, rectangle: Sequence[float], margin: int) -> Rectangle:
        """Return the rectangle with a margin around it, clipped to the picture."""
        x1, y1, x2, y2 = rectangle
        left, top = max(x1 - margin, 0), max(y1 - margin, 0)
        right = min(x2 + margin, self.size[0]) - 1
        bottom = min(y2 + margin, self.size[1]) - 1
        return left, top, max(left, right), max(top, bottom)

    def write(
        self, text: str, rectangle: Sequence[float], color: Color, occupied: Sequence[Rectangle]
    ) -> Rectangle:
        """Write a label at a free corner of its box, inside the picture; return its rectangle."""
        left, top, right, bottom = self.draw.textbbox((0, 0), text, font=self.font)
        pad = self.line
        width, height = right - left + 2 * pad, bottom - top + 2 * pad
        label = self._free_corner(rectangle, width, height, occupied)
        self.draw.rectangle(label, fill=color)
        bright = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140
        ink = (0, 0, 0) if bright else (255, 255, 255)
        self.draw.text(
            (label[0] + pad - left, label[1] + pad - top), text, fill=ink, font=self.font
        )
        return label

    def _free_corner(
        self,
        rectangle: Sequence[float],
        width: float,
        height: float,
        occupied: Sequence[Rectangle],
    ) -> Rectangle:
        x1, y1, x2, y2 = rectangle
        corners = [
            (x1, y1 - height),
            (x1, y2),
            (x2 - width, y1 - height),
            (x2 - width, y2),
            (x1, y1),
            (x2, y1),
            (x1 - width, y1),
            (x2 - width, y1),
            (x1, y2 - height),
            (x2 - width, y2 - height),
            (x2, y2 - height),
            (x1 - width, y2 - height),
        ]
        candidates = [self._inside(x, y, width, height) for x, y in corners]
        return min(candidates, key=lambda one: sum(_overlap(one, other) for other in occupied))

    def _inside(self, x: float, y: float, width: float, height: float) -> Rectangle:
        x = max(min(x, self.size[0] - width), 0)
        y = max(min(y, self.size[1] - height), 0)
        return x, y, x + width, y + height


def _overlap(one: Rectangle, other: Rectangle) -> float:
    """Return the area of the intersection of two rectangles, in square pixels."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def _texts(labels: Tensor, scores: Tensor | None, class_names: Sequence[str]) -> list[str]:
    names = [class_names[label] for label in labels.tolist()]
    if scores is None:
        return names
    return [f"{name} {score:.0%}" for name, score in zip(names, scores.tolist(), strict=True)]
