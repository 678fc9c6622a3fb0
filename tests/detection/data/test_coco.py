import copy
import json

import numpy as np
import pytest

from detection.data.coco import Category, CocoTable, GroundTruth, require_categories

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
    table = CocoTable.load(write(tmp_path))
    assert [image.id for image in table.images] == [4, 9]
    assert table.class_names == ("cat", "dog")
    assert table.category_ids == (3, 7)
    np.testing.assert_array_equal(table.boxes_of(0), [[0, 0, 60, 50]])
    np.testing.assert_array_equal(table.boxes_of(1), [[10, 20, 40, 60], [1.5, 2.5, 4.5, 6.5]])
    np.testing.assert_array_equal(table.labels_of(1), [1, 0])
    np.testing.assert_array_equal(table.crowd_of(0), [True])


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({3: "dog", 7: "cat"}, "id 3 is 'dog' in the first and 'cat' in the second"),
        ({3: "cat"}, "id 7 is no class in the first and 'dog' in the second"),
        ({3: "cat", 5: "cow", 7: "dog"}, "id 5 is 'cow' in the first and no class in the second"),
    ],
)
def test_other_categories_are_refused_with_the_first_difference(tmp_path, known, message):
    table = CocoTable.load(write(tmp_path))
    require_categories(table.categories, "itself", table)
    with pytest.raises(ValueError, match=rf"x\.json and .*instances\.json have .*: {message}"):
        require_categories([Category(*item) for item in known.items()], "x.json", table)


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
        CocoTable.load(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_file_that_is_not_json_is_refused_by_name(tmp_path):
    path = tmp_path / "instances.json"
    path.write_text('{"images": [')
    with pytest.raises(ValueError, match=r"instances\.json is not JSON"):
        CocoTable.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        CocoTable.load(tmp_path / "none.json")


def test_bad_boxes_can_be_dropped_with_a_warning_that_counts_them(tmp_path, caplog):
    path = write(tmp_path, first("annotations", bbox=[10, 20, 0, 40]))
    table = CocoTable.load(path, bad_boxes="drop")
    assert len(table.rows) == 2
    assert len(table.ground_truth.labels) == 3
    assert "1" in caplog.text


def test_a_box_that_rounding_put_over_the_edge_is_clipped(tmp_path):
    path = write(tmp_path, first("annotations", bbox=[70.5, 20, 30, 40]))
    np.testing.assert_array_equal(
        CocoTable.load(path).boxes_of(1)[0], np.float32([70.5, 20, 100, 60])
    )


def test_an_area_that_scoring_refuses_does_not_hinder_training(tmp_path):
    table = CocoTable.load(write(tmp_path, first("annotations", area=None)))
    assert len(table.rows) == 3
    with pytest.raises(ValueError, match=r"annotation 1 has area null; it must be a finite number"):
        _ = table.ground_truth


def test_one_table_has_the_objects_for_training_and_for_scoring(tmp_path):
    path = write(tmp_path, first("annotations", bbox=[70.5, 20, 30, 40]))
    table, truth = CocoTable.load(path), GroundTruth.load(path)
    np.testing.assert_array_equal(table.boxes_of(1)[0], np.float32([70.5, 20, 100, 60]))
    for scored in (table.ground_truth, truth):
        np.testing.assert_array_equal(scored.boxes[0], [70.5, 20, 30, 40])
        np.testing.assert_array_equal(scored.image_ids[scored.image_indices], [9, 4, 9])
        np.testing.assert_array_equal(scored.category_ids[scored.labels], [7, 3, 3])
        np.testing.assert_array_equal(scored.areas, [1200, 3000, 12])
        assert scored.fingerprint == table.fingerprint
    assert table.ground_truth.boxes is table.boxes


def test_a_file_of_another_form_is_read_whole_for_the_message(tmp_path):
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"pictures": [], "notes": 3}))
    with pytest.raises(ValueError, match=r"lacks .*'images'.*it has \['notes', 'pictures'\]"):
        CocoTable.load(path)
