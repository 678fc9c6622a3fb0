r"""Detect objects in images, videos or a camera's frames; write drawings and JSON.

For images, writes each one with its boxes drawn as PNG, and predictions.json with boxes, classes
and scores; for a video, an .mp4 with boxes and a .jsonl with one line per frame.

nasdet predict weights=runs/detector/detector.safetensors \
    images=data/shapes/detection/val
nasdet predict weights=runs/detector/detector.safetensors images='photos/*.jpg' \
    score_threshold=0.3 horizontal_flip=true
nasdet predict weights=runs/detector/detector.safetensors images=street.mp4 every_nth=5
nasdet predict weights=runs/detector/detector.safetensors images=0     # first camera
"""

from __future__ import annotations

from dataclasses import dataclass

from _cli import Run, fail, tool
from _output import print_line
from backbone.config import require_at_least
from detection.config import InferenceConfig


@dataclass(kw_only=True, slots=True)
class Args(InferenceConfig):
    """Settings of ``predict``."""

    out: str
    """The folder for the drawings and ``predictions.json``."""
    weights: str
    """A ``detector.safetensors``."""
    images: str
    """An image, a folder of images, a glob in quotes, a video file, or the number of a camera."""
    score_threshold: float | None = 0.5
    """Minimum score of a detection to be drawn and written, 0 to 1."""
    batch_size: int = 1
    """Images per batch; only images of equal size are batched."""
    every_nth: int = 1
    """Process every N-th frame of a video."""
    max_frames: int = 0
    """Stop after so many processed frames of a video; 0: at its end."""

    def __post_init__(self) -> None:
        InferenceConfig.__post_init__(self)  # a slots dataclass has no working super()
        for name, least in (("batch_size", 1), ("every_nth", 1), ("max_frames", 0)):
            require_at_least(least, **{name: getattr(self, name)})


@tool(Args)
def main(run: Run[Args]) -> None:
    import torch

    from detection.engine.predict import find_images, predict_files
    from detection.engine.tta import TestTimeAugmentation
    from detection.engine.video import FrameSelection, is_video, predict_video
    from detection.models.checkpoint import load_detector

    args = run.args
    is_images = not is_video(args.images)
    paths = find_images(args.images) if is_images else []
    detector, info = load_detector(args.weights, inference=args)
    detector.to("cuda" if torch.cuda.is_available() else "cpu")
    tta = TestTimeAugmentation.from_config(info, args)
    if is_images:
        done = predict_files(detector, info, paths, run.out, tta=tta, batch_size=args.batch_size)
        run.finish()
        num_images = len(paths) - len(done.broken)
        run.report(images=num_images, objects=done.num_objects, predictions=done.path)
        print_line(f"{num_images} images, {done.num_objects} objects", done.path)
        if num_images and not done.num_objects and args.score_threshold:
            hint = f"none scored {args.score_threshold:g} or more; lower score_threshold"
            print_line("no objects", hint)
        if done.broken:
            fail(done.broken)
        return
    lines, count = predict_video(
        detector,
        info,
        args.images,
        run.out,
        tta=tta,
        selection=FrameSelection(
            every_nth=args.every_nth,
            max_frames=args.max_frames,
            batch_size=args.batch_size,
        ),
    )
    run.finish()
    video = lines.with_suffix(".mp4")
    run.report(frames=count, predictions=lines, video=video)
    print_line(f"{count} frames", f"{video}, {lines}")


if __name__ == "__main__":
    main()
