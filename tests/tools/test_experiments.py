"""Experiments other than multi-class detection, trained briefly on generated data."""

import numpy as np
import pytest
from PIL import Image

import all_tools
from detection.data.coco import CocoTable
from detection.data.convert.convert import convert_annotations
from detection.data.convert.formats import ConversionConfig
from detection.engine.evaluate import detect_with_file, save_results_file
from detection.engine.train import run_training
from detection.evaluation.report import ReportOptions

SIDE = 64
SHORT = [
    "backbone=nasnet_a:1@96",
    "accelerator=cpu",
    "num_workers=0",
    f"data.shortest_side_px={SIDE}",
    f"data.longest_side_px={SIDE}",
    f"recipe.shortest_sides_px=[{SIDE}]",
    "recipe.iterations=3",
    "recipe.batch_size=2",
    "recipe.reference_batch_size=0",
    "recipe.warmup_iterations=1",
    "recipe.evaluate_every=0",
    "detector.fpn_channels=8",
    "detector.box_head_dim=16",
    "detector.rpn_post_nms_top_n_train=20",
    "detector.rpn_post_nms_top_n_test=20",
]


@pytest.fixture
def faces(tmp_path):
    """Bright squares listed as WIDER FACE lists faces, converted."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        folder = tmp_path / "wider" / f"WIDER_{split}" / "images" / "0--Parade"
        folder.mkdir(parents=True)
        lines = []
        for number in range(4):
            pixels = rng.integers(0, 80, (SIDE, SIDE, 3), dtype=np.uint8)
            x, y = (int(v) for v in rng.integers(0, SIDE - 20, 2))
            pixels[y : y + 20, x : x + 16] = 255
            Image.fromarray(pixels).save(folder / f"{number}.png")
            lines += [f"0--Parade/{number}.png", "1", f"{x} {y} 16 20 0 0 0 0 0 0"]
        listing = tmp_path / "wider" / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
        listing.parent.mkdir(exist_ok=True)
        listing.write_text("\n".join(lines) + "\n")
    config = ConversionConfig(source=str(tmp_path / "wider"), source_format="wider")
    convert_annotations(config, tmp_path / "faces", progress=False)
    return tmp_path / "faces"


def trained(experiment, root, out, *changes):
    """Train an experiment briefly; return its settings, detections and scorer."""
    overrides = [f"experiment={experiment}", f"data.root={root}", *SHORT, *changes]
    settings = all_tools.settings("train_detector", *overrides)
    weights = run_training(settings, out).path
    annotations = CocoTable.load(root / "annotations" / "instances_val.json")
    results = detect_with_file(weights, annotations, root / "val", batch_size=2)
    scored = save_results_file(weights, results, annotations, root / "val", out)
    return settings, results, scored


def test_faces_are_one_class_that_is_learned_from_converted_lists(faces, tmp_path):
    steps = ["recipe.lr_milestones=[2]", "detector.score_threshold=0"]
    settings, results, scored = trained("faces", faces, tmp_path / "run", *steps)
    assert {row["category_id"] for row in results} == {1}
    assert settings.detector.anchor_sizes[0] == 16
    metrics = scored.report(tmp_path / "run", ReportOptions(plots=False)).metrics
    assert 0 <= metrics.ap <= 100


def test_localization_gives_one_box_in_every_image(faces, tmp_path):
    _, results, scored = trained("localization", faces, tmp_path / "run")
    assert sorted(row["image_id"] for row in results) == [1, 2, 3, 4]
    metrics = scored.localize(tmp_path / "run", ReportOptions(plots=False))
    assert metrics.num_images == 4
    assert metrics.top5 == metrics.top1 == metrics.top1_any_class
