import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from detection.config import InferenceConfig
from detection.engine.predict import find_images, predict_files
from detection.engine.tta import TestTimeAugmentation
from detection.models.checkpoint import DetectorInfo
from detection.models.config import TorchvisionFasterRCNNConfig
from detection.models.detector import Detector
from detection.structures import Detections
from small_detectors import make

INFO = DetectorInfo(TorchvisionFasterRCNNConfig(), ("cat", "dog"), (7, 3), 64, 128)


class LeftHalf(Detector):
    """Finds a dog in the left half of any image, and a doubtful cat."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen = []

    def losses(self, images, targets):
        raise NotImplementedError

    def predict(self, images):
        outputs = []
        for image in images:
            self.seen.append(tuple(image.shape))
            height, width = image.shape[-2:]
            boxes = torch.tensor([[0, 0, width / 2, height], [0, 0, width, height]])
            outputs.append(Detections(boxes, torch.tensor([0.9, 0.3]), torch.tensor([1, 0])))
        return outputs


@pytest.fixture
def detector():
    return LeftHalf().eval()


def picture(path, size=(100, 50), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)
    return path


def predict(detector, paths, out_dir, *, threshold=0.5, **options):
    tta = TestTimeAugmentation.from_config(INFO, InferenceConfig(score_threshold=threshold))
    done = predict_files(detector, INFO, paths, out_dir, tta=tta, progress=False, **options)
    return json.loads(done.path.read_text())


def test_images_are_found_by_name_folder_and_glob(tmp_path):
    b, a = picture(tmp_path / "b.png"), picture(tmp_path / "a.JPG")
    deep = picture(tmp_path / "more" / "c.png")
    (tmp_path / "notes.txt").write_text("no image")
    assert find_images(str(b)) == [b]
    assert find_images(str(tmp_path)) == [a, b]
    assert find_images(f"{tmp_path}/*.png") == [b]
    assert find_images(f"{tmp_path}/**/*.png") == [b, deep]


@pytest.mark.parametrize("pattern", ["missing.png", "*.png", ".", ""])
def test_finding_nothing_is_an_error_that_shows_the_pattern(tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no image at"):
        find_images(pattern)


def test_boxes_are_in_the_pixels_of_the_file(detector, tmp_path):
    path = picture(tmp_path / "a.png", size=(400, 300))
    (record,) = predict(detector, [path], tmp_path / "out")
    assert detector.seen == [(3, 64, 85)]
    assert (record["file"], record["width"], record["height"]) == (str(path), 400, 300)
    (dog,) = record["detections"]
    assert dog["box_xyxy"] == pytest.approx([0, 0, 200, 300], abs=0.01)
    assert dog["score"] == pytest.approx(0.9)
    assert (dog["category_id"], dog["class_name"]) == (3, "dog")


def test_the_threshold_decides_what_is_kept(detector, tmp_path):
    path = picture(tmp_path / "a.png")
    for threshold, count in ((0.0, 2), (0.5, 1), (1.0, 0)):
        (record,) = predict(detector, [path], tmp_path / "out", threshold=threshold)
        assert len(record["detections"]) == count
    with pytest.raises(ValueError, match=r"score_threshold must be between 0 and 1, not 1\.5"):
        InferenceConfig(score_threshold=1.5)


def test_images_of_one_name_get_pictures_of_their_own(detector, tmp_path):
    paths = [picture(tmp_path / name) for name in ("x/a.png", "y/a.png", "a.jpg", "a-2.png")]
    records = predict(detector, paths, tmp_path / "out")
    drawings = [record["drawing"] for record in records]
    assert len(set(drawings)) == 4
    for drawing in drawings:
        with Image.open(tmp_path / "out" / drawing) as drawn:
            assert drawn.size[0] >= 512


@pytest.mark.parametrize("mode", ["L", "CMYK", "I;16", "P", "RGBA"])
def test_images_of_any_mode_are_taken(detector, tmp_path, mode):
    path = picture(tmp_path / "a.tif", mode=mode)
    (record,) = predict(detector, [path], tmp_path / "out")
    assert len(record["detections"]) == 1


def test_a_broken_image_is_named_and_the_others_are_written(detector, tmp_path):
    paths = [picture(tmp_path / f"{name}.png") for name in "abc"]
    paths[1].write_bytes(paths[1].read_bytes()[:-30])
    done = predict_files(detector, INFO, paths, tmp_path / "out", batch_size=2, progress=False)
    first, broken, last = json.loads(done.path.read_text())
    assert len(done.broken) == 1
    assert "cannot read image" in broken["error"]
    assert broken["file"] == str(paths[1])
    assert (first["drawing"], last["drawing"]) == ("a.png", "c.png")


def test_what_is_found_does_not_depend_on_the_batch(tmp_path):
    detector = make((TorchvisionFasterRCNNConfig, {}), num_classes=2).eval()
    random = np.random.default_rng(0)
    paths = []
    for number in range(5):
        side = (64, 64) if number % 2 else (96, 64)
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(random.integers(0, 255, (*side, 3), dtype=np.uint8)).save(paths[-1])
    one, three = (
        predict(detector, paths, tmp_path / str(size), threshold=0.0, batch_size=size)
        for size in (1, 3)
    )
    for mine, theirs in zip(one, three, strict=True):
        assert mine["file"] == theirs["file"]
        for box, other in zip(mine["detections"], theirs["detections"], strict=True):
            assert box["score"] == pytest.approx(other["score"], abs=1e-4)
            assert box["box_xyxy"] == pytest.approx(other["box_xyxy"], abs=0.05)
