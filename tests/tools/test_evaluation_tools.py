"""The tools around evaluation as a user runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import benchmark_evaluation
import evaluate_detector
from backbone.models.backbone import LEVELS, build_backbone
from benchmark_evaluation import (
    REFERENCE,
    make_files,
    run_hotcoco,
    run_pycocotools_as_documented,
    table,
)
from detection.data.coco import CocoTable
from detection.engine.evaluate import detect_with_file, load_results_file, save_results_file
from detection.evaluation.files import StoredEvaluation
from detection.evaluation.report import ReportOptions
from detection.models.build import build_detector
from detection.models.checkpoint import DetectorInfo, save_detector
from detection.models.config import TorchvisionFasterRCNNConfig

ROOT = Path(__file__).parents[2]
SIDE = 64


def run(tool, *arguments, check=True, launcher=(sys.executable,)):
    done = subprocess.run(
        [*launcher, str(ROOT / "tools" / f"{tool}.py"), *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Five images of noise, their truth, and a detector that has learned nothing."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in (30, 4, 11, 7, 25):  # not in the order of the ids
        pixels = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
        for label in (1, 2):
            box = [*rng.integers(0, 30, 2).tolist(), *rng.integers(10, 30, 2).tolist()]
            row = {"id": len(annotations), "image_id": number, "category_id": label, "bbox": box}
            annotations.append(row)
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    (root / "truth.json").write_text(json.dumps(truth))
    config = TorchvisionFasterRCNNConfig(
        anchor_sizes=[8, 16, 32, 64], fpn_channels=8, box_head_dim=16,
        rpn_post_nms_top_n_train=20, rpn_post_nms_top_n_test=20,
        roi_batch_size_per_image=16, score_threshold=0,
    )  # fmt: skip
    torch.manual_seed(0)
    detector = build_detector(
        build_backbone("nasnet_a:1@96", out=LEVELS), num_classes=2, config=config
    )
    info = DetectorInfo(config, ("cat", "dog"), (1, 2), SIDE, SIDE)
    save_detector(
        root / "detector.safetensors", detector, info,
        provenance={}, training_seconds=0.0, evaluations={},
    )  # fmt: skip
    return root


@pytest.mark.slow
@pytest.mark.ci
def test_two_processes_find_and_score_what_one_does(data, tmp_path):
    weights, annotations = data / "detector.safetensors", CocoTable.load(data / "truth.json")
    results = detect_with_file(weights, annotations, data, batch_size=2)
    assert len(results) > 20
    (tmp_path / "one").mkdir()
    scored = save_results_file(weights, results, annotations, data, tmp_path / "one")
    scored.report(tmp_path / "one", ReportOptions(plots=False))
    done = run(
        "evaluate_detector",
        f"weights={weights}",
        f"images={data}",
        f"annotations={data}/truth.json",
        "batch_size=2",
        "plots=false",
        f"out={tmp_path}/two",
        launcher=(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
    )
    assert done.stdout.count("AP50 gained by fixing") == 1  # one process speaks

    def read(way, name):
        return json.loads((tmp_path / way / name).read_text())

    one, two = read("one", "metrics.json"), read("two", "metrics.json")
    assert two == one
    assert read("two", "error_kinds.json") == read("one", "error_kinds.json")
    key = ("image_id", "category_id", "score", "bbox")
    rows = [[[row[k] for k in key] for row in read(way, "results.json")] for way in ("one", "two")]
    assert sorted(rows[0]) == sorted(rows[1])


@pytest.mark.slow
@pytest.mark.ci
def test_results_are_scored_and_two_scores_explained(data, tmp_path):
    truth = json.loads((data / "truth.json").read_text())
    found = [
        {k: row[k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for row in truth["annotations"]
    ]
    for name, rows in (("all", found), ("few", found[:4])):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    done = run(
        "evaluate_detector", f"results={tmp_path}/all.json", f"annotations={data}/truth.json",
        f"out={tmp_path}/all", "backend=pycocotools",
    )  # fmt: skip
    assert "AP 100.0" in done.stdout
    assert "dog       100.0  100.0" in done.stdout
    assert not done.stderr
    # What a detector found here before would be taken for what these figures are of.
    (tmp_path / "few" / "results.json").parent.mkdir()
    (tmp_path / "few" / "results.json").write_text("[]")
    run(
        "evaluate_detector", f"results={tmp_path}/few.json", f"annotations={data}/truth.json",
        f"out={tmp_path}/few",
    )  # fmt: skip
    assert not (tmp_path / "few" / "results.json").exists()
    for name in ("metrics.json", "error_kinds.json", "report.html", "confusion.png"):
        assert (tmp_path / "all" / name).is_file()
    done = run(
        "explain_evaluation", f"{tmp_path}/all", f"{tmp_path}/few/metrics.json",
        f"out={tmp_path}/explained",
    )  # fmt: skip
    (backends,) = (line for line in done.stdout.splitlines() if line.startswith("backend"))
    assert backends.split() == ["backend", "pycocotools", "hotcoco"]
    explained = json.loads((tmp_path / "explained" / "explanation.json").read_text())
    assert explained["same_question"]
    assert explained["images"][0]["missed"] == [0, 2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]], "10 of 10 boxes"),
        (lambda box: box, ""),
    ],
)
def test_corners_and_percents_are_pointed_at(data, tmp_path, caplog, change, words):
    rows = json.loads((data / "truth.json").read_text())["annotations"]
    path = tmp_path / "results.json"
    found = [
        {
            "image_id": row["image_id"], "category_id": 1, "score": 87 if words else 1,
            "bbox": change([SIDE / 2, SIDE / 2, 30, 30]),
        }
        for row in rows
    ]  # fmt: skip
    path.write_text(json.dumps(found))
    assert len(load_results_file(path, CocoTable.load(data / "truth.json")).detections) == 10
    assert words in caplog.text
    assert ("are up to 87" in caplog.text) == bool(words)


def test_localization_is_written_and_is_no_evaluation_of_detections(data, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(
        json.dumps([{"image_id": 4, "category_id": 1, "bbox": [60, 60, 2, 2], "score": 1}])
    )
    scored = load_results_file(path, CocoTable.load(data / "truth.json"))
    assert scored.localize(tmp_path, ReportOptions()).num_images == 5
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["task"] == "localization"
    assert written["top1"] == 0
    assert written["top1_class"] == 20
    with pytest.raises(ValueError, match="not a file of an evaluation of detections"):
        StoredEvaluation.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backend": "fast"}, "unknown backend 'fast'; choose from"),
        ({"task": "counting"}, "unknown task 'counting'; choose from"),
        ({"score_threshold": 2.0}, "score_threshold must lie in 0 to 1, not 2"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"results": ""}, "give either weights"),
        ({"weights": "w"}, "give either weights"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        evaluate_detector.Args(**({"out": "x", "annotations": "y", "results": "z"} | change))


def data_of(**settings):
    return tuple(map(str, evaluate_detector.find_data(evaluate_detector.Args(out="x", **settings))))


def test_the_data_of_an_evaluation_are_those_given_or_those_of_the_training(tmp_path):
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    weights, results = f"{run_folder}/detector.safetensors", f"{run_folder}/results.json"
    given = {"annotations": "truth.json", "images": "pictures"}
    assert data_of(weights=weights, **given) == ("truth.json", "pictures")
    assert data_of(results=results, annotations="truth.json")[0] == "truth.json"
    with pytest.raises(ValueError, match=r"give images=\.\.\. annotations=\.\.\."):
        data_of(weights=weights)
    with pytest.raises(ValueError, match=r"give annotations=\.\.\., the ground truth"):
        data_of(results=results)

    data = {"root": "/data/mine", "val_annotations": "annotations/v.json", "val_images": "v"}
    config = {"data": data, "backbone": "timm:resnet18"}
    (run_folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    expected = ("/data/mine/annotations/v.json", "/data/mine/v")
    assert data_of(weights=weights) == data_of(results=results) == expected
    other = {"weights": weights, "annotations": "truth.json"}
    assert data_of(**other) == ("truth.json", "/data/mine/v")

    with pytest.raises(ValueError, match=r"give annotations=\.\.\., the ground truth"):
        data_of(weights=weights, images=f"{tmp_path}/val")  # not the images of the training
    beside = tmp_path / "annotations" / "instances_val.json"
    beside.parent.mkdir()
    beside.write_text("{}")
    assert data_of(weights=weights, images=f"{tmp_path}/val") == (str(beside), f"{tmp_path}/val")


def test_the_entries_of_the_benchmark_give_the_same_metrics(tmp_path):
    settings = benchmark_evaluation.Args(
        out="", num_images=12, num_categories=4, detections_per_image=30, seed=3
    )
    truth, results = make_files(settings, tmp_path)
    assert len(json.loads(results.read_text())) == 12 * 30
    measured = {"nasdet": run_hotcoco(truth, results)}
    measured[REFERENCE] = run_pycocotools_as_documented(truth, results)
    assert measured["nasdet"]["metrics"] == pytest.approx(measured[REFERENCE]["metrics"], abs=1e-6)
    assert measured["nasdet"]["metrics"][0] > 1
    head, rows = table(measured)
    assert {len(row) for row in rows} == {len(head)}
    assert rows[1][2] == "1.0"
