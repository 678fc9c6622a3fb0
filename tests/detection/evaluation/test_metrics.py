import contextlib
import io
import json

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detection.data.coco import GroundTruth
from detection.evaluation.metrics import CocoMetrics, compute_coco_metrics, to_coco_results
from detection.evaluation.tables import DetectionTable
from detection.structures import Detections

FIELDS = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """Twenty images of random boxes, some of them crowds, and detections near them."""
    rng = np.random.default_rng(0)
    images, annotations, results = [], [], []
    for image_id in range(1, 21):
        images.append({"id": image_id, "file_name": f"{image_id}.png", "width": 300, "height": 300})
        for _ in range(int(rng.integers(6))):
            x, y = rng.uniform(0, 150, 2)
            w, h = rng.uniform(8, 140, 2)
            category = int(rng.choice([2, 5, 11]))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
            if rng.random() < 0.8:
                box = np.array([x, y, w, h]) + rng.normal(0, 3, 4)
                results.append(
                    {
                        "image_id": image_id,
                        "category_id": category if rng.random() < 0.9 else 2,
                        "bbox": [*box[:2], *np.maximum(box[2:], 1)],
                        "score": float(rng.random()),
                    }
                )
    categories = [{"id": i, "name": f"class {i}"} for i in (2, 5, 11)]
    path = tmp_path_factory.mktemp("coco") / "truth.json"
    data = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(data))
    return path, annotations, results


def test_the_figures_are_those_of_pycocotools(truth):
    path, _, results = truth
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    metrics = compute_coco_metrics(path, results)
    assert [getattr(metrics, f) for f in FIELDS] == pytest.approx(100 * evaluation.stats)
    assert np.mean(list(metrics.per_class.values())) == pytest.approx(metrics.ap)


def test_perfect_detections_score_100(truth):
    path, annotations, _ = truth
    results = [
        {k: a[k] for k in ("image_id", "category_id", "bbox")} | {"score": 1.0}
        for a in annotations
        if not a["iscrowd"]
    ]
    assert compute_coco_metrics(path, results).ap == pytest.approx(100)


def test_no_detections_score_0(truth):
    assert compute_coco_metrics(truth[0], []).ap == 0


def test_metrics_survive_json(truth):
    metrics = compute_coco_metrics(truth[0], truth[2])
    back = CocoMetrics.from_dict(json.loads(json.dumps(metrics.to_dict())))
    assert [getattr(back, f) for f in FIELDS] == pytest.approx(
        [getattr(metrics, f) for f in FIELDS], nan_ok=True
    )


def test_detections_become_coco_results():
    results = Detections(
        torch.tensor([[10.0, 20.0, 40.0, 60.0]]), torch.tensor([0.75]), torch.tensor([1])
    )
    assert to_coco_results([5], [results], (3, 7)) == [
        {"image_id": 5, "category_id": 7, "bbox": [10, 20, 30, 40], "score": 0.75}
    ]


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ({}, ["list"]),
        ([{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]}], ["score"]),
        ([{"image_id": 99, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 1}], ["image", "99"]),
        ([{"image_id": 1, "category_id": 9, "bbox": [1, 2, 3, 4], "score": 1}], ["category", "9"]),
        ([{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3], "score": 1}], ["bbox"]),
    ],
)
def test_results_of_another_program_that_do_not_fit_are_refused(truth, tmp_path, results, words):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    with pytest.raises(ValueError, match=r"results\.json") as caught:
        DetectionTable.load(path, GroundTruth.load(truth[0]))
    for word in words:
        assert word in str(caught.value)


def test_an_object_with_id_0_can_be_matched_and_the_file_stays_unchanged(tmp_path):
    path = tmp_path / "instances.json"
    data = {
        "images": [{"id": 0, "file_name": "a.png", "width": 50, "height": 50}],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 0, "bbox": [5, 5, 20, 20]}],
        "categories": [{"id": 0, "name": "cat"}],
    }
    path.write_text(json.dumps(data))
    before = path.read_bytes()
    results = [{"image_id": 0, "category_id": 0, "bbox": [5, 5, 20, 20], "score": 0.9}]
    assert compute_coco_metrics(path, results).ap == pytest.approx(100)
    assert path.read_bytes() == before


def test_figures_of_some_images_only_are_those_of_a_file_with_only_them(tmp_path):
    image = {"file_name": "a.png", "width": 50, "height": 50}
    truth = {
        "images": [{"id": 1, **image}, {"id": 2, **image}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [5, 5, 20, 20]} for i in (1, 2)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(truth))
    results = [{"image_id": 2, "category_id": 1, "bbox": [5, 5, 20, 20], "score": 0.9}]
    assert compute_coco_metrics(path, results, image_ids=[2]).ap == pytest.approx(100)
    assert compute_coco_metrics(path, results, image_ids=[1]).ap == 0
    with pytest.raises(ValueError, match="has no image with id 3"):
        compute_coco_metrics(path, results, image_ids=[1, 3])
