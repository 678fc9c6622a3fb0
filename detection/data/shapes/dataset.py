"""Write the demonstration data: image folders for search and pretraining, COCO for detection.

    search/{train,val}/<class>/NNNNN.png       32 x 32, one object near the center
    pretrain/{train,val}/<class>/NNNNN.png     64 x 64, likewise
    detection/{train,val}/NNNNNN.png           scenes
    detection/annotations/instances_{train,val}.json
    shapes.json                                the arguments that made it

Boxes and masks are those of an object's *visible* pixels, as COCO's annotators draw them; masks
are uncompressed RLE throughout, since a polygon can show neither a hole nor a pixel exactly.
"""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backbone.io.progress import progress_bar
from backbone.io.runtime import end_with_parent
from detection.data.shapes.config import SPLITS, STAGES, ShapesConfig
from detection.data.shapes.scenes import (
    CLASSES,
    Scene,
    draw_object_crop,
    draw_scene,
    scene_generator,
)
from detection.data.shapes.sprites import Range

MANIFEST_NAME = "shapes.json"
_FORMAT = 2  # raise it when the same arguments draw something else
_OBJECT_CROPS: dict[str, tuple[int, Range]] = {
    "search": (32, (20.0, 31.0)),
    "pretrain": (64, (28.0, 60.0)),
}
"""Side of the pictures and range of the objects' longest side, in pixels."""
_STREAMS = tuple(
    (stage, split, 2 * number + offset)
    for number, stage in enumerate(STAGES)
    for offset, split in enumerate(SPLITS)
)
"""Stage, split, and the number of the random stream whose scenes are theirs alone."""
_PNG_LEVEL = 1  # noise hardly compresses; higher levels only take longer
_BATCH = 64
_WORTH_A_POOL = 256


def make_shapes(
    config: ShapesConfig, root: str | Path, *, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write the demonstration data to the folder ``root`` atomically.

    Existing demonstration data are replaced.

    Args:
        config: amount and seed.
        root: the folder to create.
        progress: called with the number of images written so far and their total.

    Raises:
        ValueError: if ``root`` holds something other than demonstration data.
        OSError: if it cannot be written.
    """
    root = Path(root)
    _check_replaceable(root)
    building = root.parent / f".{root.name}.partial"
    try:
        shutil.rmtree(building, ignore_errors=True)  # what a killed run left
        building.mkdir(parents=True)
        _write_all(config, building, progress)
        if root.exists():
            shutil.rmtree(root)
        building.rename(root)
    except OSError as error:
        raise OSError(
            f"cannot write demonstration data to {root}: {error.strerror or error}; "
            "choose a folder that you may write to and that has room"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _check_replaceable(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise ValueError(f"{root} is a file; choose a folder to write demonstration data to")
    if root.is_dir() and any(root.iterdir()) and not (root / MANIFEST_NAME).is_file():
        raise ValueError(
            f"{root} is not empty and has no {MANIFEST_NAME}, so it is not demonstration data; "
            "choose another folder"
        )


@dataclass(frozen=True, slots=True)
class _Batch:
    """Consecutive images of one split, drawn by one process."""

    config: ShapesConfig
    folder: Path
    stage: str
    split: str
    stream: int
    indices: range


def _write_all(
    config: ShapesConfig, root: Path, progress: Callable[[int, int], None] | None
) -> None:
    batches = list(_batches(config, root))
    for folder in {batch.folder for batch in batches if batch.stage in _OBJECT_CROPS}:
        for kind in CLASSES:
            (folder / kind.name).mkdir(parents=True)
    for name in (*SPLITS, "annotations"):
        (root / "detection" / name).mkdir(parents=True)

    annotations: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    total = sum(len(batch.indices) for batch in batches)
    done = 0
    for batch, annotated in zip(batches, _drawn(batches, config.num_workers), strict=True):
        annotations[batch.split] += annotated
        done += len(batch.indices)
        if progress is not None:
            progress(done, total)

    for split in SPLITS:
        path = root / "detection" / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(_coco(config, split, annotations[split])))
    (root / MANIFEST_NAME).write_text(json.dumps(_manifest(config), indent=2) + "\n")


def _manifest(config: ShapesConfig) -> dict[str, Any]:
    """Return the settings that determine the data, as JSON types; not the number of workers."""
    made_by = {name: value for name, value in asdict(config).items() if name != "num_workers"}
    return {"format": _FORMAT, **made_by}


def make_shapes_with_bar(config: ShapesConfig, root: Path) -> None:
    """Write the demonstration data and show a progress bar."""
    with progress_bar(unit=" images", desc="drawing") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        make_shapes(config, root, progress=progress)


def is_made(config: ShapesConfig, root: Path) -> bool:
    """Return whether ``root`` holds the demonstration data of ``config``."""
    try:
        manifest: Any = json.loads((root / MANIFEST_NAME).read_text())
    except (OSError, ValueError):
        return False
    return bool(manifest == _manifest(config))


def _batches(config: ShapesConfig, root: Path) -> Iterator[_Batch]:
    for stage, split, stream in _STREAMS:
        count = getattr(config, f"num_{stage}_{split}")
        for start in range(0, count, _BATCH):
            indices = range(start, min(start + _BATCH, count))
            yield _Batch(config, root / stage / split, stage, split, stream, indices)


def _drawn(batches: list[_Batch], num_workers: int) -> Iterator[list[dict[str, Any]]]:
    """Draw and write every batch; yield their annotations in the order of the batches."""
    num_workers = num_workers or os.cpu_count() or 1
    if num_workers == 1 or sum(len(batch.indices) for batch in batches) < _WORTH_A_POOL:
        yield from map(_write_batch, batches)
        return
    # spawn: a fork of a process whose libraries run threads may hang
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, spawn, initializer=end_with_parent) as pool:
        yield from pool.map(_write_batch, batches)


def _write_batch(batch: _Batch) -> list[dict[str, Any]]:
    """Write the batch's images; return the annotations of its scenes, still without ids."""
    config = batch.config
    annotations: list[dict[str, Any]] = []
    for index in batch.indices:
        rng = scene_generator(config.seed, batch.stream, index)
        if batch.stage in _OBJECT_CROPS:
            label = index % len(CLASSES)
            size_px, side_range_px = _OBJECT_CROPS[batch.stage]
            scene = draw_object_crop(rng, label, size_px=size_px, side_range_px=side_range_px)
            path = batch.folder / CLASSES[label].name / f"{index:05d}.png"
        else:
            scene = draw_scene(
                rng, size_px=config.detection_size_px, crowd_fraction=config.crowd_fraction
            )
            path = batch.folder / _scene_name(index)
            annotations += _annotations(scene, image_id=index + 1)
        Image.fromarray(scene.image).save(path, compress_level=_PNG_LEVEL)
    return annotations


def _scene_name(index: int) -> str:
    return f"{index + 1:06d}.png"


def _annotations(scene: Scene, *, image_id: int) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image_id,
            "category_id": CLASSES[annotated.label].category_id,
            "bbox": [float(value) for value in annotated.box],
            "area": float(np.count_nonzero(annotated.visible)),
            "iscrowd": int(annotated.is_crowd),
            "segmentation": _run_lengths(annotated.visible),
        }
        for annotated in scene.objects
    ]


def _run_lengths(mask: NDArray[np.bool_]) -> dict[str, list[int]]:
    """Encode a mask, (H, W), as COCO's uncompressed RLE: runs of 0, 1, 0, ... down the columns."""
    column_major = mask.T.ravel()
    starts = np.flatnonzero(np.diff(column_major, prepend=False))
    counts = np.diff(starts, prepend=0, append=column_major.size)
    return {"counts": counts.tolist(), "size": list(mask.shape)}


def _coco(config: ShapesConfig, split: str, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    side = config.detection_size_px
    return {
        "info": {"description": f"demonstration shapes, {split}, seed {config.seed}"},
        "licenses": [],
        "images": [
            {"id": index + 1, "width": side, "height": side, "file_name": _scene_name(index)}
            for index in range(getattr(config, f"num_detection_{split}"))
        ],
        "annotations": [
            {"id": number, **annotated} for number, annotated in enumerate(annotations, 1)
        ],
        "categories": [
            {"id": kind.category_id, "name": kind.name, "supercategory": kind.shape}
            for kind in CLASSES
        ],
    }
