"""Annotations that are odd but right are kept whole; those that are wrong are named."""

import json
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detection.data.convert.convert import convert_annotations
from detection.data.convert.formats import ConversionConfig
from detection.data.convert.voc_xml import add_members, are_members, members

SIZE = (64, 48)
FURTHER = {"boxes": [{}], "apart": [], "extra": {}}
TAGS = st.sampled_from(["pose", "part", "a-b", "@id", "#text", "a b", "size", "bndbox", "coco"])
TEXTS = st.text(st.characters(), max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TAGS | TEXTS, inner, max_size=3),
    max_leaves=8,
)


def convert(source, out, source_format, target_format="coco", splits=("train",)):
    config = ConversionConfig(
        source=str(source),
        source_format=source_format,
        target_format=target_format,
        splits=list(splits),
    )
    return convert_annotations(config, out, progress=False)


def make_coco(root, *, split="train", name="1.png", size=SIZE, category="cat", **more):
    for folder in ("annotations", split):
        (root / folder).mkdir(parents=True, exist_ok=True)
    data = {
        "images": [{"id": 5, "file_name": name, "width": size[0], "height": size[1]}],
        "annotations": [{"id": 3, "image_id": 5, "category_id": 7, "bbox": [0, 0, 1, 1]}],
        "categories": [{"id": 7, "name": category}],
        **more,
    }
    data["annotations"][0] |= {"area": 1, "iscrowd": 0, **more.pop("further", {})}
    data.pop("further", None)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(data))
    Image.new("RGB", SIZE).save(root / split / name)
    return data


def converted_coco(root, split="train"):
    return json.loads((root / "annotations" / f"instances_{split}.json").read_text())


def make_voc(root, inside, *, attributes=""):
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    text = f"<annotation{attributes}><filename>1.png</filename>{inside}</annotation>"
    (root / "Annotations" / "1.xml").write_text(text)
    Image.new("RGB", SIZE).save(root / "JPEGImages" / "1.png")
    (root / "ImageSets" / "Main" / "train.txt").write_text("1\n")
    return text


def make_yolo(root, *, names="names: [cat]", further=None):
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True)
    Image.new("RGB", SIZE).save(root / "images" / "train" / "1.png")
    (root / "data.yaml").write_text(names)
    (root / "labels" / "train" / "1.txt").write_text("0 .5 .5 .1 .1\n")
    if further is not None:
        (root / "labels" / "train.json").write_text(json.dumps(further))


@pytest.mark.parametrize("middle", ["voc", "yolo"])
@settings(max_examples=25, deadline=None)
@given(voc=JSON, note=JSON)
def test_members_of_any_type_survive_the_round_trip(middle, voc, note):
    with TemporaryDirectory() as folder:
        root = Path(folder)
        data = make_coco(root / "a", further={"voc": voc, "note": note}, info=note)
        convert(root / "a", root / "b", "coco", middle)
        convert(root / "b", root / "c", middle)
        back = converted_coco(root / "c")
        (expected,), (converted,) = (
            [row.pop("bbox") for row in d["annotations"]] for d in (data, back)
        )
        assert converted == pytest.approx(expected, abs=1e-6)
        assert back == data


@settings(max_examples=150, deadline=None)
@given(inside=JSON)
def test_members_that_xml_can_hold_are_read_as_they_were_written(inside):
    if not are_members(inside):
        return
    element = ET.Element("object")
    add_members(element, inside)
    ET.indent(element)
    assert members(ET.fromstring(ET.tostring(element, encoding="unicode"))) == inside


VOC = (
    '<size unit="px"><width>64</width><height>48</height><depth>3</depth></size><depth>8</depth>'
    '<object id="4"><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax>'
    "<ymax>3</ymax><angle>0.5</angle></bndbox><pose>Left</pose><pose>Up</pose></object>"
)


def content(element):
    children = sorted((content(child) for child in element if child.tag != "coco"), key=repr)
    return element.tag, element.attrib, (element.text or "").strip(), children


def test_attributes_and_unknown_elements_of_voc_survive_the_round_trip(tmp_path):
    text = make_voc(tmp_path / "a", VOC, attributes=' verified="yes"')
    convert(tmp_path / "a", tmp_path / "b", "voc")
    convert(tmp_path / "b", tmp_path / "c", "coco", "voc")
    back = ET.parse(tmp_path / "c" / "Annotations" / "1.xml").getroot()
    assert content(back) == content(ET.fromstring(text))


def test_voc_without_sizes_takes_them_from_the_images(tmp_path):
    make_voc(tmp_path / "a", "")
    convert(tmp_path / "a", tmp_path / "b", "voc")
    assert (converted_coco(tmp_path / "b")["images"][0]["width"], SIZE[0]) == (64, 64)


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("<a>" * 3000 + "</a>" * 3000, "more than 50 elements within one another"),
        ("<coco>" + "[" * 90000 + "</coco>", "must hold a JSON object"),
        (VOC.replace("<name>", "<name>dog</name><name>"), "<object> has more than one <name>"),
        (VOC.replace("<height>48</height>", ""), "size/height is None, not a number"),
    ],
)
def test_wrong_voc_is_refused(tmp_path, inside, message):
    make_voc(tmp_path / "a", inside)
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "a", tmp_path / "b", "voc")


@pytest.mark.parametrize("size", [(0, 48), (64, 47)])
@pytest.mark.parametrize("target", ["coco", "voc", "yolo"])
def test_a_size_in_coco_that_is_not_the_images_is_refused(tmp_path, size, target):
    make_coco(tmp_path / "a", size=size)
    with pytest.raises(ValueError, match=f"image 5 has size {size[0]} x {size[1]}, but 1.png is"):
        convert(tmp_path / "a", tmp_path / "b", "coco", target)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("target", ["coco", "voc", "yolo"])
def test_nothing_is_written_if_an_image_of_coco_is_missing(tmp_path, target):
    make_coco(tmp_path / "a")
    (tmp_path / "a" / "train" / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1\.png does not exist"):
        convert(tmp_path / "a", tmp_path / "b", "coco", target)
    assert not (tmp_path / "b").exists()


def test_images_of_two_splits_that_share_a_name_do_not_overwrite_each_other_in_voc(tmp_path):
    for split in ("train", "val"):
        make_coco(tmp_path / "a", split=split)
    with pytest.raises(ValueError, match="'1' is an image of train and another one of val"):
        convert(tmp_path / "a", tmp_path / "b", "coco", "voc", ["train", "val"])
    assert not (tmp_path / "b").exists()
    convert(tmp_path / "a", tmp_path / "b", "coco", "yolo", ["train", "val"])


def test_an_image_that_two_splits_of_voc_list_is_one_image(tmp_path):
    make_voc(tmp_path / "a", VOC)
    lists = tmp_path / "a" / "ImageSets" / "Main"
    (lists / "trainval.txt").write_text("1\n")
    splits = convert(tmp_path / "a", tmp_path / "b", "voc", "voc", ["train", "trainval"])
    assert [split.boxes for split in splits] == [{"cat": 1}, {"cat": 1}]


def test_top_level_members_of_a_coco_file_stay_with_their_split(tmp_path):
    make_coco(tmp_path / "a", info={"year": 1})
    make_coco(tmp_path / "a", split="val", name="2.png")
    convert(tmp_path / "a", tmp_path / "b", "coco", "voc", ["train", "val"])
    convert(tmp_path / "b", tmp_path / "c", "voc", "coco", ["train", "val"])
    assert converted_coco(tmp_path / "c")["info"] == {"year": 1}
    assert "info" not in converted_coco(tmp_path / "c", "val")


def test_one_id_for_two_categories_of_two_splits_is_refused(tmp_path):
    make_coco(tmp_path / "a")
    make_coco(tmp_path / "a", split="val", category="dog")
    with pytest.raises(ValueError, match="'cat' and 'dog' both have the id 7"):
        convert(tmp_path / "a", tmp_path / "b", "coco", splits=["train", "val"])


@pytest.mark.parametrize("name", [" cat", "c\x01", "c\nat", "c\ufffe"])
def test_a_name_that_voc_would_change_is_refused(tmp_path, name):
    make_coco(tmp_path / "a", category=name)
    with pytest.raises(ValueError, match="VOC cannot hold the name"):
        convert(tmp_path / "a", tmp_path / "b", "coco", "voc")
    assert not (tmp_path / "b").exists()


def test_ids_that_json_writes_as_3_0_are_kept(tmp_path):
    make_coco(tmp_path / "a", further={"id": 3.0})
    convert(tmp_path / "a", tmp_path / "b", "coco")
    assert converted_coco(tmp_path / "b")["annotations"][0]["id"] == 3


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("names: " + "[" * 5000, "is not YAML"),
        ("names: [cat]\nmade: 2001-99-99", "data.yaml is not YAML: month"),
        ("names: {0: cat, 0: dog}", "'0' occurs 2 times"),
    ],
)
def test_wrong_yaml_is_refused(tmp_path, names, message):
    make_yolo(tmp_path / "a", names=names)
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "a", tmp_path / "b", "yolo")


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"images": {"1.png": FURTHER, "gone.png": FURTHER}}, "1 images that do not exist"),
        ({"images": {"1.png": FURTHER}, "categories": [{"id": 1}]}, "lacks 'name'"),
        ({"images": {"1.png": FURTHER}, "extra": [1]}, "is not the sidecar file"),
        ({"images": {"1.png": {**FURTHER, "apart": [{"bbox": 1}]}}}, "does not fit .*1.txt"),
    ],
)
def test_a_wrong_sidecar_file_is_refused(tmp_path, further, message):
    make_yolo(tmp_path / "a", further=further)
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "a", tmp_path / "b", "yolo")


@settings(max_examples=60, deadline=None)
@given(key=st.sampled_from(["boxes", "apart", "extra", "categories", "images"]), value=JSON)
def test_a_sidecar_file_with_any_content_is_read_or_refused(key, value):
    further = {"images": {"1.png": dict(FURTHER)}, "extra": {}}
    (further["images"]["1.png"] if key in FURTHER else further)[key] = value
    with TemporaryDirectory() as folder:
        make_yolo(Path(folder) / "a", further=further)
        with suppress(ValueError):
            convert(Path(folder) / "a", Path(folder) / "b", "yolo")


def test_yolo_without_a_folder_of_labels_is_not_a_set_without_objects(tmp_path):
    make_yolo(tmp_path / "a")
    (tmp_path / "a" / "labels" / "train").rename(tmp_path / "a" / "labels" / "Train")
    with pytest.raises(FileNotFoundError, match=r"label folder .*train does not exist"):
        convert(tmp_path / "a", tmp_path / "b", "yolo")


def test_a_label_file_that_cannot_be_read_is_not_an_image_without_objects(tmp_path):
    make_yolo(tmp_path / "a")
    (tmp_path / "a" / "labels" / "train" / "1.txt").unlink()
    (tmp_path / "a" / "labels" / "train" / "1.txt").mkdir()
    with pytest.raises(ValueError, match=r"cannot read .*1\.txt"):
        convert(tmp_path / "a", tmp_path / "b", "yolo")


def test_the_classes_of_yolo_may_be_listed_in_a_text(tmp_path):
    make_yolo(tmp_path / "a")
    (tmp_path / "a" / "data.yaml").unlink()
    (tmp_path / "a" / "classes.txt").write_text("hot dog\ncat\n\n")
    convert(tmp_path / "a", tmp_path / "b", "yolo")
    assert [c["name"] for c in converted_coco(tmp_path / "b")["categories"]] == ["hot dog", "cat"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (None, FileNotFoundError, r"neither data\.yaml nor classes\.txt"),
        ("", ValueError, r"classes\.txt, line 1: a class has no name"),
        ("cat\n\ndog\n", ValueError, r"classes\.txt, line 2: a class has no name"),
        ("cat\ncat\n", ValueError, "two classes have the same name"),
    ],
)
def test_a_wrong_list_of_classes_is_refused(tmp_path, text, error, message):
    make_yolo(tmp_path / "a")
    (tmp_path / "a" / "data.yaml").unlink()
    if text is not None:
        (tmp_path / "a" / "classes.txt").write_text(text)
    with pytest.raises(error, match=message):
        convert(tmp_path / "a", tmp_path / "b", "yolo")


@pytest.mark.parametrize("name", ["a\x85b", "a\u2028b", "no", "1", "a: b", "犬"])
def test_names_that_yaml_could_change_survive_the_round_trip(tmp_path, name):
    data = make_coco(tmp_path / "a", category=name)
    convert(tmp_path / "a", tmp_path / "b", "coco", "yolo")
    convert(tmp_path / "b", tmp_path / "c", "yolo")
    assert converted_coco(tmp_path / "c")["categories"] == data["categories"]


def test_two_file_names_of_one_image_are_refused(tmp_path):
    image = {"width": SIZE[0], "height": SIZE[1]}
    images = [{"id": 5, "file_name": "1.png", **image}, {"id": 6, "file_name": "./1.png", **image}]
    make_coco(tmp_path / "a", images=images)
    with pytest.raises(
        ValueError, match=r"\['1\.png', '\./1\.png'\] are all of the image '1\.png'"
    ):
        convert(tmp_path / "a", tmp_path / "b", "coco")


def test_links_become_copies_where_copies_are_asked_for_and_no_original_is_touched(tmp_path):
    make_coco(tmp_path / "a")
    original = tmp_path / "a" / "train" / "1.png"
    pixels = original.read_bytes()
    for mode in ("link", "copy", "link"):
        config = ConversionConfig(
            source=str(tmp_path / "a"), source_format="coco", splits=["train"], images=mode
        )
        convert_annotations(config, tmp_path / "b", progress=False)
        assert (tmp_path / "b" / "train" / "1.png").is_symlink() == (mode == "link")
        assert original.read_bytes() == pixels
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "train").symlink_to(tmp_path / "a" / "train")
    for mode in ("link", "copy"):
        config = ConversionConfig(
            source=str(tmp_path / "a"), source_format="coco", splits=["train"], images=mode
        )
        convert_annotations(config, tmp_path / "c", progress=False)
        assert not original.is_symlink()
        assert original.read_bytes() == pixels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg\n0\n1 2 9 9 0 0 0 0 0 0\n", "line 3: 'a.jpg' has 0 faces, but '1 2 9 9"),
        ("a.jpg\n" + "9" * 5000 + "\n", "line 2: after 'a.jpg' comes the number of faces"),
    ],
)
def test_a_count_of_faces_that_does_not_fit_is_refused(tmp_path, text, message):
    lists, folder = tmp_path / "a" / "wider_face_split", tmp_path / "a" / "WIDER_train" / "images"
    lists.mkdir(parents=True)
    folder.mkdir(parents=True)
    Image.new("RGB", SIZE).save(folder / "a.jpg")
    (lists / "wider_face_train_bbx_gt.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "a", tmp_path / "b", "wider")
