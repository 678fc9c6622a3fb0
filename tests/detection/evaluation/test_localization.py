import numpy as np
import pytest

from detection.data.coco import GroundTruth
from detection.evaluation.localization import describe_localization, measure_localization
from detection.evaluation.tables import DetectionTable

BOX = [10, 10, 20, 20]
NEAR = [10, 12, 20, 20]
FAR = [60, 60, 20, 20]


def measure(objects, detections, *, images=1):
    """Objects of (image, class, box[, crowd]), detections of (image, class, box, score)."""
    truth = GroundTruth.from_dict(
        {
            "images": [{"id": i} for i in range(images)],
            "categories": [{"id": i, "name": f"class {i}"} for i in range(2)],
            "annotations": [
                {"id": n, "image_id": i, "category_id": c, "bbox": b, "iscrowd": int(bool(crowd))}
                for n, (i, c, b, *crowd) in enumerate(objects)
            ],
        },
    )
    rows = [{"image_id": i, "category_id": c, "bbox": b, "score": s} for i, c, b, s in detections]
    table = DetectionTable.from_results(rows, truth)
    return measure_localization(truth, table, images=truth.indices_of(None))


@pytest.mark.parametrize(
    ("detections", "expected"),
    [  # top1, any class, class alone, top5, top5 of any class
        ([], (0, 0, 0, 0, 0)),
        ([(0, 0, NEAR, 0.9)], (100, 100, 100, 100, 100)),
        ([(0, 1, NEAR, 0.9)], (0, 100, 0, 0, 100)),
        ([(0, 0, FAR, 0.9)], (0, 0, 100, 0, 0)),
        ([(0, 0, FAR, 0.9), (0, 0, NEAR, 0.2)], (0, 0, 100, 100, 100)),
        ([(0, 1, FAR, 0.9 - n / 10) for n in range(5)] + [(0, 0, NEAR, 0.1)], (0, 0, 0, 0, 0)),
    ],
)
def test_top1_takes_the_highest_scoring_box_and_top5_five(detections, expected):
    metrics = measure([(0, 0, BOX)], detections)
    values = metrics.to_dict()
    assert values.pop("num_images") == 1
    assert tuple(values.values()) == expected


def test_an_overlap_of_just_a_half_is_not_enough():
    # 20 x 20 and 20 x 10 inside it: 200 / 400.
    assert measure([(0, 0, BOX)], [(0, 0, [10, 10, 20, 10], 0.9)]).top1 == 0
    assert measure([(0, 0, BOX)], [(0, 0, [10, 10, 20, 10.1], 0.9)]).top1 == 100


def test_images_without_an_object_are_left_out_and_without_detections_are_wrong():
    objects = [(0, 0, BOX), (1, 0, BOX), (2, 0, BOX, True)]
    metrics = measure(objects, [(0, 0, NEAR, 0.9), (2, 0, NEAR, 0.9)], images=4)
    assert metrics.num_images == 2
    assert metrics.top1 == 50


def test_of_several_objects_one_is_enough():
    assert measure([(0, 1, FAR), (0, 0, BOX)], [(0, 0, NEAR, 0.5)]).top1 == 100


def test_without_objects_there_is_no_figure():
    metrics = measure([], [(0, 0, BOX, 0.5)])
    assert metrics.top1 is None
    assert "n/a" in describe_localization(metrics)


def test_percentages_equal_those_counted_one_by_one():
    rng = np.random.default_rng(0)
    objects, detections, right = [], [], 0
    for image in range(50):
        box = [*rng.uniform(0, 100, 2), *rng.uniform(20, 60, 2)]
        is_right = bool(rng.random() < 0.6)
        far = [box[0] + 500, *box[1:]]
        objects.append((image, 0, box))
        detections += [(image, 0, box if is_right else far, 0.9), (image, 0, box, 0.3)]
        right += is_right
    metrics = measure(objects, detections, images=50)
    assert metrics.top1 == pytest.approx(2 * right)
    assert metrics.top5 == 100
