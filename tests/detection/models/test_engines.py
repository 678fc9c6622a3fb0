"""What every kind of detector of both engines does."""

import copy

import pytest
import torch

from backbone.models.backbone import build_backbone
from backbone.models.normalization import FrozenBatchNorm2d
from detection.config import (
    Detectron2CascadeConfig,
    Detectron2DetectorConfig,
    Detectron2RetinaNetConfig,
    TorchvisionDetectorConfig,
    TorchvisionRetinaNetConfig,
)
from detection.models.checkpoint import ENGINES, DetectorInfo, load_detector, save_detector
from detection.structures import Target
from small_detectors import KINDS, SINGLE, SMALL, examples, make, needs_detectron2

each_kind = pytest.mark.parametrize("kind", KINDS)


def summed(detector):
    images, targets = examples()
    torch.manual_seed(0)
    losses = detector.losses(images, targets)
    assert all(torch.isfinite(loss) for loss in losses.values()), losses
    return torch.stack(list(losses.values())).sum(), losses


@pytest.mark.parametrize("options", [{}, {"neck_norm": "batch", "frozen_stages": 2}], ids=str)
@each_kind
def test_losses_are_finite_and_reach_every_weight_that_learns(kind, options):
    detector = make(kind, **options).train()
    total, _ = summed(detector)
    total.backward()
    idle = [n for n, p in detector.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle
    assert any(not p.requires_grad for p in detector.parameters()) == bool(options)


@each_kind
def test_an_image_without_objects_can_be_trained_on(kind):
    detector = make(kind).train()
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    losses = detector.losses([torch.rand(3, 64, 64)], [nothing])
    assert all(torch.isfinite(loss) for loss in losses.values())


@each_kind
def test_detections_lie_inside_their_own_image_and_come_best_first(kind):
    detector = make(kind).eval()
    images, _ = examples()
    with torch.inference_mode():
        found = detector.predict(images)
    for detections, image in zip(found, images, strict=True):
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
    detector = make(kind, neck_norm="batch").train()
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
        config=kind[0](**(SMALL | kind[1] | {"frozen_stages": 1})),
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
def test_the_weight_of_places_weighs_their_losses_alone(kind):
    _, plain = summed(make(kind).train())
    _, doubled = summed(make(kind, box_loss_weight=2.0).train())
    for name, loss in plain.items():
        factor = 2 if any(word in name for word in ("loc", "box_reg")) else 1
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
    config = Detectron2DetectorConfig()
    torch.manual_seed(0)
    detector = make((Detectron2DetectorConfig, vars_of(config)), num_classes=80)
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


def test_every_kind_has_a_name_in_files():
    kinds = {
        TorchvisionDetectorConfig,
        TorchvisionRetinaNetConfig,
        Detectron2DetectorConfig,
        Detectron2CascadeConfig,
        Detectron2RetinaNetConfig,
    }
    assert set(ENGINES.values()) == kinds


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (TorchvisionDetectorConfig, {"neck": "bifpn"}, r"unknown neck 'bifpn'; choose from"),
        (TorchvisionRetinaNetConfig, SINGLE, r"RetinaNet needs neck=fpn, not 'none'"),
        (Detectron2RetinaNetConfig, SINGLE, r"RetinaNet needs neck=fpn, not 'none'"),
        (Detectron2CascadeConfig, SINGLE, r"a cascade needs neck=fpn, not 'none'"),
        (
            Detectron2CascadeConfig,
            {"class_agnostic_boxes": False},
            r"a cascade needs class_agnostic_boxes=true",
        ),
        (TorchvisionDetectorConfig, {"frozen_stages": -1}, r"frozen_stages must be at least 0"),
        (TorchvisionDetectorConfig, {"frozen_stages": 6}, r"frozen_stages must be at most 5"),
        (TorchvisionDetectorConfig, {"box_loss_weight": 0.0}, r"box_loss_weight must be above 0"),
        (TorchvisionDetectorConfig, {"crop_side": 0}, r"crop_side must be at least 1, not 0"),
        (TorchvisionRetinaNetConfig, {"anchor_sizes": [8]}, r"anchor_sizes needs one size per"),
    ],
)
def test_what_does_not_go_together_is_refused(config, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        make((config, options))
    assert "\n" not in str(caught.value)
