from importlib.util import find_spec

import pytest
import torch

from backbone.models.backbone import build_backbone
from detection.config import Detectron2DetectorConfig, TorchvisionDetectorConfig
from detection.models.build import build_detector
from detection.structures import Target, batch_images

SMALL = {
    "neck_channels": 16,
    "head_features": 32,
    "rpn_batch": 32,
    "rpn_candidates_train": 50,
    "rpn_candidates_test": 50,
    "proposals_train": 20,
    "proposals_test": 20,
    "roi_batch": 16,
    "score_threshold": 0.0,
}
ENGINES = [
    pytest.param(TorchvisionDetectorConfig, id="torchvision"),
    pytest.param(
        Detectron2DetectorConfig,
        id="detectron2",
        marks=[
            pytest.mark.detectron2,
            pytest.mark.skipif(not find_spec("detectron2"), reason="detectron2 is not installed"),
        ],
    ),
]


def make(engine, *, num_classes=3, out=("c2", "c3", "c4", "c5"), **changes):
    torch.manual_seed(0)
    sizes = [8, 16, 32, 64][: len(out)]
    config = engine(**(SMALL | {"anchor_sizes": sizes} | changes))
    backbone = build_backbone("nasnet_a:1@96", out=out)
    return build_detector(backbone, num_classes=num_classes, config=config)


def example(height, width, boxes, labels):
    target = Target(torch.tensor(boxes).reshape(-1, 4), torch.tensor(labels, dtype=torch.int64))
    return torch.rand(3, height, width), target


@pytest.mark.parametrize("options", [{}, {"crop_levels": 1, "class_agnostic_boxes": True}], ids=str)
@pytest.mark.parametrize("engine", ENGINES)
def test_losses_are_finite_and_reach_every_weight(engine, options):
    detector = make(engine, neck_norm="batch", **options).train()
    torch.manual_seed(0)
    images, targets = zip(
        example(64, 96, [[8.0, 8.0, 40.0, 40.0]], [2]),
        example(50, 70, [[1.0, 2.0, 20.0, 30.0], [30.0, 5.0, 60.0, 45.0]], [0, 1]),
        strict=True,
    )
    losses = detector.losses(images, targets)
    total = torch.stack(list(losses.values())).sum()
    assert len(losses) == 4
    assert torch.isfinite(total)
    total.backward()
    idle = [n for n, p in detector.named_parameters() if p.grad is None]
    assert not idle


@pytest.mark.parametrize("engine", ENGINES)
def test_an_image_without_objects_can_be_trained_on(engine):
    detector = make(engine).train()
    image, target = example(64, 64, [], [])
    losses = detector.losses([image], [target])
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize("engine", ENGINES)
def test_detections_lie_inside_their_own_image_and_come_best_first(engine):
    detector = make(engine).eval()
    images = [torch.rand(3, 64, 96), torch.rand(3, 50, 70)]
    with torch.inference_mode():
        found = detector.predict(images)
    assert len(found) == 2
    for detections, image in zip(found, images, strict=True):
        assert len(detections.boxes) > 0
        assert detections.boxes.min() >= 0
        assert detections.boxes[:, 2].max() <= image.shape[2]
        assert detections.boxes[:, 3].max() <= image.shape[1]
        assert set(detections.labels.tolist()) <= {0, 1, 2}
        assert torch.equal(detections.scores, detections.scores.sort(descending=True).values)


@pytest.mark.parametrize("engine", ENGINES)
def test_class_agnostic_boxes_are_one_per_proposal(engine):
    detector = make(engine, class_agnostic_boxes=True).eval()
    assert detector.roi_heads.box_predictor.bbox_pred.out_features == 4
    with torch.inference_mode():
        found = detector.predict([torch.rand(3, 64, 64)])[0]
    boxes = {tuple(box) for box in found.boxes.round().tolist()}
    # Every proposal comes back once per class, in the same place.
    assert len(boxes) < len(found.boxes)


@pytest.mark.parametrize("engine", ENGINES)
def test_crops_come_from_as_many_levels_as_asked_for(engine):
    detector = make(engine, crop_levels=1).eval()
    image = [torch.rand(3, 64, 64)]
    pooler = getattr(detector.roi_heads, "box_roi_pool", None) or detector.roi_heads.box_pooler
    assert len(getattr(pooler, "level_poolers", getattr(pooler, "featmap_names", ()))) == 1
    with torch.inference_mode():
        assert len(detector.predict(image)[0].boxes) > 0


@pytest.mark.parametrize("engine", ENGINES)
def test_the_pyramid_takes_the_levels_that_the_backbone_gives(engine):
    detector = make(engine, out=("c3", "c4"), anchor_sizes=[16, 32, 64]).eval()
    with torch.inference_mode():
        assert len(detector.predict([torch.rand(3, 64, 64)])) == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_the_loss_falls_on_images_seen_again(engine):
    detector = make(engine, neck_norm="batch").train()
    torch.manual_seed(1)
    image, target = example(64, 64, [[10.0, 12.0, 42.0, 44.0]], [1])
    image[:, 12:44, 10:42] = 1
    optimizer = torch.optim.AdamW(detector.parameters(), lr=3e-3)
    totals = []
    for _ in range(25):
        optimizer.zero_grad()
        total = torch.stack(list(detector.losses([image], [target]).values())).sum()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert min(totals[-5:]) < 0.5 * totals[0]


def test_both_engines_have_backbones_with_the_same_names():
    detector = make(TorchvisionDetectorConfig)
    names = {n for n in detector.state_dict() if n.startswith("backbone.")}
    assert names == {f"backbone.{n}" for n in detector.backbone.state_dict()}


def test_images_are_padded_below_and_to_the_right_to_multiples_of_32():
    batch, sizes = batch_images([torch.ones(3, 40, 64), torch.ones(3, 33, 20)])
    assert batch.shape == (2, 3, 64, 64)
    assert sizes == [(40, 64), (33, 20)]
    assert batch[1, :, :33, :20].all()
    assert not batch[1, :, 33:].any()
    assert not batch[1, :, :, 20:].any()


def test_anchors_that_do_not_fit_the_levels_are_refused():
    with pytest.raises(ValueError, match=r"one size per level, 4 for .* not 2"):
        make(TorchvisionDetectorConfig, anchor_sizes=[8, 16])


@pytest.mark.skipif(bool(find_spec("detectron2")), reason="detectron2 is installed")
def test_without_detectron2_its_engine_says_how_to_get_it():
    with pytest.raises(ImportError, match=r"detectron2 needs detectron2.*install it as"):
        make(Detectron2DetectorConfig)
