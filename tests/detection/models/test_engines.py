"""Properties of all detectors of both libraries."""

import copy
from importlib.util import find_spec

import pytest
import torch

from backbone.models.backbone import build_backbone
from backbone.models.normalization import FrozenBatchNorm2d
from detection.models.checkpoint import DetectorInfo, load_detector, save_detector
from detection.models.config import (
    Detectron2CascadeConfig,
    Detectron2FasterRCNNConfig,
    Detectron2RetinaNetConfig,
    RetinaNetConfig,
    TorchvisionFasterRCNNConfig,
    TorchvisionRetinaNetConfig,
)
from detection.structures import Target, batch_images
from small_detectors import C4, KINDS, RCNNS, SMALL, examples, make, needs_detectron2, small_config

each_kind = pytest.mark.parametrize("kind", KINDS)


def summed(detector):
    images, targets = examples()
    torch.manual_seed(0)
    losses = detector.losses(images, targets)
    return torch.stack(list(losses.values())).sum(), losses


def is_box_loss(name):
    return any(word in name for word in ("loc", "box_reg"))


@pytest.mark.parametrize("options", [{}, {"fpn_norm": "batch", "frozen_stages": 2}], ids=str)
@each_kind
def test_losses_are_positive_and_reach_every_weight_that_learns(kind, options):
    detector = make(kind, **options).train()
    total, losses = summed(detector)
    # Of boxes and of classes, each of the proposals, if any, and of every head.
    heads = 4 if issubclass(kind[0], Detectron2CascadeConfig) else 2
    assert len(losses) == (2 if issubclass(kind[0], RetinaNetConfig) else 2 * heads)
    assert 2 * sum(map(is_box_loss, losses)) == len(losses)
    # An untrained classifier of objects against background has a loss of log 2 per anchor.
    assert all(0 < loss.item() < 10 for loss in losses.values()), losses
    total.backward()
    idle = [n for n, p in detector.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle
    assert any(not p.requires_grad for p in detector.parameters()) == bool(options)


@pytest.mark.parametrize("kind", RCNNS)
def test_losses_of_one_level_and_shared_boxes_reach_every_weight(kind):
    detector = make(kind, roi_num_levels=1, class_agnostic_boxes=True).train()
    total, losses = summed(detector)
    assert len(losses) == 4
    total.backward()
    assert all(p.grad is not None for p in detector.parameters())


@each_kind
def test_an_image_without_objects_has_losses_of_classes_alone(kind):
    detector = make(kind).train()
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    losses = detector.losses([torch.rand(3, 64, 64)], [nothing])
    for name, loss in losses.items():
        assert (loss.item() == 0) == is_box_loss(name), losses
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad.isfinite().all() for p in detector.parameters() if p.grad is not None)


@each_kind
def test_detections_lie_inside_their_own_image_and_come_best_first(kind):
    detector = make(kind).eval()
    images, _ = examples()
    with torch.inference_mode():
        outputs = detector.predict(images)
    for detections, image in zip(outputs, images, strict=True):
        assert 0 < len(detections.boxes) <= 100
        assert detections.boxes.min() >= 0
        assert detections.boxes[:, 2].max() <= image.shape[2]
        assert detections.boxes[:, 3].max() <= image.shape[1]
        assert set(detections.labels.tolist()) <= {0, 1, 2}
        assert detections.labels.dtype == torch.int64
        assert torch.equal(detections.scores, detections.scores.sort(descending=True).values)


@each_kind
def test_the_loss_falls_on_images_seen_again(kind):
    # Batches of two images move batch normalization's statistics about.
    detector = make(kind, fpn_norm="batch").train()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=3e-3)
    totals = []
    for _ in range(10):
        total, _ = summed(detector)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        # detectron2's RetinaNet divides by a moving average that itself falls from 100 at first.
        totals.append(total.item() * getattr(detector, "normalizer", torch.ones(())).item())
    assert min(totals[-3:]) < 0.9 * totals[0]


@each_kind
def test_a_detector_s_file_builds_it_again(kind, tmp_path):
    detector = make(kind, frozen_stages=1).train()
    summed(detector)  # moves running statistics
    info = DetectorInfo(
        config=small_config(kind, frozen_stages=1),
        class_names=("a", "b", "c"),
        category_ids=(1, 2, 3),
        shortest_side_px=64,
        longest_side_px=96,
    )
    path = tmp_path / "detector.safetensors"
    save_detector(path, detector, info, provenance={}, training_seconds=0.0, evaluations={})
    loaded, read = load_detector(path)
    assert read == info
    assert type(loaded) is type(detector)
    images, _ = examples()
    with torch.inference_mode():
        for one, other in zip(detector.eval().predict(images), loaded.predict(images), strict=True):
            assert torch.equal(one.boxes, other.boxes)
            assert torch.equal(one.scores, other.scores)


@each_kind
def test_a_copy_is_independent(kind):
    # As the averaged weights of a training are made.
    detector = make(kind).eval()
    twin = copy.deepcopy(detector)
    images, _ = examples()
    with torch.inference_mode():
        before = detector.predict(images)[0]
        for parameter in detector.parameters():
            parameter.mul_(-3)
        after, changed = twin.predict(images)[0], detector.predict(images)[0]
    assert torch.equal(before.boxes, after.boxes)
    assert torch.equal(before.scores, after.scores)
    assert not torch.equal(before.scores[:3], changed.scores[:3])


@each_kind
def test_the_weights_of_a_backbone_s_file_fit(kind):
    detector = make(kind)
    plain = build_backbone("nasnet_a:1@96")
    detector.backbone.load_state_dict(plain.state_dict())
    inside = {n.removeprefix("backbone.") for n in detector.state_dict() if n[:9] == "backbone."}
    assert inside == set(plain.state_dict())
    # No tensor is there twice under two names.
    tensors = list(detector.state_dict().values())
    assert len({t.data_ptr() for t in tensors if t.numel()}) == sum(t.numel() > 0 for t in tensors)


@each_kind
def test_box_loss_weight_weighs_box_losses_alone(kind):
    _, plain = summed(make(kind).train())
    _, doubled = summed(make(kind, box_loss_weight=2.0).train())
    for name, loss in plain.items():
        factor = 2 if is_box_loss(name) else 1
        torch.testing.assert_close(doubled[name], factor * loss)


@each_kind
def test_frozen_stages_stay_as_they_are(kind):
    detector = make(kind, frozen_stages=2).train()
    before = copy.deepcopy(detector.backbone.state_dict())
    optimizer = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], lr=0.1)
    total, _ = summed(detector)
    total.backward()
    optimizer.step()
    frozen = {n for n, m in detector.backbone.named_modules() if isinstance(m, FrozenBatchNorm2d)}
    assert frozen
    first = [n for n in before if n.startswith(("body.stem.", "body.cells.0."))]
    rest = [n for n in before if n.startswith("body.cells.3.")]
    after = detector.backbone.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in first)
    assert not all(torch.equal(before[n], after[n]) for n in rest)


@pytest.mark.parametrize(
    "engine",
    [
        TorchvisionRetinaNetConfig,
        pytest.param(Detectron2RetinaNetConfig, marks=needs_detectron2),
    ],
)
def test_retinanet_has_p3_to_p7_with_one_size_more_than_there_are_maps(engine):
    detector = make((engine, {"anchor_sizes": [8, 16, 32, 64, 128]})).eval()
    generator = detector.network.anchor_generator
    assert len(generator.cell_anchors) == 5
    assert all(len(anchors) == 9 for anchors in generator.cell_anchors)
    seen = []
    detector.network.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        detector.predict([torch.rand(3, 128, 128)])
    assert [m.shape[-1] for m in seen[0]] == [16, 8, 4, 2, 1]


@pytest.mark.detectron2
def test_detectron2_s_normalizer_of_retinanet_is_saved():
    pytest.importorskip("detectron2")
    detector = make((Detectron2RetinaNetConfig, {})).train()
    assert detector.normalizer.item() == 100
    summed(detector)
    assert detector.state_dict()["normalizer"].item() == detector.network.loss_normalizer
    assert 90 < detector.normalizer.item() < 100


@pytest.mark.detectron2
def test_a_cascade_has_three_heads_with_rising_demands():
    pytest.importorskip("detectron2")
    detector = make((Detectron2CascadeConfig, {}))
    heads = detector.roi_heads
    assert [m.thresholds[1] for m in heads.proposal_matchers] == [0.5, 0.6, 0.7]
    weights = [p.box2box_transform.weights[0] for p in heads.box_predictor]
    assert weights == [10, 20, 30]


@pytest.mark.detectron2
def test_detectron2_s_parts_are_those_of_its_own_configs():
    pytest.importorskip("detectron2")
    config = Detectron2FasterRCNNConfig()
    torch.manual_seed(0)
    detector = make((Detectron2FasterRCNNConfig, vars_of(config)), num_classes=80)
    rpn, heads = detector.rpn, detector.roi_heads
    assert (rpn.smooth_l1_beta, rpn.box_reg_loss_type) == (0.0, "smooth_l1")
    assert rpn.loss_weight == {"loss_rpn_cls": 1.0, "loss_rpn_loc": 1.0}
    assert (rpn.pre_nms_topk, rpn.post_nms_topk) == (
        {True: 2000, False: 1000},
        {True: 1000, False: 1000},
    )
    predictor = heads.box_predictor
    assert (predictor.smooth_l1_beta, predictor.test_score_thresh) == (0.0, 0.05)
    assert predictor.loss_weight == {"loss_cls": 1.0, "loss_box_reg": 1.0}
    assert heads.batch_size_per_image == 512


def vars_of(config):
    return {name: getattr(config, name) for name in SMALL}


@pytest.mark.parametrize("kind", RCNNS)
def test_class_agnostic_boxes_are_one_per_proposal(kind):
    detector = make(kind, class_agnostic_boxes=True).eval()
    assert detector.roi_heads.box_predictor.bbox_pred.out_features == 4
    with torch.inference_mode():
        detections = detector.predict([torch.rand(3, 64, 64)])[0]
    boxes = {tuple(box) for box in detections.boxes.round().tolist()}
    # Every proposal comes back once per class, with the same box.
    assert len(boxes) < len(detections.boxes)


@pytest.mark.parametrize("kind", RCNNS)
def test_roi_align_reads_as_many_levels_as_asked_for(kind):
    detector = make(kind, roi_num_levels=1).eval()
    pooler = getattr(detector.roi_heads, "box_roi_pool", None) or detector.roi_heads.box_pooler
    assert len(getattr(pooler, "level_poolers", getattr(pooler, "featmap_names", ()))) == 1
    with torch.inference_mode():
        assert len(detector.predict([torch.rand(3, 64, 64)])[0].boxes) > 0


@pytest.mark.parametrize("kind", RCNNS)
def test_the_fpn_takes_the_levels_that_the_backbone_gives(kind):
    detector = make(kind, out=("c3", "c4"), anchor_sizes=[16, 32, 64]).eval()
    with torch.inference_mode():
        assert len(detector.predict([torch.rand(3, 64, 64)])) == 1


def test_images_are_padded_below_and_to_the_right_to_multiples_of_32():
    batch, sizes = batch_images([torch.ones(3, 40, 64), torch.ones(3, 33, 20)])
    assert batch.shape == (2, 3, 64, 64)
    assert sizes == [(40, 64), (33, 20)]
    assert batch[1, :, :33, :20].all()
    assert not batch[1, :, 33:].any()
    assert not batch[1, :, :, 20:].any()


@pytest.mark.skipif(bool(find_spec("detectron2")), reason="detectron2 is installed")
def test_without_detectron2_its_engine_says_how_to_get_it():
    with pytest.raises(ImportError, match=r"detectron2 needs detectron2.*install it as"):
        make((Detectron2FasterRCNNConfig, {}))


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (TorchvisionFasterRCNNConfig, {"neck": "bifpn"}, r"unknown neck 'bifpn'; choose from"),
        (TorchvisionFasterRCNNConfig, {"neck": "none"}, r"neck=none is now called neck=c4"),
        (Detectron2CascadeConfig, C4, r"a cascade needs neck=fpn, not 'c4'"),
        (
            Detectron2CascadeConfig,
            {"class_agnostic_boxes": False},
            r"a cascade needs class_agnostic_boxes=true",
        ),
        (TorchvisionFasterRCNNConfig, {"frozen_stages": -1}, r"frozen_stages must be at least 0"),
        (TorchvisionFasterRCNNConfig, {"frozen_stages": 6}, r"frozen_stages must be at most 5"),
        (TorchvisionFasterRCNNConfig, {"box_loss_weight": 0.0}, r"box_loss_weight must be above 0"),
        (
            TorchvisionFasterRCNNConfig,
            {"roi_pool_size": 0},
            r"roi_pool_size must be at least 1, not 0",
        ),
        (TorchvisionRetinaNetConfig, {"anchor_sizes": [8]}, r"anchor_sizes needs one size per"),
        (
            TorchvisionFasterRCNNConfig,
            {"anchor_sizes": [8, 16]},
            r"one size per level, 4 for .* not 2",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(config, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        make((config, options))
    assert "\n" not in str(caught.value)
