"""Images in several sizes and flipped, and limits that replace those of a file."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detection.config import InferenceConfig
from detection.data.dataset import load_split
from detection.engine.evaluate import detect_in_dataset
from detection.engine.train import run_training
from detection.engine.tta import AugmentedView, TestTimeAugmentation, group_batches, predict_images
from detection.models.checkpoint import DetectorInfo, load_detector
from detection.models.config import TorchvisionFasterRCNNConfig
from detection.models.detector import Detector
from detection.structures import Detections
from small_detectors import make

INFO = DetectorInfo(TorchvisionFasterRCNNConfig(), ("a", "b", "c"), (1, 2, 3), 64, 128)


class Brightest(Detector):
    """Finds a box around what is bright, with a score that grows with the image."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def losses(self, images, targets):
        raise NotImplementedError

    def predict(self, images):
        detections = []
        for image in images:
            rows, columns = torch.nonzero(image[0] > 0.5, as_tuple=True)
            box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            score = image.shape[-1] / 1000
            detections.append(
                Detections(box[None].float(), torch.tensor([score]), torch.tensor([0]))
            )
        return detections


def bright(height=100, width=150):
    pixels = torch.zeros(3, height, width, dtype=torch.uint8)
    pixels[:, 20:60, 30:60] = 255
    return pixels


def test_one_view_without_flips_is_plain_detection():
    detector = make((TorchvisionFasterRCNNConfig, {})).eval()
    pixels = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    (detections,) = predict_images(
        detector,
        [pixels],
        TestTimeAugmentation.from_config(INFO, InferenceConfig(score_threshold=0)),
    )
    with torch.inference_mode():
        (plain,) = detector.predict([pixels / 255])
    torch.testing.assert_close(detections.boxes, plain.boxes)
    torch.testing.assert_close(detections.scores, plain.scores)


@pytest.mark.parametrize("flipped", [False, True])
def test_boxes_of_every_view_lie_on_the_image_itself(flipped):
    for side in (50, 100, 200):
        tta = TestTimeAugmentation(
            (AugmentedView(side, 400, flipped),), nms_threshold=0.5, max_detections=9
        )
        (detections,) = predict_images(Brightest().eval(), [bright()], tta)
        torch.testing.assert_close(
            detections.boxes, torch.tensor([[30.0, 20, 60, 60]]), atol=2.1, rtol=0
        )


def test_of_overlapping_detections_of_several_views_the_best_is_kept():
    inference = InferenceConfig(
        shortest_sides_px=[50, 100], horizontal_flip=True, score_threshold=0.0
    )
    tta = TestTimeAugmentation.from_config(INFO, inference)
    assert len(tta.views) == 4
    (detections,) = predict_images(Brightest().eval(), [bright()], tta)
    assert len(detections.scores) == 1
    assert detections.scores[0] == pytest.approx(0.15, abs=1e-3)


def test_the_longer_sides_limit_goes_with_the_shorter_side():
    views = TestTimeAugmentation.from_config(
        INFO, InferenceConfig(shortest_sides_px=[32, 96])
    ).views
    assert [(v.shortest_side_px, v.longest_side_px) for v in views] == [(32, 64), (96, 192)]


def test_limits_take_the_place_of_the_files(config, tmp_path):
    path = run_training(config(), tmp_path).path
    pixels = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    detector, info = load_detector(path, inference=InferenceConfig(score_threshold=0.0))
    (detections,) = predict_images(detector, [pixels], TestTimeAugmentation.from_config(info))
    assert len(detections.scores) > 2
    middle = float(detections.scores.mean())
    for inference, right in (
        (InferenceConfig(score_threshold=middle), detections.scores[detections.scores >= middle]),
        (InferenceConfig(score_threshold=0.0, max_detections=2), detections.scores[:2]),
    ):
        detector, info = load_detector(path, inference=inference)
        (limited,) = predict_images(
            detector, [pixels], TestTimeAugmentation.from_config(info, inference)
        )
        torch.testing.assert_close(limited.scores, right)


def test_a_data_set_seen_in_its_own_size_is_seen_as_ever(config, tmp_path):
    settings = config()
    detector, info = load_detector(run_training(settings, tmp_path).path)
    val = load_split(settings.data, "val")
    options = {"category_ids": info.category_ids, "batch_size": 2, "progress": False}
    plain = detect_in_dataset(detector, val, **options)
    seen = detect_in_dataset(detector, val, tta=TestTimeAugmentation.from_config(info), **options)
    assert plain == seen


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 5))
def test_batches_hold_equals_and_everything_comes_once(kinds, batch_size):
    batches = list(group_batches(kinds, batch_size))
    assert sorted(index for batch in batches for index in batch) == list(range(len(kinds)))
    for batch in batches:
        assert len({kinds[index] for index in batch}) == 1
        assert len(batch) <= batch_size
    short = Counter(kinds[batch[0]] for batch in batches if len(batch) < batch_size)
    assert all(count == 1 for count in short.values())
