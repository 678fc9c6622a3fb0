r"""Detect objects in images; write drawn images and JSON.

Writes every image with its boxes drawn as PNG, and predictions.json with boxes, classes and scores.

python tools/predict.py weights=runs/detector/detector.safetensors \
    images=data/shapes/detection/val
python tools/predict.py weights=runs/detector/detector.safetensors images='photos/*.jpg' \
    score_threshold=0.3
"""

import hydra
from omegaconf import DictConfig

from _entry import start_tool
from _run import plain_errors, start_run


@hydra.main(version_base=None, config_path="../conf", config_name="predict")
def main(config: DictConfig) -> None:
    with plain_errors():
        from detection.predict import find_images, predict_images
        from detection.weights import load_detector

        run = start_run(config)
        settings = run.settings
        paths = find_images(settings.images)
        detector, info = load_detector(settings.weights)
        written = predict_images(
            detector, info, paths, run.out, score_threshold=settings.score_threshold
        )
        run.finish()
        print(f"{len(paths)} images: {written}")


if __name__ == "__main__":
    start_tool(main, about=__doc__)
