"""Images with boxes, class names and scores."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

MIN_SIDE_PX = 512
"""Smaller images are enlarged by a whole factor until their longer side has this many pixels."""
LINE_SHARE = 1 / 350
"""Width of a line as a share of the picture's longer side."""
FONT_SHARE = 1 / 40
"""Height of the letters, likewise."""
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
        scores: (N,) in [0, 1], written as percent; None for the truth.
        class_names: K names.
        min_side_px: an image whose longer side is shorter is enlarged by the least whole factor
            that brings it there.

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
    # The best come first, so they are drawn last and lie on top; labels lie above all boxes.
    drawn = list(zip(rectangles, labels.tolist(), texts, strict=True))[::-1]
    for rectangle, label, _ in drawn:
        pen.outline(rectangle, class_color(label))
    taken: list[Rectangle] = []
    for rectangle, label, text in drawn[::-1]:
        taken.append(pen.write(text, rectangle, class_color(label), taken))
    return picture


def contact_sheet(images: Sequence[Image.Image], columns: int) -> Image.Image:
    """Put pictures side by side on white, row by row, each in the middle of an equal cell.

    Raises:
        ValueError: if there are no pictures or no columns.
    """
    if not images or columns < 1:
        raise ValueError(f"a sheet needs pictures and columns, not {len(images)} and {columns}")
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
    """Return the colour of a class, the same in every picture.

    Hues go round by the golden ratio, so that neighbours in number are far apart; brightness takes
    turns, so that near hues still differ.
    """
    hue = (0.02 + label * 0.618034) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.85, 0.6)[label // 7 % 2], (1, 0.8)[label % 2])
    return round(255 * red), round(255 * green), round(255 * blue)


@dataclass(frozen=True, slots=True)
class _Pen:
    """Draws on one picture, with lines and letters that suit its size."""

    draw: ImageDraw.ImageDraw
    size: tuple[int, int]
    line: int
    font: Font

    @classmethod
    def on(cls, picture: Image.Image) -> _Pen:
        side = max(picture.size)
        font = ImageFont.load_default(max(round(side * FONT_SHARE), 12))
        line = max(round(side * LINE_SHARE), 2)
        return cls(ImageDraw.Draw(picture), picture.size, line, font)

    def outline(self, rectangle: Sequence[float], color: Color) -> None:
        rim = max(self.line // 2, 1)
        # Around the box, so that the smallest object stays visible inside; a dark rim on both sides
        # keeps the line visible on a ground of its own colour.
        dark = self._grown(rectangle, self.line + rim)
        self.draw.rectangle(dark, outline=(0, 0, 0), width=self.line + 2 * rim)
        self.draw.rectangle(self._grown(rectangle, self.line), outline=color, width=self.line)

    def _grown(self, rectangle: Sequence[float], margin: int) -> Rectangle:
        """Return the rectangle with a margin around it, as far as the picture goes."""
        x1, y1, x2, y2 = rectangle
        left, top = max(x1 - margin, 0), max(y1 - margin, 0)
        right = min(x2 + margin, self.size[0]) - 1
        bottom = min(y2 + margin, self.size[1]) - 1
        return left, top, max(left, right), max(top, bottom)

    def write(
        self, text: str, rectangle: Sequence[float], color: Color, taken: Sequence[Rectangle]
    ) -> Rectangle:
        """Write a label at a free corner of its box, inside the picture; return its place."""
        left, top, right, bottom = self.draw.textbbox((0, 0), text, font=self.font)
        pad = self.line
        width, height = right - left + 2 * pad, bottom - top + 2 * pad
        place = self._place(rectangle, width, height, taken)
        self.draw.rectangle(place, fill=color)
        bright = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140
        ink = (0, 0, 0) if bright else (255, 255, 255)
        self.draw.text(
            (place[0] + pad - left, place[1] + pad - top), text, fill=ink, font=self.font
        )
        return place

    def _place(
        self,
        rectangle: Sequence[float],
        width: float,
        height: float,
        taken: Sequence[Rectangle],
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
        places = [self._inside(x, y, width, height) for x, y in corners]
        return min(places, key=lambda place: sum(_overlap(place, other) for other in taken))

    def _inside(self, x: float, y: float, width: float, height: float) -> Rectangle:
        x = max(min(x, self.size[0] - width), 0)
        y = max(min(y, self.size[1] - height), 0)
        return x, y, x + width, y + height


def _overlap(one: Rectangle, other: Rectangle) -> float:
    """Return the area, in square pixels, that two rectangles share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def _texts(labels: Tensor, scores: Tensor | None, class_names: Sequence[str]) -> list[str]:
    names = [class_names[label] for label in labels.tolist()]
    if scores is None:
        return names
    return [f"{name} {score:.0%}" for name, score in zip(names, scores.tolist(), strict=True)]
