import json
import shutil
import string
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detection.data.coco import CocoTable
from detection.data.convert.convert import convert_annotations
from detection.data.convert.formats import ConversionConfig

SIDES = (64, 48)
TEXT = st.text(string.ascii_letters + string.digits + " äß犬<&\"'", min_size=1, max_size=8).map(
    lambda text: text.strip() or "x"
)
NUMBERS = st.integers(0, 10**6)


@st.composite
def coco_sets(draw):
    """COCO JSON with odd ids, crowds, outlines, members of the user's own, empty images."""
    ids = st.lists(NUMBERS, min_size=1, max_size=3, unique=True)
    names = draw(st.lists(TEXT, min_size=1, max_size=3, unique=True))
    category_ids = draw(st.lists(NUMBERS, min_size=len(names), max_size=len(names), unique=True))
    image_ids = draw(ids)
    annotations = []
    for image_id in image_ids:
        for _ in range(draw(st.integers(0, 3))):
            x, y = draw(st.floats(0, SIDES[0] - 2)), draw(st.floats(0, SIDES[1] - 2))
            width = draw(st.floats(0.5, SIDES[0] - x))
            height = draw(st.floats(0.5, SIDES[1] - y))
            more = draw(st.dictionaries(st.sampled_from(["note", "segmentation", "who"]), TEXT))
            annotations.append(
                {
                    "id": 7 * len(annotations) + 3,
                    "image_id": image_id,
                    "category_id": draw(st.sampled_from(category_ids)),
                    "bbox": [x, y, width, height],
                    "area": draw(st.floats(1, 100)),
                    "iscrowd": draw(st.integers(0, 1)),
                    **more,
                }
            )
    pairs = zip(category_ids, names, strict=True)
    return {
        "info": {"year": 2017},
        "images": [
            {"id": i, "file_name": f"a {i}.png", "width": SIDES[0], "height": SIDES[1], "by": "me"}
            for i in image_ids
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": n, "supercategory": "s"} for i, n in pairs],
    }


def write_coco(root, data, split="train"):
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / split).mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(data))
    for image in data["images"]:
        Image.new("RGB", (image["width"], image["height"])).save(root / split / image["file_name"])


def convert(source, out, source_format, target_format="coco", **changes):
    changes = {"splits": ["train"], **changes}
    config = ConversionConfig(
        source=str(source), source_format=source_format, target_format=target_format, **changes
    )
    return convert_annotations(config, out, progress=False)


def read_coco(root, split="train"):
    data = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
    return {
        key: sorted(value, key=lambda row: row["id"]) if isinstance(value, list) else value
        for key, value in data.items()
    }


def same(one, other):
    """Whether two COCO files say the same; boxes to a millionth of a pixel."""
    for kind in ("info", "images", "categories"):
        assert one[kind] == other[kind]
    for first, theirs in zip(one["annotations"], other["annotations"], strict=True):
        assert first.pop("bbox") == pytest.approx(theirs.pop("bbox"), abs=1e-6)
        assert first == theirs


@pytest.mark.parametrize("middle", ["voc", "yolo"])
@settings(max_examples=15, deadline=None)
@given(data=coco_sets())
def test_a_round_trip_loses_nothing(middle, data):
    with TemporaryDirectory() as folder:
        root = Path(folder)
        write_coco(root / "a", data)
        convert(root / "a", root / "b", "coco", middle)
        convert(root / "b", root / "c", middle)
        same(read_coco(root / "a"), read_coco(root / "c"))
        assert CocoTable.load(root / "c" / "annotations" / "instances_train.json").images


VOC = """<annotation><folder>V</folder><filename>1.png</filename>
<source><database>D</database></source>
<size><width>64</width><height>48</height><depth>3</depth></size><segmented>0</segmented>
<object><name>cat</name><pose>Left</pose><truncated>1</truncated><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>3</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
<part><name>tail</name></part></object></annotation>"""


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "voc"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    (root / "Annotations" / "1.xml").write_text(VOC)
    Image.new("RGB", SIDES).save(root / "JPEGImages" / "1.png")
    (root / "ImageSets" / "Main" / "train.txt").write_text("1\n")
    return root


def content(element):
    """Return an element's names and texts, without order and white space."""
    children = sorted((content(child) for child in element if child.tag != "coco"), key=repr)
    return element.tag, (element.text or "").strip(), children


def test_voc_numbers_pixels_from_one_and_its_members_survive_the_round_trip(voc, tmp_path):
    (split,) = convert(voc, tmp_path / "coco", "voc")
    assert (split.images, split.boxes) == (1, {"cat": 1})
    (box,) = read_coco(tmp_path / "coco")["annotations"]
    assert box["bbox"] == [0, 0, 4, 3]
    assert box["voc"]["truncated"] == "1"
    convert(tmp_path / "coco", tmp_path / "back", "coco", "voc")
    back = ET.parse(tmp_path / "back" / "Annotations" / "1.xml").getroot()
    assert content(back) == content(ET.fromstring(VOC))


def test_files_that_count_pixels_from_zero_can_be_read(voc, tmp_path):
    convert(voc, tmp_path / "coco", "voc", first_pixel=0)
    assert read_coco(tmp_path / "coco")["annotations"][0]["bbox"] == [1, 1, 3, 2]


def test_images_are_linked_copied_or_left(voc, tmp_path):
    for mode in ("link", "copy", "none"):
        convert(voc, tmp_path / mode, "voc", images=mode)
        image = tmp_path / mode / "train" / "1.png"
        assert image.is_symlink() == (mode == "link")
        assert image.is_file() == (mode != "none")
    convert(voc, tmp_path / "link", "voc")  # again, over what is there
    assert (tmp_path / "link" / "train" / "1.png").is_symlink()


BAD_VOC = [
    (VOC.replace("</object>", ""), "is not an annotation in XML"),
    ('<!DOCTYPE a [<!ENTITY b "c">]>' + VOC, "declares a document type"),
    (VOC.replace("<name>cat</name>", ""), "an object has no name"),
    (VOC.replace("<xmin>1</xmin>", "<xmin>one</xmin>", 1), "bndbox/xmin is 'one'"),
    (VOC.replace("<xmin>1</xmin>", "<xmin>nan</xmin>", 1), "bndbox/xmin is 'nan'"),
    (VOC.replace("<width>64", "<width>65"), "has size 65 x 48, but 1.png is 64 x 48"),
    (VOC.replace("<xmax>4</xmax>", "<xmax>-9</xmax>", 1), "1 boxes have no area or are outside"),
    (VOC.replace("<xmax>4</xmax>", "<xmax>90</xmax>", 1), "bad_boxes=drop leaves them out"),
]


@pytest.mark.parametrize(("text", "message"), BAD_VOC)
def test_broken_voc_is_refused_in_one_sentence_and_nothing_is_written(voc, tmp_path, text, message):
    (voc / "Annotations" / "1.xml").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        convert(voc, tmp_path / "coco", "voc")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "coco").exists()


def test_bad_boxes_are_dropped_with_a_warning_that_counts_them(voc, tmp_path, caplog):
    (voc / "Annotations" / "1.xml").write_text(BAD_VOC[-1][0])
    (split,) = convert(voc, tmp_path / "coco", "voc", bad_boxes="drop")
    assert split.boxes == {}
    assert "dropped 1 boxes" in caplog.text


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda r: (r / "JPEGImages/1.png").unlink(), FileNotFoundError, "1.png of .* does not"),
        (lambda r: (r / "JPEGImages/1.png").write_text("no"), ValueError, "is not an image"),
        (lambda r: (r / "Annotations/1.xml").unlink(), FileNotFoundError, "1.xml does not exist"),
        (shutil.rmtree, FileNotFoundError, "source .*voc does not exist"),
        (
            lambda r: (r / "ImageSets/Main/train.txt").rename(r / "ImageSets/Main/test.txt"),
            FileNotFoundError,
            r"train.txt does not exist; there are \['test'\]",
        ),
        (
            lambda r: (r / "ImageSets/Main/train.txt").write_text("1\n1\n"),
            ValueError,
            "'1' is listed twice",
        ),
        (
            lambda r: (r / "ImageSets/Main/train.txt").write_text("../1\n"),
            ValueError,
            "must lie below the folder",
        ),
    ],
)
def test_missing_files_are_named(voc, tmp_path, change, error, message):
    change(voc)
    with pytest.raises(error, match=message):
        convert(voc, tmp_path / "coco", "voc")


@settings(max_examples=60, deadline=None)
@given(
    position=st.integers(0, len(VOC) - 1),
    text=st.text(st.characters(exclude_categories=("Cs",)), max_size=6),
)
def test_voc_with_anything_inside_is_read_or_refused(position, text):
    with TemporaryDirectory() as folder:
        root = Path(folder) / "voc"
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / name).mkdir(parents=True)
        broken = VOC[:position] + text + VOC[position + len(text) :]
        (root / "Annotations" / "1.xml").write_text(broken, encoding="utf-8")
        Image.new("RGB", SIDES).save(root / "JPEGImages" / "1.png")
        (root / "ImageSets" / "Main" / "train.txt").write_text("1\n")
        with suppress(ValueError, FileNotFoundError):
            convert(root, Path(folder) / "coco", "voc")
            CocoTable.load(Path(folder) / "coco" / "annotations" / "instances_train.json")


@pytest.fixture
def yolo(tmp_path):
    root = tmp_path / "yolo"
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True)
    Image.new("RGB", SIDES).save(root / "images" / "train" / "a b.png")
    (root / "labels" / "train" / "a b.txt").write_text("1 0.5 0.5 0.25 0.5\n\n")
    (root / "data.yaml").write_text("names: [cat, dog]\n")
    return root


def test_yolo_boxes_are_fractions_of_the_image_sides(yolo, tmp_path):
    convert(yolo, tmp_path / "coco", "yolo")
    converted = read_coco(tmp_path / "coco")
    assert converted["annotations"][0]["bbox"] == [24, 12, 16, 24]
    assert [c["name"] for c in converted["categories"]] == ["cat", "dog"]
    assert converted["annotations"][0]["category_id"] == converted["categories"][1]["id"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("labels/train/a b.txt", "1 0.5 0.5 0.25", "line 1: .* has 4 values"),
        ("labels/train/a b.txt", "0 0 0 1 1 0 1 0 1", "has 9 values; a box has a class and four"),
        ("labels/train/a b.txt", "\ncat 0 0 1 1", "line 2: 'cat 0 0 1 1' is not a class"),
        ("labels/train/a b.txt", "0 nan 0 1 1", "a class and four numbers"),
        ("labels/train/a b.txt", "2 0.5 0.5 1 1", "there is no class 2; there are 2, from 0 to 1"),
        ("labels/train/a b.txt", "1 1.5 0.5 1 1", "no area or are outside"),
        ("labels/train/c.txt", "1 0.5 0.5 1 1", "1 label files have no image"),
        ("labels/train.json", "{}", "is not the sidecar file"),
        ("labels/train.json", '{"images": {"a b.png": {}}}', "does not fit .*a b.txt"),
        ("data.yaml", "names: 3", "must have 'names'"),
        ("data.yaml", "names: [a, a]", "two classes have the same name"),
        ("data.yaml", "names: [", "is not YAML"),
    ],
)
def test_broken_yolo_is_refused_in_one_sentence(yolo, tmp_path, file, text, message):
    (yolo / file).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        convert(yolo, tmp_path / "coco", "yolo")
    assert "\n" not in str(caught.value)


def test_crowds_are_not_in_the_text_files_of_yolo(tmp_path):
    box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81}
    data = {
        "images": [{"id": 1, "file_name": "1.png", "width": 64, "height": 48}],
        "annotations": [{**box, "id": 1, "iscrowd": 1}, {**box, "id": 2, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    write_coco(tmp_path / "a", data)
    convert(tmp_path / "a", tmp_path / "b", "coco", "yolo")
    assert len((tmp_path / "b" / "labels" / "train" / "1.txt").read_text().splitlines()) == 1
    convert(tmp_path / "b", tmp_path / "c", "yolo")
    assert [a["iscrowd"] for a in read_coco(tmp_path / "c")["annotations"]] == [1, 0]


def test_a_split_without_images_is_refused(voc, tmp_path):
    (voc / "ImageSets" / "Main" / "train.txt").write_text("")
    with pytest.raises(ValueError, match="train has no images"):
        convert(voc, tmp_path / "coco", "voc")
    assert not (tmp_path / "coco").exists()


def test_files_of_an_earlier_conversion_are_refused_for_yolo(yolo, tmp_path):
    convert(yolo, tmp_path / "coco", "yolo")
    back = tmp_path / "back"
    convert(tmp_path / "coco", back, "coco", "yolo")
    label = back / "labels" / "train" / "a b.txt"
    text = label.read_text()
    convert(tmp_path / "coco", back, "coco", "yolo")  # again, over what is there
    assert label.read_text() == text

    (back / "labels" / "train" / "other.txt").write_text("0 0.5 0.5 1 1\n")
    for left in ("labels/train/other.txt", "images/train/other.png"):
        with pytest.raises(ValueError, match=f"a part of train and are not, the first: .*{left}"):
            convert(tmp_path / "coco", back, "coco", "yolo")
        Image.new("RGB", SIDES).save(back / "images" / "train" / "other.png")


FACES = (
    "0--Parade/a.jpg\n2\n1 2 10 12 0 0 0 0 0 0\n20 20 5 5 2 0 0 1 0 0\n"
    "0--Parade/b.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n"
)


@pytest.fixture
def wider(tmp_path):
    root = tmp_path / "wider"
    (root / "wider_face_split").mkdir(parents=True)
    folder = root / "WIDER_train" / "images" / "0--Parade"
    folder.mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", SIDES).save(folder / f"{name}.jpg")
    (root / "wider_face_split" / "wider_face_train_bbx_gt.txt").write_text(FACES)
    return root


def test_faces_keep_their_flags_and_invalid_ones_are_crowds(wider, tmp_path):
    (split,) = convert(wider, tmp_path / "coco", "wider")
    assert (split.images, split.boxes) == (2, {"face": 2})
    first, second = read_coco(tmp_path / "coco")["annotations"]
    assert first["bbox"] == [1, 2, 10, 12]
    assert (first["iscrowd"], second["iscrowd"], second["blur"]) == (0, 1, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FACES.replace("\n2\n", "\ntwo\n"), "line 2: .* comes the number of faces, not 'two'"),
        (FACES.replace("\n2\n", "\n9\n"), "10 whole numbers"),
        (FACES.replace("1 2 10", "1 x 10"), "line 3: a face of .* has 10 whole numbers"),
        ("../a.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n", "must lie below"),
        ("0--Parade/a.jpg\n", "the end of"),
        (FACES + FACES, "is listed twice"),
    ],
)
def test_broken_lists_of_faces_are_refused(wider, tmp_path, text, message):
    (wider / "wider_face_split" / "wider_face_train_bbx_gt.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        convert(wider, tmp_path / "coco", "wider")


def test_splits_share_their_categories_and_keep_ids_apart_from_new_ones(tmp_path):
    box = {"id": 1, "image_id": 1, "bbox": [0, 0, 9, 9]}
    image = {"id": 1, "file_name": "1.png", "width": 64, "height": 48}
    for split, number, name in (("train", 9, "cat"), ("val", 2, "dog")):
        data = {
            "images": [image],
            "annotations": [{**box, "category_id": number}],
            "categories": [{"id": number, "name": name}],
        }
        write_coco(tmp_path / "a", data, split)
    convert(tmp_path / "a", tmp_path / "b", "coco", splits=["train", "val"])
    one, other = (read_coco(tmp_path / "b", split) for split in ("train", "val"))
    assert one["categories"] == other["categories"]
    assert {c["name"]: c["id"] for c in one["categories"]} == {"cat": 9, "dog": 2}
