"""The same training in detectron2's own loop and in ours gives the same losses."""

import json

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image

from _reference_detector import reference_steps
from detection.config import DetectionDataConfig, DetectorRecipe
from detection.engine.config import TrainDetectorConfig
from detection.engine.train import run_training
from detection.models.config import Detectron2FasterRCNNConfig, TorchvisionFasterRCNNConfig
from small_detectors import C4, SMALL

STEPS = 20
SIZES = [(64, 96), (64, 64), (80, 64)]  # height and width; the shorter side is as the recipe asks


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """Bright squares of two colors on noise; one image is a crowd's in part, one is empty."""
    root = tmp_path_factory.mktemp("coco")
    random = np.random.default_rng(0)
    for split, count in (("train", 9), ("val", 1)):
        (root / split).mkdir()
        images, annotations = [], []
        for number in range(1, count + 1):
            height, width = SIZES[number % 3]
            pixels = random.integers(0, 80, (height, width, 3), dtype=np.uint8)
            for _ in range(0 if number == 2 else 3):
                x, y = int(random.integers(0, width - 24)), int(random.integers(0, height - 24))
                channel = int(random.integers(2))
                pixels[y : y + 20, x : x + 24, channel] = 255
                annotations.append(
                    {
                        "id": len(annotations) + 1, "image_id": number,
                        "category_id": (3, 7)[channel], "bbox": [x, y, 24, 20], "area": 480,
                        "iscrowd": int(number == 3 and len(annotations) % 3 == 0),
                    }
                )  # fmt: skip
            Image.fromarray(pixels).save(root / split / f"{number}.png")
            images.append(
                {"id": number, "file_name": f"{number}.png", "width": width, "height": height}
            )
        categories = [{"id": 3, "name": "red"}, {"id": 7, "name": "green"}]
        text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
        (root / f"{split}.json").write_text(text)
    return root


def settings(data_root, detector, **changes):
    return TrainDetectorConfig(
        backbone="nasnet_a:1@96",
        detector=detector,
        data=DetectionDataConfig(
            root=str(data_root), train_annotations="train.json", train_images="train",
            val_annotations="val.json", val_images="val", shortest_side_px=64, longest_side_px=96,
        ),
        recipe=DetectorRecipe(
            iterations=STEPS, batch_size=2, optimizer="sgd", learning_rate=0.01,
            schedule="multistep", lr_milestones=[12, 16], warmup_iterations=4, gradient_clip=0.0,
            horizontal_flip=False, checkpoint_every=100,
        ),
        accelerator="cpu",
        **changes,
    )  # fmt: skip


class Recorder(Callback):
    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.losses.append(outputs["loss"].item())


@pytest.mark.detectron2
@pytest.mark.filterwarnings("ignore:torch.meshgrid. in an upcoming release:UserWarning")
@pytest.mark.parametrize(
    "options",
    [{}, C4 | {"frozen_stages": 2, "roi_batch_size_per_image": 8}],
    ids=["fpn", "none, frozen"],
)
def test_twenty_losses_of_detectron2_s_loop_and_ours_are_the_same(options, data_root, tmp_path):
    pytest.importorskip("detection.models.detectron2.parts")
    config = settings(data_root, Detectron2FasterRCNNConfig(**SMALL | options))
    recorder = Recorder()
    run_training(config, tmp_path, callbacks=[recorder])
    theirs = list(reference_steps(config, memory_format=torch.channels_last))
    assert len(theirs) == len(recorder.losses) == STEPS
    assert np.ptp(theirs) > 0.1
    torch.testing.assert_close(
        torch.tensor(recorder.losses), torch.tensor(theirs), rtol=1e-5, atol=1e-5
    )


def test_torchvision_s_loop_starts_with_our_losses(data_root, tmp_path):
    # Its scripts decay normalization too and warm up in another way, so that later ones differ.
    config = settings(data_root, TorchvisionFasterRCNNConfig(**SMALL))
    config.recipe.iterations = 5
    recorder = Recorder()
    run_training(config, tmp_path, callbacks=[recorder])
    theirs = list(reference_steps(config, memory_format=torch.channels_last))
    assert theirs[0] == pytest.approx(recorder.losses[0], abs=1e-5)
    assert theirs[-1] == pytest.approx(recorder.losses[-1], rel=0.2)
