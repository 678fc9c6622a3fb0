import json

import numpy as np
import pytest
from PIL import Image

from detection.config import DetectionDataConfig, DetectorRecipe
from detection.engine.config import TrainDetectorConfig
from detection.models.config import TorchvisionFasterRCNNConfig

SIDE = 64


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    """Bright squares on noise, two categories by color, a crowd, and an image without objects."""
    root = tmp_path_factory.mktemp("coco")
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 4)):
        (root / split).mkdir()
        images, annotations = [], []
        for number in range(1, count + 1):
            pixels = rng.integers(0, 80, (SIDE, SIDE, 3), dtype=np.uint8)
            for _ in range(0 if number == 2 else 2):
                x, y = (int(v) for v in rng.integers(0, SIDE - 24, 2))
                channel = int(rng.integers(2))
                pixels[y : y + 20, x : x + 20, channel] = 255
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": (3, 7)[channel],
                        "bbox": [x, y, 20, 20],
                        "area": 400,
                        "iscrowd": int(number == 3 and len(annotations) % 2),
                    }
                )
            Image.fromarray(pixels).save(root / split / f"{number}.png")
            images.append(
                {"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE}
            )
        categories = [{"id": 3, "name": "red"}, {"id": 7, "name": "green"}]
        text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
        (root / f"{split}.json").write_text(text)
    return root


@pytest.fixture(scope="session")
def config(data_root):
    """Make configs of a short training, with changes."""

    def make(**changes):
        return TrainDetectorConfig(**(_settings(data_root) | changes))

    return make


def _settings(data_root):
    return {
        "backbone": "nasnet_a:1@96",
        "detector": TorchvisionFasterRCNNConfig(
            anchor_sizes=[8, 16, 32, 64],
            fpn_channels=8,
            box_head_dim=16,
            rpn_post_nms_top_n_train=20,
            rpn_post_nms_top_n_test=20,
            roi_batch_size_per_image=16,
        ),
        "data": DetectionDataConfig(
            root=str(data_root),
            train_annotations="train.json",
            train_images="train",
            val_annotations="val.json",
            val_images="val",
            shortest_side_px=SIDE,
            longest_side_px=SIDE,
        ),
        "recipe": DetectorRecipe(
            iterations=6,
            batch_size=2,
            optimizer="adamw",
            learning_rate=1e-3,
            warmup_iterations=1,
            checkpoint_every=2,
        ),
        "accelerator": "cpu",
    }
