import copy
import json

import numpy as np
import pytest

from detection.data.coco import Category, CocoAnnotations, read_coco, require_categories

GOOD = {
    "images": [
        {"id": 9, "file_name": "b.png", "width": 100, "height": 80},
        {"id": 4, "file_name": "a.png", "width": 60, "height": 50},
    ],
    "annotations": [
        {"id": 1, "image_id": 9, "category_id": 7, "bbox": [10, 20, 30, 40]},
        {"id": 2, "image_id": 4, "category_id": 3, "bbox": [0, 0, 60, 50], "iscrowd": 1},
        {"id": 3, "image_id": 9, "category_id": 3, "bbox": [1.5, 2.5, 3, 4], "iscrowd": 0},
    ],
    "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
}


def write(tmp_path, edit=lambda data: None):
    data = copy.deepcopy(GOOD)
    edit(data)
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(data))
    return path


def test_images_and_labels_are_in_order_of_id(tmp_path):
    found = CocoAnnotations.load(write(tmp_path))
    assert [image.id for image in found.images] == [4, 9]
    assert found.class_names == ("cat", "dog")
    assert found.category_ids == (3, 7)
    np.testing.assert_array_equal(found.boxes_of(0), [[0, 0, 60, 50]])
    np.testing.assert_array_equal(found.boxes_of(1), [[10, 20, 40, 60], [1.5, 2.5, 4.5, 6.5]])
    np.testing.assert_array_equal(found.labels_of(1), [1, 0])
    np.testing.assert_array_equal(found.crowd_of(0), [True])


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({3: "dog", 7: "cat"}, "id 3 is 'dog' in the first and 'cat' in the second"),
        ({3: "cat"}, "id 7 is no class in the first and 'dog' in the second"),
        ({3: "cat", 5: "cow", 7: "dog"}, "id 5 is 'cow' in the first and no class in the second"),
    ],
)
def test_other_categories_are_told_by_their_first_difference(tmp_path, known, message):
    found = CocoAnnotations.load(write(tmp_path))
    require_categories(found.categories, "itself", found)
    with pytest.raises(ValueError, match=rf"x\.json and .*instances\.json have .*: {message}"):
        require_categories([Category(*item) for item in known.items()], "x.json", found)


def first(key, **values):
    return lambda data: data[key][0].update(values)


def without(key, name):
    return lambda data: data[key][0].pop(name)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda d: d.pop("images"), ["images"]),
        (lambda d: d.pop("annotations"), ["annotations"]),
        (lambda d: d.pop("categories"), ["categories"]),
        (without("images", "width"), ["image", "9", "width"]),
        (without("images", "file_name"), ["image", "9", "file_name"]),
        (without("annotations", "bbox"), ["annotation", "1", "bbox"]),
        (without("annotations", "image_id"), ["annotation", "1", "image_id"]),
        (without("categories", "name"), ["category", "7", "name"]),
        (first("annotations", bbox=[10, 20, 0, 40]), ["annotation", "1", "bad_boxes=drop"]),
        (first("annotations", bbox=[10, 20, 30, -4]), ["annotation", "1", "-4"]),
        (first("annotations", bbox=[90, 20, 30, 40]), ["annotation", "1", "90"]),
        (first("annotations", bbox=[200, 20, 30, 40]), ["annotation", "1", "200"]),
        (first("annotations", bbox=[1, 2, 3]), ["annotation", "1", "bbox"]),
        (first("annotations", image_id=5), ["annotation", "1", "image", "5"]),
        (first("annotations", category_id=5), ["annotation", "1", "category", "5"]),
        (first("annotations", id=3), ["annotation", "3"]),
        (first("images", id=4), ["image", "4"]),
        (first("categories", id=3), ["category", "3"]),
        (first("images", width=0), ["image", "9", "0"]),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_record(tmp_path, edit, words):
    path = write(tmp_path, edit)
    with pytest.raises(ValueError, match=r"instances\.json") as caught:
        CocoAnnotations.load(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_file_that_is_not_json_is_refused_by_name(tmp_path):
    path = tmp_path / "instances.json"
    path.write_text('{"images": [')
    with pytest.raises(ValueError, match=r"instances\.json is not JSON"):
        CocoAnnotations.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        CocoAnnotations.load(tmp_path / "none.json")


def test_bad_boxes_can_be_dropped_with_a_warning_that_counts_them(tmp_path, caplog):
    path = write(tmp_path, first("annotations", bbox=[10, 20, 0, 40]))
    found = CocoAnnotations.load(path, bad_boxes="drop")
    assert len(found.boxes) == 2
    assert "1" in caplog.text


def test_a_box_that_rounding_put_over_the_edge_is_clipped(tmp_path):
    path = write(tmp_path, first("annotations", bbox=[70.5, 20, 30, 40]))
    np.testing.assert_array_equal(
        CocoAnnotations.load(path).boxes_of(1)[0], np.float32([70.5, 20, 100, 60])
    )


def test_what_boxes_do_not_need_is_not_kept(tmp_path):
    def edit(data):
        data["annotations"][0]["segmentation"] = [[1.5, 2, 3, 4, 5, 6]]
        data["images"][0]["coco_url"] = "http://example.org/a.png"
        data["info"] = {"year": 2017}

    data, _ = read_coco(write(tmp_path, edit))
    assert set(data) == {"images", "annotations", "categories"}
    assert "segmentation" not in data["annotations"][0]
    assert data["images"][0] == GOOD["images"][0]


def test_a_file_of_another_form_is_read_whole_for_the_message(tmp_path):
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"pictures": [], "notes": 3}))
    with pytest.raises(ValueError, match=r"lacks .*'images'.*it has \['notes', 'pictures'\]"):
        CocoAnnotations.load(path)
