import numpy as np
import pytest
import torch
from PIL import Image

from detection.engine.visualize import _overlap, _Pen, class_color, contact_sheet, draw_detections

NAMES = ("cat", "a dog with a rather long name")
NO_BOXES = torch.zeros(0, 4)
NO_LABELS = torch.zeros(0, dtype=torch.int64)


def gray(height, width):
    return torch.full((3, height, width), 128, dtype=torch.uint8)


def changed(picture):
    return (np.asarray(picture) != 128).any(axis=2)


@pytest.mark.parametrize(
    ("size", "expected"), [((128, 128), (512, 512)), ((60, 200), (600, 180)), ((700, 9), (9, 700))]
)
def test_small_images_are_enlarged_by_the_least_whole_factor(size, expected):
    picture = draw_detections(gray(*size), NO_BOXES, NO_LABELS, None, NAMES)
    assert picture.size == expected
    assert not changed(picture).any()


def test_the_line_is_around_the_box_in_the_color_of_its_class():
    box = torch.tensor([[200.0, 300.0, 400.0, 500.0]])
    picture = draw_detections(gray(700, 700), box, torch.tensor([1]), None, NAMES)
    assert picture.getpixel((199, 400)) == class_color(1)
    assert picture.getpixel((400, 400)) == class_color(1)
    assert picture.getpixel((300, 500)) == class_color(1)
    assert picture.getpixel((300, 400)) == (128, 128, 128)


def test_an_enlarged_picture_has_its_boxes_enlarged():
    box = torch.tensor([[25.0, 50.0, 75.0, 100.0]])
    picture = draw_detections(gray(128, 128), box, torch.tensor([0]), None, NAMES)
    assert picture.getpixel((99, 300)) == class_color(0)
    assert picture.getpixel((200, 300)) == (128, 128, 128)


@pytest.mark.parametrize("side", [16, 128, 640, 3000])
def test_the_label_is_legible_at_any_size(side):
    box = torch.tensor([[0.4, 0.4, 0.6, 0.6]]) * side
    arguments = (gray(side, side), box, torch.tensor([0]))
    without = np.asarray(draw_detections(*arguments, None, ("",)))
    drawn = np.asarray(draw_detections(*arguments, torch.tensor([0.5]), ("WWWWW",)))
    rows = np.flatnonzero((without != drawn).any(axis=(1, 2)))
    assert np.ptp(rows) >= max(12, drawn.shape[0] // 50)


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 20, 20],
        [580, 0, 600, 20],
        [0, 580, 20, 600],
        [580, 580, 600, 600],
        [0, 0, 600, 600],
    ],
)
def test_a_whole_label_is_inside_the_picture(box):
    def label_pixels(box):
        boxes = torch.tensor([box], dtype=torch.float32)
        arguments = (gray(600, 600), boxes, torch.tensor([1]))
        named = np.asarray(draw_detections(*arguments, torch.tensor([0.9]), NAMES))
        dark = (named < 40).all(axis=2) | (named > 230).all(axis=2)
        # Ink lies on the label alone; the rim of the line is left out by its position.
        plain = np.asarray(draw_detections(*arguments, None, ("", "")))
        return int((dark & (named != plain).any(axis=2)).sum())

    in_the_middle = label_pixels([290, 290, 310, 310])
    assert label_pixels(box) == pytest.approx(in_the_middle, rel=0.1)


def test_a_box_outside_the_picture_or_without_size_does_no_harm():
    boxes = torch.tensor([[-50.0, -50, -10, -10], [900, 900, 950, 990], [300, 300, 300, 300]])
    labels = torch.tensor([0, 1, 0])
    draw_detections(gray(600, 600), boxes, labels, torch.tensor([0.9, 0.5, 0.1]), NAMES)


def test_neighboring_classes_have_colors_far_apart():
    colors = np.array([class_color(label) for label in range(91)], dtype=float)
    assert np.abs(np.diff(colors, axis=0)).sum(axis=1).min() > 150
    assert len(np.unique(colors, axis=0)) == 91


def test_a_sheet_has_every_picture_once_and_whole():
    pictures = [
        Image.new("RGB", size, color)
        for size, color in [((30, 20), "red"), ((10, 40), "blue"), ((30, 40), "black")]
    ]
    pixels = np.asarray(contact_sheet(pictures, 2)).reshape(-1, 3).tolist()
    assert pixels.count([255, 0, 0]) == 600
    assert pixels.count([0, 0, 255]) == 400
    assert pixels.count([0, 0, 0]) == 1200


def test_a_sheet_of_nothing_is_refused():
    with pytest.raises(ValueError, match="needs at least 1 picture"):
        contact_sheet([], 3)


def test_the_labels_of_a_crowd_do_not_cover_one_another():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(30, 2, generator=generator) * 700
    boxes = torch.cat([corners, corners + 200], dim=1)
    labels = []
    pen = _Pen.on(Image.new("RGB", (1000, 1000)))
    for box in boxes.tolist():
        labels.append(pen.write("person 57%", box, (200, 0, 0), labels))
    covered = sum(_overlap(a, b) for n, a in enumerate(labels) for b in labels[:n])
    area = sum(_overlap(label, label) for label in labels)
    assert covered < 0.02 * area
