"""The demonstration data are fair, valid, and the same on every machine."""

import hashlib
import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from detection.data.shapes import dataset as _dataset
from detection.data.shapes import scenes as _scenes
from detection.data.shapes.config import ShapesConfig
from detection.data.shapes.dataset import make_shapes

GOLDEN_PIXELS = "62374245473973d6d44bb750f68963eb718eabe6a0e21e77c3205613debbc087"
"""SHA-256 of a few pictures' pixels. If it changes, raise ``_dataset._FORMAT``."""
TINY = {f"num_{stage}": 16 for stage in ("search_train", "search_val", "pretrain_train")} | {
    "num_pretrain_val": 8,
    "num_detection_train": 12,
    "num_detection_val": 8,
    "crowd_fraction": 0.3,
}


def scene(index, *, size_px=128, crowd_fraction=0.04):
    rng = _scenes.scene_generator(0, 4, index)
    return _scenes.draw_scene(rng, size_px=size_px, crowd_fraction=crowd_fraction)


def object_crop(index, *, size_px=32, side_px=(12.0, 28.0)):
    rng = _scenes.scene_generator(0, 0, index)
    label = index % len(_scenes.CLASSES)
    return _scenes.draw_object_crop(rng, label, size_px=size_px, side_range_px=side_px)


def contents(root):
    """Every file under ``root``: its decoded pixels or its text."""
    return {
        str(path.relative_to(root)): np.asarray(Image.open(path)).tobytes()
        if path.suffix == ".png"
        else path.read_text()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def scenes():
    return [scene(index) for index in range(200)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "shapes"
    make_shapes(ShapesConfig(**TINY, num_workers=1), root)
    return root


def test_the_same_seed_gives_the_same_pixels_on_any_machine():
    pictures = [scene(0), scene(1), scene(2, size_px=160, crowd_fraction=1.0), object_crop(0)]
    digest = hashlib.sha256(b"".join(picture.image.tobytes() for picture in pictures))
    assert digest.hexdigest() == GOLDEN_PIXELS


def test_every_shape_and_every_texture_belongs_to_two_classes():
    for trait in ("shape", "texture"):
        assert set(Counter(getattr(kind, trait) for kind in _scenes.CLASSES).values()) == {2}
    assert len({(kind.shape, kind.texture) for kind in _scenes.CLASSES}) == 8


def test_colour_tells_nothing_about_the_class():
    pictures = [object_crop(index) for index in range(1600)]
    colours = np.array([picture.image[picture.objects[0].visible].mean(0) for picture in pictures])
    labels = np.arange(len(pictures)) % 8
    means = np.stack([colours[:800][labels[:800] == label].mean(0) for label in range(8)])
    guesses = ((colours[800:, None] - means) ** 2).sum(-1).argmin(1)
    # Chance is 0.125, with a standard deviation of 0.012 over 800 pictures.
    assert (guesses == labels[800:]).mean() < 0.165


def test_scenes_have_zero_to_eight_annotations_and_some_have_none(scenes):
    counts = Counter(len(picture.objects) for picture in scenes)
    assert set(counts) == set(range(9))


def test_whole_objects_are_eight_to_sixty_four_pixels_long(scenes):
    sides = [found.side_px for picture in scenes for found in picture.objects]
    assert min(sides) >= 8 - 1e-9
    assert max(sides) <= 64 + 1e-9
    assert min(sides) < 12
    assert max(sides) > 58


def test_boxes_are_tight_and_inside_the_picture(scenes):
    for found in (found for picture in scenes for found in picture.objects):
        left, top, width, height = found.box
        assert min(width, height) >= 3
        assert found.is_crowd or max(width, height) <= found.side_px + 2
        assert 0 <= left <= left + width <= 128
        assert 0 <= top <= top + height <= 128
        window = found.visible[top : top + height, left : left + width]
        assert window.sum() == found.visible.sum()
        assert all(window[edge].any() for edge in (0, -1, np.s_[:, 0], np.s_[:, -1]))


def test_no_pixel_belongs_to_two_objects(scenes):
    for picture in scenes:
        if picture.objects:
            assert sum(found.visible.astype(int) for found in picture.objects).max() == 1


def test_some_objects_are_occluded_and_none_is_hidden(scenes):
    boxes_meet = 0
    for picture in scenes:
        for one, other in pairwise(picture.objects):
            (x, y, w, h), (u, v, p, q) = one.box, other.box
            boxes_meet += x < u + p and u < x + w and y < v + q and v < y + h
        assert all(found.visible.sum() > 8 for found in picture.objects)
    assert boxes_meet > 50


def test_a_crowd_is_one_annotation_of_many_objects():
    found = [obj for index in range(20) for obj in scene(index, crowd_fraction=1.0).objects]
    crowds = [obj for obj in found if obj.is_crowd]
    assert len(crowds) == 20
    assert all(crowd.side_px <= 13 + 1e-9 for crowd in crowds)
    assert min(crowd.visible.sum() for crowd in crowds) > 100
    assert not any(obj.is_crowd for i in range(20) for obj in scene(i, crowd_fraction=0).objects)


@pytest.mark.parametrize(("size_px", "side_px"), [(32, (12.0, 28.0)), (64, (16.0, 56.0))])
def test_a_object_crop_shows_its_object_near_the_center(size_px, side_px):
    for index in range(200):
        picture = object_crop(index, size_px=size_px, side_px=side_px)
        (found,) = picture.objects
        assert found.label == index % 8
        left, top, width, height = found.box
        assert abs(left + width / 2 - size_px / 2) < 0.3 * size_px
        assert abs(top + height / 2 - size_px / 2) < 0.3 * size_px
        assert side_px[0] <= found.side_px + 1e-9
        assert found.side_px <= side_px[1] + 1e-9


def test_train_and_val_share_no_picture(root):
    digests = Counter(hash(pixels) for name, pixels in contents(root).items() if "png" in name)
    assert len(digests) == 16 + 16 + 16 + 8 + 12 + 8
    assert max(digests.values()) == 1


def test_image_folders_hold_every_class_in_equal_number(root):
    for stage, size_px in (("search", 32), ("pretrain", 64)):
        folders = sorted((root / stage / "train").iterdir())
        assert [folder.name for folder in folders] == sorted(k.name for k in _scenes.CLASSES)
        for folder in folders:
            shapes = [np.asarray(Image.open(path)).shape for path in folder.iterdir()]
            assert shapes == [(size_px, size_px, 3)] * 2


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
@pytest.mark.parametrize("split", ["train", "val"])
def test_pycocotools_reads_the_annotations(root, split):
    coco = COCO(root / "detection" / "annotations" / f"instances_{split}.json")
    assert len(coco.imgs) == len(list((root / "detection" / split).iterdir()))
    assert sorted(coco.cats) == [1, 2, 4, 7, 8, 11, 13, 16]
    assert {found["iscrowd"] for found in coco.anns.values()} == {0, 1}
    for found in coco.anns.values():
        image = coco.imgs[found["image_id"]]
        with Image.open(root / "detection" / split / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
        mask = coco.annToMask(found)
        rows, columns = np.nonzero(mask)
        x, y = columns.min(), rows.min()
        assert found["bbox"] == [x, y, columns.max() + 1 - x, rows.max() + 1 - y]
        assert found["area"] == mask.sum()


def test_run_lengths_start_with_the_background():
    mask = np.array([[True, False], [True, True]])
    assert _dataset._run_lengths(mask) == {"counts": [0, 2, 1, 1], "size": [2, 2]}
    assert _dataset._run_lengths(~mask) == {"counts": [2, 1, 1], "size": [2, 2]}


def test_the_number_of_workers_does_not_change_the_data(root, tmp_path, monkeypatch):
    monkeypatch.setattr(_dataset, "_WORTH_A_POOL", 0)
    monkeypatch.setattr(_dataset, "_BATCH", 5)
    make_shapes(ShapesConfig(**TINY, num_workers=2), tmp_path / "shapes")
    assert contents(tmp_path / "shapes") == contents(root)


def test_another_seed_replaces_the_data_and_says_so(tmp_path):
    root, seen = tmp_path / "shapes", []
    make_shapes(ShapesConfig(**TINY, num_workers=1), root)
    before = contents(root)
    config = ShapesConfig(**TINY, num_workers=1, seed=1)
    make_shapes(config, root, progress=lambda done, total: seen.append((done, total)))
    after = contents(root)
    assert json.loads(after["shapes.json"])["seed"] == 1
    assert after.keys() == before.keys()
    assert not any(after[name] == before[name] for name in after)
    assert seen[-1] == (76, 76)


def test_a_failure_leaves_what_was_there(root, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    target = tmp_path / "shapes"
    make_shapes(ShapesConfig(**TINY, num_workers=1), target)
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match=r"cannot write .*shapes: No space left on device"):
        make_shapes(ShapesConfig(**TINY, num_workers=1, seed=1), target)
    assert contents(target) == contents(root)
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match=r"is not empty and has no shapes.json"):
        make_shapes(ShapesConfig(**TINY), tmp_path)
    with pytest.raises(ValueError, match=r"thesis.tex is a file"):
        make_shapes(ShapesConfig(**TINY), tmp_path / "thesis.tex")
    with pytest.raises(OSError, match=r"cannot write demonstration data to .*: Not a directory"):
        make_shapes(ShapesConfig(**TINY), tmp_path / "thesis.tex" / "shapes")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed is -1; it must be from 0"),
        ({"num_search_val": 0}, "num_search_val is 0; it must be at least 1"),
        ({"detection_size_px": 100}, "detection_size_px is 100; it must be at least 128"),
        ({"crowd_fraction": 1.5}, r"crowd_fraction is 1\.5; it must be from 0 to 1"),
        ({"num_workers": -2}, "num_workers is -2; it must be at least 0"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        ShapesConfig(**wrong)
