"""The Python API of detection."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from detection import (
    DetectionDataConfig,
    DetectorRecipe,
    InferenceConfig,
    Predictor,
    compare_backbones,
    evaluate,
    sized_detector,
    train_detector,
)
from detection.engine.predict import predict_files

SMOKE = DetectorRecipe.preset("smoke")


@pytest.fixture(scope="module")
def data(data_root):
    return DetectionDataConfig(
        root=str(data_root),
        train_annotations="train.json",
        train_images="train",
        val_annotations="val.json",
        val_images="val",
        shortest_side_px=64,
        longest_side_px=64,
    )


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("api")
    config = sized_detector("torchvision", "small", score_threshold=0.0, max_detections=7)
    return train_detector("nasnet_a:1@96", data, out=out, detector=config, recipe=SMOKE)


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor.load(trained.path)


def test_a_training_by_names_is_that_of_the_configs(data, trained, tmp_path):
    by_name = train_detector("nasnet_a:1@96", data, out=tmp_path, size="small", recipe="smoke")
    assert not by_name.skipped
    again = train_detector("nasnet_a:1@96", data, out=tmp_path, size="small", recipe=SMOKE)
    assert again.skipped
    assert again.metrics == by_name.metrics
    for wrong in ({"size": "tiny"}, {"recipe": "fast"}, {"detector": "yolo"}):
        with pytest.raises(ValueError, match=r"there is no .*; choose from"):
            train_detector("nasnet_a:1@96", data, out=tmp_path, **wrong)


def test_a_prediction_is_numpy_arrays_in_pixels_of_the_image(predictor, data_root):
    detections = predictor(data_root / "val" / "1.png")
    count = len(detections)
    assert 0 < count <= 7
    assert (detections.boxes.shape, detections.boxes.dtype) == ((count, 4), np.float32)
    assert (detections.scores.shape, detections.scores.dtype) == ((count,), np.float32)
    assert np.all(np.diff(detections.scores) <= 0)
    assert set(detections.names) <= {"red", "green"}
    names = dict(zip((3, 7), ("red", "green"), strict=True))
    assert [names[c] for c in detections.category_ids] == list(detections.names)
    assert [predictor.class_names[c] for c in detections.class_ids] == list(detections.names)
    assert type(detections.boxes) is type(detections.names) is np.ndarray
    assert json.loads(json.dumps(detections.to_dicts()))[0]["class_name"] == detections.names[0]


def test_every_kind_of_image_gives_the_same_detections(predictor, data_root):
    path = data_root / "val" / "1.png"
    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
        kinds = [str(path), path, image.copy(), pixels]
    kinds.append(torch.from_numpy(pixels).permute(2, 0, 1))
    first, *others = (predictor(kind) for kind in kinds)
    for other in others:
        np.testing.assert_array_equal(first.boxes, other.boxes)
        np.testing.assert_array_equal(first.scores, other.scores)
    gray = np.random.default_rng(0).integers(0, 255, (40, 70), dtype=np.uint8)
    np.testing.assert_array_equal(
        predictor(gray).boxes, predictor(np.repeat(gray[..., None], 3, axis=2)).boxes
    )


def test_batches_of_equal_images_give_the_detections_of_each(predictor, data_root):
    paths = sorted((data_root / "val").glob("*.png"))
    images = [*paths, np.zeros((30, 50, 3), np.uint8)]
    batched = predictor.predict(images, batch_size=3)
    assert len(batched) == len(images)
    for image, detections in zip(images, batched, strict=True):
        np.testing.assert_allclose(detections.scores, predictor(image).scores, atol=1e-5)


def test_the_predictor_detects_as_the_command_does(trained, predictor, data_root, tmp_path):
    path = data_root / "val" / "3.png"
    done = predict_files(predictor.detector, predictor.info, [path], tmp_path, progress=False)
    (record,) = json.loads(done.path.read_text())
    boxes = [detection["box_xyxy"] for detection in record["detections"]]
    np.testing.assert_allclose(predictor(path).boxes, boxes, atol=1e-3)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (
            np.zeros((3, 40, 40), np.uint8),
            ValueError,
            r"\(H, W, 3\) or \(H, W\) uint8, not \(3, 40",
        ),
        (np.zeros((40, 40, 3)), ValueError, "uint8, not .* float64"),
        (torch.zeros(40, 40, 3), ValueError, r"\(3, H, W\) uint8, not \(40, 40, 3\) float32"),
        (7, TypeError, "must be a path, a PIL image, an array or a tensor, not int"),
        ("missing.png", FileNotFoundError, "missing.png"),
    ],
)
def test_what_is_no_image_is_refused(predictor, image, error, message):
    with pytest.raises(error, match=message):
        predictor(image)


def test_a_single_image_is_not_taken_for_a_list(predictor, data_root):
    with pytest.raises(TypeError, match="images must be a list of images"):
        predictor.predict(str(data_root / "val"))
    with pytest.raises(TypeError, match="predict takes several images"):
        predictor([data_root / "val" / "1.png"])


def test_settings_of_inference_are_those_of_load(trained, predictor, data_root):
    path = data_root / "val" / "1.png"
    threshold = float(np.median(predictor(path).scores))
    strict = Predictor.load(trained.path, score_threshold=threshold, max_detections=2)(path)
    assert len(strict) <= 2
    assert strict.scores.min() >= threshold
    with pytest.raises(ValueError, match="score_threshold must be between 0 and 1"):
        Predictor.load(trained.path, score_threshold=2)
    with pytest.raises(ValueError, match="unknown device 'tpu9'"):
        Predictor.load(trained.path, device="tpu9")


def test_detections_are_drawn(predictor, data_root):
    path = data_root / "val" / "1.png"
    picture = predictor.draw(path, predictor(path))
    assert min(picture.size) >= 512
    with Image.open(path) as image:
        plain = image.convert("RGB").resize(picture.size, Image.Resampling.BICUBIC)
    assert np.any(np.asarray(picture) != np.asarray(plain))


def test_detections_convert_to_supervision(predictor, data_root):
    supervision = pytest.importorskip("supervision")
    detections = predictor(data_root / "val" / "1.png")
    converted = detections.to_supervision()
    assert isinstance(converted, supervision.Detections)
    np.testing.assert_array_equal(converted.xyxy, detections.boxes)
    np.testing.assert_array_equal(converted.confidence, detections.scores)
    assert list(converted.data["class_name"]) == list(detections.names)
    assert len(converted[converted.confidence > converted.confidence.min()]) < len(detections)


def test_without_supervision_the_conversion_names_what_to_install(
    predictor, data_root, monkeypatch
):
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        predictor(data_root / "val" / "1.png").to_supervision()


def test_an_evaluation_of_a_detector_and_of_its_results_are_that_of_the_training(
    trained, data_root, tmp_path
):
    truth, images = data_root / "val.json", data_root / "val"
    of_detector = evaluate(trained.path, truth, images)
    of_results = evaluate(trained.path.parent / "results.json", truth)
    assert of_detector.to_dict() == of_results.to_dict() == trained.metrics.to_dict()
    written = evaluate(trained.path, truth, images, out=tmp_path, backend="pycocotools")
    assert json.loads((tmp_path / "metrics.json").read_text())["ap"] == pytest.approx(written.ap)
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "results.json").is_file()
    limited = evaluate(trained.path, truth, images, inference=InferenceConfig(max_detections=1))
    assert limited.ar_10 == pytest.approx(limited.ar_1)
    with pytest.raises(ValueError, match="give images, the folder of the images"):
        evaluate(trained.path, truth)


def test_results_of_any_program_are_evaluated(data_root, tmp_path):
    truth = json.loads((data_root / "val.json").read_text())
    objects = [a for a in truth["annotations"] if not a["iscrowd"]]
    kept = [
        {key: a[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for a in objects[: len(objects) // 2]
    ]
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(kept))
    metrics = evaluate(path, data_root / "val.json")
    assert 0 < metrics.ap < 100
    reference = evaluate(path, data_root / "val.json", backend="pycocotools")
    assert metrics.to_dict() == reference.to_dict()


def test_a_comparison_trains_each_backbone_once(data, tmp_path):
    arguments = {"out": tmp_path, "size": "small", "recipe": "smoke"}
    specs = ["nasnet_a:1@96", "timm:lcnet_035"]
    results = compare_backbones(specs, data, **arguments)
    assert [result.name for result in results] == specs
    assert results[0].mult_adds != results[1].mult_adds
    assert (tmp_path / "report.html").is_file()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.safetensors")}
    assert len(before) == 2
    compare_backbones(specs, data, **arguments)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/*.safetensors")} == before
    with pytest.raises(ValueError, match="backbones needs at least one spec"):
        compare_backbones([], data, **arguments)
