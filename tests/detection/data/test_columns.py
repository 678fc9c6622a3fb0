import copy
import hashlib
import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detection.data.coco import EDGE_PX, CocoTable, GroundTruth
from detection.data.coco_file import CategoryRow
from detection.data.columns import Box, Flag, Records, Whole, convert
from detection.evaluation.metrics import compute_coco_metrics
from detection.evaluation.tables import as_detection_table

quick = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
IDS = st.integers(0, 2**40)
TROUBLE = [float("nan"), float("inf"), float("-inf"), -1, 0, 0.5, 1e308, 2**63, "", "1", True]
JSON_VALUES = st.sampled_from(TROUBLE) | st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def coco_files(draw):
    images = [
        {
            "id": image_id,
            "file_name": f"{image_id}.png",
            "width": draw(st.integers(2, 3000)),
            "height": draw(st.integers(2, 3000)),
        }
        for image_id in draw(st.lists(IDS, min_size=1, max_size=4, unique=True))
    ]
    categories = [
        {"id": category_id, "name": f"class {category_id}"}
        for category_id in draw(st.lists(IDS, min_size=1, max_size=4, unique=True))
    ]
    annotations = []
    for annotation_id in draw(st.lists(IDS, max_size=8, unique=True)):
        image = draw(st.sampled_from(images))
        x = draw(st.integers(0, image["width"] - 1))
        y = draw(st.integers(0, image["height"] - 1))
        size = [draw(st.integers(1, image["width"] - x)), draw(st.integers(1, image["height"] - y))]
        annotations.append(
            {
                "id": annotation_id,
                "image_id": image["id"],
                "category_id": draw(st.sampled_from(categories))["id"],
                "bbox": [x, y, *size],
                "iscrowd": draw(st.sampled_from([0, 1])),
            }
        )
    return {"images": images, "annotations": annotations, "categories": categories}


def slots(data):
    """Return the container and key of every value in a COCO file."""
    entries = [(data, key) for key in data]
    for table in data.values():
        entries += [(table, i) for i in range(len(table))]
        entries += [(row, key) for row in table for key in row]
        entries += [(row["bbox"], i) for row in table if "bbox" in row for i in range(4)]
    return entries


@quick
@given(data=coco_files())
def test_every_box_of_a_valid_file_is_read_with_its_image(tmp_path, data):
    path = tmp_path / "right.json"
    path.write_text(json.dumps(data))
    table = CocoTable.load(path)
    assert table.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [i.id for i in table.images] == sorted(i["id"] for i in data["images"])
    for index, image in enumerate(table.images):
        rows = [a for a in data["annotations"] if a["image_id"] == image.id]
        corners = [
            [x, y, x + width, y + height] for x, y, width, height in (a["bbox"] for a in rows)
        ]
        np.testing.assert_array_equal(table.boxes_of(index), np.reshape(corners, (-1, 4)))
        assert table.crowd_of(index).tolist() == [bool(a["iscrowd"]) for a in rows]
        named = [table.category_ids[label] for label in table.labels_of(index)]
        assert named == [a["category_id"] for a in rows]


def refusal_of(action):
    """Return what a call gives and None, or None and the message of its ValueError."""
    try:
        return action(), None
    except ValueError as error:
        return None, str(error)


@quick
@given(data=coco_files(), wrong=JSON_VALUES, choice=st.randoms(use_true_random=False))
def test_any_value_anywhere_is_read_or_refused_in_one_sentence(tmp_path, data, wrong, choice):
    data = copy.deepcopy(data)
    holder, key = choice.choice(slots(data))
    holder[key] = wrong
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(data))
    table, refusal = refusal_of(lambda: CocoTable.load(path))
    if table is None:
        assert str(path) in refusal
        assert "\n" not in refusal
        return
    for index, image in enumerate(table.images):
        boxes = table.boxes_of(index)
        assert np.isfinite(boxes).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (boxes >= 0).all()
        assert (boxes <= [image.width, image.height] * 2).all()


@quick
@given(data=coco_files(), wrong=JSON_VALUES, choice=st.randoms(use_true_random=False))
def test_any_value_in_results_is_either_scored_or_refused(tmp_path, data, wrong, choice):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(data))
    truth = GroundTruth.load(path)
    results = [
        {key: a[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5}
        for a in copy.deepcopy(data["annotations"])
    ]
    holder, key = choice.choice([(r, k) for r in results for k in r] or [([None], 0)])
    holder[key] = wrong
    table, refusal = refusal_of(lambda: as_detection_table(results, truth, source="results.json"))
    if table is None:
        assert "results.json: detection" in refusal
    else:
        compute_coco_metrics(truth, table)


def records(source, name, rows, **fields):
    """Records of a Struct that has the fields, decoded from JSON values."""
    row = msgspec.defstruct("Row", [*fields.items(), ("id", Any, msgspec.UNSET)])
    return Records(source, name, convert(rows, list[row], source=source, name=name))


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        {},
        [],
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        [1, 2, 3, "4"],
        [1, 2, 3, True],
        [1, 2, 3, [4]],
        [1, 2, 3, 10**400],
        [float("nan"), 2, 3, 4],
        [1, float("-inf"), 3, 4],
        [1, 2, float("inf"), 4],
    ],
)
def test_a_box_must_be_four_finite_numbers(value):
    rows = [{"bbox": [1, 2, 3, 4]}, {"id": 6, "bbox": value}]
    with pytest.raises(ValueError, match=r"f\.json: annotation 6 has bbox .* four finite numbers"):
        records("f.json", "annotation", rows, bbox=Box).boxes("bbox")


@pytest.mark.parametrize("value", [None, "0.5", True, [0.5], float("nan"), float("inf"), 10**400])
def test_a_score_must_be_a_finite_number(value):
    rows = [{"score": 1}, {"score": value}]
    with pytest.raises(ValueError, match=r"f\.json: detection number 2 has score .* finite number"):
        records("f.json", "detection", rows, score=float).numbers("score")


@pytest.mark.parametrize("value", [None, 2, "1", [1], float("nan")])
def test_a_flag_must_be_0_or_1(value):
    rows = [{"iscrowd": 1}, {"id": 6, "iscrowd": value}]
    with pytest.raises(ValueError, match=r"f\.json: annotation 6 has iscrowd .* must be 0 or 1"):
        records("f.json", "annotation", rows, iscrowd=Flag).flags("iscrowd")


@pytest.mark.parametrize("value", [0, 1, False, True, 0.0, 1.0])
def test_flags_may_be_numbers_or_booleans(value):
    rows = records("f.json", "annotation", [{"iscrowd": value}], iscrowd=Flag)
    assert rows.flags("iscrowd").tolist() == [bool(value)]


@pytest.mark.parametrize("over", [EDGE_PX, EDGE_PX + 0.01])
def test_a_box_may_pass_the_edge_by_a_pixel_and_no_more(tmp_path, over):
    path = tmp_path / "edge.json"
    path.write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 10}],
                "annotations": [
                    {"id": 5, "image_id": 1, "category_id": 2, "bbox": [10, 0, 10 + over, 10]}
                ],
                "categories": [{"id": 2, "name": "cat"}],
            }
        )
    )
    if over > EDGE_PX:
        with pytest.raises(ValueError, match=r"annotation 5 has bbox .* image of 20 x 10 pixels"):
            CocoTable.load(path)
    else:
        np.testing.assert_array_equal(CocoTable.load(path).boxes_of(0), [[10, 0, 20, 10]])


def test_whole_floats_are_ids_and_the_largest_int64_is_too():
    rows = records("f.json", "image", [{"number": 3.0}, {"number": 2**63 - 1}], number=Whole)
    assert rows.integers("number").tolist() == [3, 2**63 - 1]


@pytest.mark.parametrize(
    "value", [True, "3", 3.5, 2**63, 1e300, float("nan"), float("inf"), None, [3]]
)
def test_an_id_must_be_a_whole_number(value):
    with pytest.raises(ValueError, match=r"f\.json: image .* must be a whole number"):
        records("f.json", "image", [{"key": 1}, {"key": value}], key=Whole).integers("key")


def test_the_record_without_a_key_is_named_by_its_id_or_else_its_number():
    with pytest.raises(ValueError, match=r"f\.json: category 8 lacks 'name'"):
        convert(
            [{"id": 1, "name": "a"}, {"id": 8}], list[CategoryRow], source="f.json", name="category"
        )
    with pytest.raises(ValueError, match=r"f\.json: category number 2 lacks 'number'"):
        records("f.json", "category", [{"number": 1}, {}], number=Whole)
    rows = records("f.json", "annotation", [{"id": 4}, {}])
    with pytest.raises(ValueError, match=r"f\.json: annotation number 2 lacks 'id'"):
        rows.unique("id", Whole)


def test_tables_that_are_no_lists_of_objects_are_refused():
    with pytest.raises(ValueError, match="the categories must be a JSON list"):
        records("f.json", "category", {})
    with pytest.raises(ValueError, match="image number 2 must be a JSON object, not 7"):
        records("f.json", "image", [{}, 7])
