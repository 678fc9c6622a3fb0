r"""Detect objects in images, videos or a camera's pictures; write them drawn, and JSON.

Writes every image with its boxes drawn as PNG, and predictions.json with boxes, classes and scores;
of a video an .mp4 with boxes and a .jsonl with a line per frame.

python tools/predict.py weights=runs/detector/detector.safetensors \
    images=data/shapes/detection/val
python tools/predict.py weights=runs/detector/detector.safetensors images='photos/*.jpg' \
    score_threshold=0.3 horizontal_flip=true
python tools/predict.py weights=runs/detector/detector.safetensors images=street.mp4 every_nth=5
python tools/predict.py weights=runs/detector/detector.safetensors images=0     # first camera
"""

import sys

import hydra
from omegaconf import DictConfig

from _detection_schemas import Predict
from _entry import start_tool
from _run import plain_errors, start_run


@hydra.main(version_base=None, config_path="../conf", config_name="predict")
def main(config: DictConfig) -> None:
    with plain_errors():
        import torch

        from detection.engine.predict import find_images, predict_images
        from detection.engine.tta import Vision
        from detection.engine.video import FrameChoice, is_video, predict_video
        from detection.models.checkpoint import load_detector

        run = start_run(config)
        settings: Predict = run.settings
        is_images = not is_video(settings.images)
        paths = find_images(settings.images) if is_images else []
        detector, info = load_detector(settings.weights, inference=settings)
        detector.to("cuda" if torch.cuda.is_available() else "cpu")
        vision = Vision.of(info, settings)
        if is_images:
            done = predict_images(
                detector, info, paths, run.out, vision=vision, batch_size=settings.batch_size
            )
            run.finish()
            print(f"{len(paths) - len(done.broken)} images: {done.path}")
            if done.broken:
                sys.exit("\n".join(f"error: {sentence}" for sentence in done.broken))
            return
        lines, count = predict_video(
            detector,
            info,
            settings.images,
            run.out,
            vision=vision,
            choice=FrameChoice(
                every_nth=settings.every_nth,
                most=settings.max_frames,
                batch_size=settings.batch_size,
            ),
        )
        run.finish()
        print(f"{count} frames: {lines.with_suffix('.mp4')}, {lines}")


if __name__ == "__main__":
    start_tool(main, about=__doc__)
