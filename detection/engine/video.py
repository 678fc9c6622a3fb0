"""Detect in the frames of a video file or of a camera."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from backbone.io.files import replacing
from detection.engine.predict import detection_records
from detection.engine.tta import Vision, detect_in_pixels
from detection.engine.visualize import draw_detections
from detection.models.checkpoint import DetectorInfo
from detection.models.detector import Detector
from detection.structures import Detections

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
FALLBACK_RATE = 25.0
"""Frames per second of a video that does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameChoice:
    """Which frames are looked at."""

    every_nth: int = 1
    """Only every so manieth frame."""
    most: int = 0
    """End after so many of these; 0: with the video."""
    batch_size: int = 1
    """Frames at a time."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a video."""

    number: int
    """Of the frame, from 0."""
    seconds: float
    """Since the video's start."""
    pixels: Tensor
    """(3, H, W) uint8."""


def is_video(name: str) -> bool:
    """Say whether a name is that of a video file, or the number of a camera."""
    path = Path(name)
    return path.suffix.lower() in VIDEO_SUFFIXES or (name.isdecimal() and not path.exists())


def predict_video(
    detector: Detector,
    info: DetectorInfo,
    name: str,
    out_dir: Path,
    *,
    vision: Vision,
    choice: FrameChoice | None = None,
    progress: bool = True,
) -> tuple[Path, int]:
    """Detect in a video; write it with boxes drawn, and a line of JSON per frame.

    Interrupted by the keyboard it ends as if the video did, so a camera is stopped that way.

    Args:
        detector: in evaluation mode.
        info: its classes.
        name: a file, or the number of a camera.
        out_dir: ``<name>.mp4`` and ``<name>.jsonl`` are written into it; a line has ``frame``,
            ``seconds`` and ``detections`` as ``predict_images`` writes them.
        vision: how frames are looked at.
        choice: which frames are looked at and written; None: all.
        progress: whether to show a bar.

    Returns:
        The path of the lines, and how many there are.

    Raises:
        ImportError: if OpenCV is not installed.
        ValueError: if there is no such video or camera, or it has no frame.
    """
    choice = choice or FrameChoice()
    stem = f"camera{name}" if name.isdecimal() else Path(name).stem
    lines, count = out_dir / f"{stem}.jsonl", 0
    with (
        _opened(name) as capture,
        tqdm(
            total=choice.most or _length(capture, choice.every_nth), desc="predicting",
            unit="frame", disable=not progress,
        ) as bar,
        replacing(lines) as temporary,
        temporary.open("w", encoding="utf-8") as file,
        _Writer(out_dir / f"{stem}.mp4", _rate(capture) / choice.every_nth) as writer,
    ):  # fmt: skip
        try:
            for frames in _batches(capture, choice):
                found = detect_in_pixels(detector, [frame.pixels for frame in frames], vision)
                for frame, detections in zip(frames, found, strict=True):
                    file.write(json.dumps(_line(frame, detections, info)) + "\n")
                    writer.write(frame, detections, info)
                count += len(frames)
                bar.update(len(frames))
        except KeyboardInterrupt:
            logger.warning("stopped after %d frames", count)
        if count == 0:
            raise ValueError(f"{name} has no frame that can be read")
    return lines, count


@contextmanager
def _opened(name: str) -> Iterator[Any]:
    try:
        import cv2
    except ImportError:
        raise ImportError(
            "videos and cameras need OpenCV; install it with: pip install opencv-python-headless"
        ) from None
    if not name.isdecimal() and not Path(name).is_file():
        raise ValueError(f"video {name} does not exist")
    # It prints its own complaints about what cannot be opened.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(int(name) if name.isdecimal() else name)
    try:
        if not capture.isOpened():
            kind = "camera" if name.isdecimal() else "video"
            raise ValueError(f"{kind} {name} cannot be opened")
        yield capture
    finally:
        capture.release()


def _length(capture: Any, every_nth: int) -> int | None:
    import cv2

    frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return -(-frames // every_nth) if frames > 0 else None


def _rate(capture: Any) -> float:
    import cv2

    rate = float(capture.get(cv2.CAP_PROP_FPS))
    return rate if np.isfinite(rate) and rate > 0 else FALLBACK_RATE


def _batches(capture: Any, choice: FrameChoice) -> Iterator[Sequence[Frame]]:
    rate, batch, taken = _rate(capture), [], 0
    number = -1
    while not choice.most or taken < choice.most:
        number += 1
        if number % choice.every_nth:
            if not capture.grab():
                _warn_if_cut_off(capture, number)
                break
            continue
        there, pixels = capture.read()
        if not there:
            _warn_if_cut_off(capture, number)
            break
        rgb = torch.from_numpy(np.ascontiguousarray(pixels[:, :, ::-1])).permute(2, 0, 1)
        batch.append(Frame(number, number / rate, rgb))
        taken += 1
        if len(batch) == choice.batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _warn_if_cut_off(capture: Any, frames: int) -> None:
    """Say so if a video that ended has fewer frames than it announces; a camera announces none."""
    told = _length(capture, 1)
    if told is not None and 0 < frames < told:
        logger.warning("only %d of %d frames could be read; the video may be cut off", frames, told)


def _line(frame: Frame, found: Detections, info: DetectorInfo) -> dict[str, Any]:
    return {
        "frame": frame.number,
        "seconds": round(frame.seconds, 3),
        "detections": detection_records(found, info),
    }


class _Writer:
    """Writes drawn frames into a video, whole or not at all; its size is the first frame's."""

    def __init__(self, path: Path, rate: float) -> None:
        self._path, self._rate = path, rate
        self._temporary = path.with_name(f".{path.stem}-part{path.suffix}")
        self._video: Any = None

    def write(self, frame: Frame, found: Detections, info: DetectorInfo) -> None:
        import cv2

        drawing = draw_detections(
            frame.pixels, found.boxes, found.labels, found.scores, info.class_names
        )
        if self._video is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._video = cv2.VideoWriter(str(self._temporary), code, self._rate, drawing.size)
        self._video.write(np.ascontiguousarray(np.asarray(drawing)[:, :, ::-1]))

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._video is None:
            return
        self._video.release()
        if kind is None:
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink(missing_ok=True)
