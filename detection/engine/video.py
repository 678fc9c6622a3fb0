"""Detect objects in the frames of a video file or a camera."""

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

from backbone.io.files import replacing
from backbone.io.progress import progress_bar
from detection.engine.predict import detection_records
from detection.engine.tta import TestTimeAugmentation, predict_images
from detection.engine.visualize import draw_detections
from detection.models.checkpoint import DetectorInfo
from detection.models.detector import Detector
from detection.structures import Detections

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
FALLBACK_RATE = 25.0
"""Frame rate that is assumed if a video does not declare one, in frames per second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSelection:
    """Selection of frames to process."""

    every_nth: int = 1
    """Process every N-th frame."""
    max_frames: int = 0
    """Maximum number of processed frames; 0: all."""
    batch_size: int = 1
    """Frames per batch."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a video."""

    number: int
    """Index in the video, from 0."""
    seconds: float
    """Time since the start of the video."""
    pixels: Tensor
    """(3, H, W) uint8."""


def is_video(name: str) -> bool:
    """Whether a name is that of a video file, or the number of a camera."""
    path = Path(name)
    return path.suffix.lower() in VIDEO_SUFFIXES or (name.isdecimal() and not path.exists())


def predict_video(
    detector: Detector,
    info: DetectorInfo,
    name: str,
    out_dir: Path,
    *,
    tta: TestTimeAugmentation,
    selection: FrameSelection | None = None,
    progress: bool = True,
) -> tuple[Path, int]:
    """Detect objects in a video; write it with boxes drawn, and one line of JSON per frame.

    A keyboard interrupt ends it like the end of the video; this is how to stop a camera.

    Args:
        detector: in evaluation mode.
        info: its classes.
        name: a video file, or the number of a camera.
        out_dir: ``<name>.mp4`` and ``<name>.jsonl`` are written into it; a line has ``frame``,
            ``seconds`` and ``detections`` as ``predict_files`` writes them.
        tta: views of each frame.
        selection: frames to process and write; None: all.
        progress: whether to show a progress bar.

    Returns:
        The path of the JSON lines, and their number.

    Raises:
        ImportError: if OpenCV is not installed.
        ValueError: if there is no such video or camera, or it has no frame.
    """
    selection = selection or FrameSelection()
    stem = f"camera{name}" if name.isdecimal() else Path(name).stem
    lines, count = out_dir / f"{stem}.jsonl", 0
    with (
        _opened(name) as capture,
        progress_bar(
            total=selection.max_frames or _length(capture, selection.every_nth), desc="predicting",
            unit="frame", shown=progress,
        ) as bar,
        replacing(lines) as temporary,
        temporary.open("w", encoding="utf-8") as file,
        _Writer(out_dir / f"{stem}.mp4", _rate(capture) / selection.every_nth) as writer,
    ):  # fmt: skip
        try:
            for frames in _batches(capture, selection):
                outputs = predict_images(detector, [frame.pixels for frame in frames], tta)
                for frame, detections in zip(frames, outputs, strict=True):
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
    # OpenCV prints messages of its own about files that it cannot open.
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


def _batches(capture: Any, selection: FrameSelection) -> Iterator[Sequence[Frame]]:
    rate, batch, taken = _rate(capture), [], 0
    number = -1
    while not selection.max_frames or taken < selection.max_frames:
        number += 1
        if number % selection.every_nth:
            if not capture.grab():
                _warn_if_truncated(capture, number)
                break
            continue
        ok, pixels = capture.read()
        if not ok:
            _warn_if_truncated(capture, number)
            break
        rgb = torch.from_numpy(np.ascontiguousarray(pixels[:, :, ::-1])).permute(2, 0, 1)
        batch.append(Frame(number, number / rate, rgb))
        taken += 1
        if len(batch) == selection.batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _warn_if_truncated(capture: Any, frames: int) -> None:
    """Warn if a video ended before its declared number of frames; a camera declares none."""
    declared = _length(capture, 1)
    if declared is not None and 0 < frames < declared:
        logger.warning(
            "only %d of %d frames could be read; the video may be truncated", frames, declared
        )


def _line(frame: Frame, detections: Detections, info: DetectorInfo) -> dict[str, Any]:
    return {
        "frame": frame.number,
        "seconds": round(frame.seconds, 3),
        "detections": detection_records(detections, info),
    }


class _Writer:
    """Writes drawn frames to a video, atomically; its size is that of the first frame."""

    def __init__(self, path: Path, rate: float) -> None:
        self._path, self._rate = path, rate
        self._temporary = path.with_name(f".{path.stem}-part{path.suffix}")
        self._video: Any = None

    def write(self, frame: Frame, detections: Detections, info: DetectorInfo) -> None:
        import cv2

        drawing = draw_detections(
            frame.pixels, detections.boxes, detections.labels, detections.scores, info.class_names
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
