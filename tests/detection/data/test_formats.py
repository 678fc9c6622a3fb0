"""The table of annotation formats."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from detection.data.convert.convert import convert_annotations
from detection.data.convert.formats import FORMATS, ConversionConfig, FormatChoice, build_format

LINES_FORMAT = """
from detection.data.convert.labels import LabeledBox, LabeledImage, LabeledSet, image_size


class LinesFormat:
    def __init__(self, config, *, progress):
        pass

    def read(self, root, split):
        images = []
        for line in (root / f"{split}.txt").read_text().splitlines():
            name, category, *box = line.split()
            boxes = (LabeledBox(category, tuple(map(float, box))),)
            images.append(LabeledImage(name, *image_size(root / name), boxes))
        return LabeledSet(tuple(images), root)

    def check(self, sets, root, categories):
        pass

    def write(self, sets, root, categories):
        root.mkdir()
        for split, labeled in sets.items():
            lines = [
                f"{image.file_name} {box.category} {' '.join(map(str, box.xywh))}"
                for image in labeled.images
                for box in image.boxes
            ]
            (root / f"{split}.txt").write_text("\\n".join(lines))
"""


@pytest.fixture
def lines_format(tmp_path, monkeypatch):
    """A format of one file and one line of the table."""
    (tmp_path / "lines_format.py").write_text(LINES_FORMAT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(FORMATS, "lines", FormatChoice("lines_format:LinesFormat"))


def test_a_format_is_one_file_and_one_line_of_the_table(tmp_path, lines_format):
    source = tmp_path / "source"
    source.mkdir()
    Image.new("RGB", (64, 48)).save(source / "a.png")
    (source / "train.txt").write_text("a.png cat 1 2 10 20")
    config = ConversionConfig(source=str(source), source_format="lines", splits=["train"])
    (split,) = convert_annotations(config, tmp_path / "coco", progress=False)
    assert split.boxes == {"cat": 1}
    data = json.loads((tmp_path / "coco" / "annotations" / "instances_train.json").read_text())
    assert data["annotations"][0]["bbox"] == [1, 2, 10, 20]
    back = replace(
        config, source=str(tmp_path / "coco"), source_format="coco", target_format="lines"
    )
    convert_annotations(back, tmp_path / "back", progress=False)
    assert (tmp_path / "back" / "train.txt").read_text() == "a.png cat 1.0 2.0 10.0 20.0"


@pytest.mark.parametrize(
    ("name", "value"),
    [("source_format", "kitti"), ("target_format", "kitti"), ("target_format", "wider")],
)
def test_a_format_outside_the_table_is_refused_and_not_taken_for_another(name, value):
    formats = {"source_format": "coco", name: value}
    with pytest.raises(ValueError, match=rf"unknown {name} '{value}'; choose from .*'yolo'"):
        ConversionConfig(source="here", **formats)


def test_a_format_that_is_set_later_is_refused_too(tmp_path):
    config = ConversionConfig(source=str(tmp_path), source_format="coco", splits=["train"])
    config.source_format = "kitti"
    with pytest.raises(ValueError, match=r"unknown format 'kitti'; choose from .*'wider'"):
        convert_annotations(config, tmp_path / "out", progress=False)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_of_the_table_can_be_built(name):
    config = ConversionConfig(source="here", source_format=name)
    reader = build_format(name, config, progress=False)
    assert hasattr(reader, "write") == FORMATS[name].writes
