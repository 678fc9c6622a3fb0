import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detection.config import EVALUATION_BACKENDS
from detection.data.coco import GroundTruth
from detection.evaluation.coco_eval import compute_arrays
from detection.evaluation.metrics import FIGURES, TABLES, compute_coco_metrics
from detection.evaluation.tables import DetectionTable, box_iou

quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
COORDINATES = st.sampled_from([0, 4, 5, 8, 10, 30]) | st.floats(0, 150, width=32)
SIDES = st.sampled_from([0, 5, 10, 32, 96, 100]) | st.floats(0, 120, width=32)
BOXES = st.tuples(COORDINATES, COORDINATES, SIDES, SIDES).map(list)
SCORES = st.sampled_from([0, 0.5, 1]) | st.floats(-1, 1, width=32)


@st.composite
def evaluations(draw):
    """COCO JSON with ids from 0, crowds, missing areas and images without objects; detections."""
    image_ids = draw(st.lists(st.integers(0, 2**60), min_size=1, max_size=5, unique=True))
    category_ids = draw(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True))
    located = st.fixed_dictionaries(
        {
            "image_id": st.sampled_from(image_ids),
            "category_id": st.sampled_from(category_ids),
            "bbox": BOXES,
        }
    )
    annotations = [
        draw(located)
        | {"id": number, "iscrowd": draw(st.sampled_from([0, 0, 0, 1]))}
        | draw(st.sampled_from([{}, {"area": 500}, {"area": 1024}, {"area": 20000.5}]))
        for number in range(draw(st.integers(0, 10)))
    ]
    near = [{k: a[k] for k in ("image_id", "category_id", "bbox")} for a in annotations]
    detections = [
        draw(st.sampled_from(near) | located if near else located)
        for _ in range(draw(st.integers(0, 20)))
    ]
    truth = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in image_ids],
        "categories": [{"id": i, "name": f"class {i}"} for i in category_ids],
        "annotations": annotations,
    }
    return truth, [row | {"score": draw(SCORES)} for row in detections]


def assert_equal(one, other):
    for figure in FIGURES:
        assert getattr(one, figure) == pytest.approx(getattr(other, figure), abs=1e-6, nan_ok=True)
    for table in TABLES:
        assert getattr(one, table) == pytest.approx(getattr(other, table), abs=1e-6, nan_ok=True)


@quick
@given(case=evaluations(), choice=st.randoms(use_true_random=False))
def test_both_backends_give_the_same_figures(case, choice):
    data, results = case
    truth = GroundTruth.from_dict(data)
    ids = truth.image_ids.tolist()
    for image_ids in (None, choice.sample(ids, choice.randint(0, len(ids)))):
        fast, reference = (
            compute_coco_metrics(truth, results, image_ids=image_ids, backend=backend)
            for backend in EVALUATION_BACKENDS
        )
        assert_equal(fast, reference)


def random_case(rng, *, images, categories, objects, detections, decimals=1):
    """Truth, and detections of which most are near an object; scores of few decimals often tie."""
    rows = [
        {
            "id": number,
            "image_id": int(rng.integers(images)),
            "category_id": int(rng.integers(categories)),
            "bbox": [*rng.uniform(0, 300, 2), *rng.uniform(4, 200, 2)],
            "iscrowd": int(rng.random() < 0.1),
        }
        for number in range(objects)
    ]
    results = []
    for _ in range(detections):
        row = rows[int(rng.integers(objects))]
        results.append(
            {
                "image_id": row["image_id"] if rng.random() < 0.8 else int(rng.integers(images)),
                "category_id": row["category_id"],
                "bbox": np.maximum(np.array(row["bbox"]) + rng.normal(0, 8, 4), 0).tolist(),
                "score": round(float(rng.random()), decimals),
            }
        )
    data = {
        "images": [{"id": i} for i in range(images)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(categories)],
        "annotations": rows,
    }
    return GroundTruth.from_dict(data), results


@pytest.mark.parametrize(
    "shape",
    [
        {"images": 60, "categories": 3, "objects": 120, "detections": 1500},
        {"images": 2, "categories": 2, "objects": 6, "detections": 900},  # beyond COCO's 100
        {"images": 300, "categories": 1, "objects": 2, "detections": 900},  # long gaps
    ],
)
def test_both_backends_agree_with_many_ties_many_detections_and_long_gaps(shape):
    truth, detections = random_case(np.random.default_rng(0), **shape)
    fast, reference = (
        compute_coco_metrics(truth, detections, backend=b) for b in EVALUATION_BACKENDS
    )
    assert_equal(fast, reference)
    assert fast.ap > 1


def test_curves_and_recalls_are_equal_too():
    truth, detections = random_case(
        np.random.default_rng(1), images=40, categories=3, objects=90, detections=800
    )
    table = DetectionTable.from_results(detections, truth)
    fast, reference = (
        compute_arrays(truth, table, images=truth.indices_of(None), backend=backend)
        for backend in EVALUATION_BACKENDS
    )
    np.testing.assert_allclose(fast.precision, reference.precision, atol=1e-12)
    np.testing.assert_allclose(fast.recall, reference.recall, atol=1e-12)


@quick
@given(boxes=st.lists(st.tuples(BOXES, BOXES, st.booleans()), min_size=1, max_size=5))
def test_ious_are_those_of_pycocotools_to_the_last_bit(boxes):
    from pycocotools import mask

    detections, truth, crowd = (list(column) for column in zip(*boxes, strict=True))
    first, second = np.array(detections, float), np.array(truth, float)
    expected = mask.iou(first, second, [int(c) for c in crowd])
    got = box_iou(first[:, None], second, np.array(crowd))
    # Where both boxes are so small that their area is 0, it divides by that.
    np.testing.assert_array_equal(got, np.nan_to_num(expected))


def test_an_unknown_backend_is_refused():
    truth, detections = random_case(
        np.random.default_rng(0), images=1, categories=1, objects=1, detections=1
    )
    with pytest.raises(ValueError, match=r"unknown backend 'fast'; choose from .*hotcoco"):
        compute_coco_metrics(truth, detections, backend="fast")


def test_the_former_backend_is_refused_with_the_name_of_the_present_one():
    truth, detections = random_case(
        np.random.default_rng(0), images=1, categories=1, objects=1, detections=1
    )
    with pytest.raises(ValueError, match=r"backend=faster-coco-eval is now called backend=hotcoco"):
        compute_coco_metrics(truth, detections, backend="faster-coco-eval")


def test_other_limits_of_detections_fill_the_figures_of_their_own_columns(monkeypatch):
    monkeypatch.setattr("detection.evaluation.coco_eval.MAX_DETECTIONS", (2, 5, 300))
    truth, detections = random_case(
        np.random.default_rng(0), images=2, categories=1, objects=12, detections=900
    )
    table = DetectionTable.from_results(detections, truth)
    fast, reference = (
        compute_arrays(truth, table, images=truth.indices_of(None), backend=backend)
        for backend in EVALUATION_BACKENDS
    )
    np.testing.assert_allclose(fast.recall, reference.recall, atol=1e-12)
    np.testing.assert_allclose(fast.precision, reference.precision, atol=1e-12)
    assert (np.diff(fast.recall[0, 0, 0]) > 0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"area": None}, "annotation 3 has area null; it must be a finite number"),
        ({"area": "big"}, 'annotation 3 has area "big"'),
        ({"iscrowd": 2}, "annotation 3 has iscrowd 2"),
        ({"image_id": 9}, "annotation 3 has image_id 9, but there is no such image"),
        ({"bbox": [0, 0, 1e12, 5]}, "no number may pass 1e"),
    ],
)
def test_truth_that_cannot_be_scored_is_refused_in_one_sentence(tmp_path, change, words):
    row = {"id": 3, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    data = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [row | change],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"truth\.json: ") as caught:
        compute_coco_metrics(path, [])
    assert words in str(caught.value)
