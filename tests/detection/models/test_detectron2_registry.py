"""detectron2's own models, configs and scripts on our backbones."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from small_detectors import C4, examples, make

pytest.importorskip("detectron2")
pytest.importorskip("detection.models.detectron2.registry")  # hides the warnings of a first import

from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.modeling import BACKBONE_REGISTRY, build_model
from detectron2.modeling import build_backbone as build_detectron2_backbone
from detectron2.modeling.meta_arch import GeneralizedRCNN, RetinaNet
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from backbone.models.backbone import build_backbone
from detection.models.config import Detectron2FasterRCNNConfig, TorchvisionFasterRCNNConfig
from detection.models.detectron2.registry import (
    NasdetBackbone,
    add_nasdet_config,
    nasdet_backbone,
    to_detectron2_state,
)

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:torch.meshgrid. in an upcoming release:UserWarning"),
]
CONF = Path(__file__).parents[3] / "docs" / "detectron2"
SPEC = "nasnet_a:1@96"


@pytest.fixture(autouse=True)
def _storage():
    """The event storage of a detectron2 training."""
    with EventStorage():
        yield


def small_cfg(*options):
    cfg = get_cfg()
    add_nasdet_config(cfg)
    cfg.merge_from_file(str(CONF / "nasnet_fpn.yaml"))
    small = {
        "MODEL.DEVICE": "cpu",
        "MODEL.NASDET.SPEC": SPEC,
        "MODEL.FPN.OUT_CHANNELS": 16,
        "MODEL.ROI_HEADS.NUM_CLASSES": 3,
        "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    }
    pairs = [item for pair in small.items() for item in pair]
    cfg.merge_from_list([*pairs, *options])
    return cfg


def theirs(image, *, order="BGR"):
    """Return an image in [0, 1] as detectron2's data loader gives it."""
    pixels = (image * 255).round()
    return {"image": pixels.flip(0) if order == "BGR" else pixels}


@pytest.mark.parametrize("order", ["BGR", "RGB"])
@pytest.mark.parametrize(
    ("mean", "std"), [([0.0] * 3, [1.0] * 3), ([103.5, 116.3, 123.7], [57.4, 57.1, 58.4])]
)
def test_the_backbone_gets_the_pixels_that_it_expects(order, mean, std):
    backbone = build_backbone(SPEC).eval()
    wrapped = NasdetBackbone(backbone, pixel_mean=mean, pixel_std=std, input_format=order).eval()
    image = (torch.rand(3, 64, 64) * 255).round() / 255
    pixels = theirs(image, order=order)["image"]
    statistics = (torch.tensor(v).view(3, 1, 1) for v in (mean, std))
    normalized = (pixels - next(statistics)) / next(statistics)
    with torch.inference_mode():
        expected, given = backbone(image[None]), wrapped(normalized[None])
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)
    assert {n: s.stride for n, s in wrapped.output_shape().items()} == backbone.strides
    assert wrapped.size_divisibility == 32


def test_detectron2_s_model_finds_the_boxes_that_our_detector_finds():
    options = {"anchor_sizes": [32, 64, 128, 256, 512], "rpn_post_nms_top_n_test": 1000}
    options |= {"rpn_pre_nms_top_n_test": 1000}
    ours = make((Detectron2FasterRCNNConfig, options)).eval()
    model = build_model(small_cfg()).eval()
    model.load_state_dict(to_detectron2_state(ours))
    images, _ = examples()  # of different sizes, so that one of them is padded
    images = [(image * 255).round() / 255 for image in images]
    with torch.inference_mode():
        own = ours.predict(images)
        outputs = model([theirs(image) for image in images])
    for detections, output in zip(own, outputs, strict=True):
        other = output["instances"]
        assert len(other) == len(detections.boxes) > 10
        torch.testing.assert_close(other.pred_boxes.tensor, detections.boxes)
        torch.testing.assert_close(other.scores, detections.scores)
        assert torch.equal(other.pred_classes, detections.labels)


def test_a_model_of_the_yaml_trains_and_freezes_what_freeze_at_says():
    model = build_model(small_cfg("MODEL.BACKBONE.FREEZE_AT", 2)).train()
    assert isinstance(model, GeneralizedRCNN)
    frozen = {n.split(".")[4] for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"stem", "cells"}
    losses = model(with_instances())
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def with_instances():
    images, targets = examples()
    return [
        theirs(image)
        | {
            "instances": Instances(
                tuple(image.shape[1:]), gt_boxes=Boxes(t.boxes), gt_classes=t.labels
            )
        }
        for image, t in zip(images, targets, strict=True)
    ]


def test_retinanet_of_a_yaml_has_the_pyramid_that_it_needs():
    cfg = small_cfg(
        "MODEL.META_ARCHITECTURE", "RetinaNet",
        "MODEL.BACKBONE.NAME", "build_nasdet_retinanet_fpn_backbone",
        "MODEL.FPN.IN_FEATURES", ["c3", "c4", "c5"],
        "MODEL.NASDET.OUT_FEATURES", ["c3", "c4", "c5"],
    )  # fmt: skip
    model = build_model(cfg)
    assert isinstance(model, RetinaNet)
    assert list(model.backbone.output_shape()) == ["p3", "p4", "p5", "p6", "p7"]
    sum(model.train()(with_instances()).values()).backward()


def test_a_backbone_without_a_pyramid_is_in_the_registry():
    cfg = small_cfg("MODEL.BACKBONE.NAME", "build_nasdet_backbone")
    assert isinstance(build_detectron2_backbone(cfg), NasdetBackbone)
    add_nasdet_config(get_cfg())  # a second time does no harm
    assert "build_nasdet_fpn_backbone" in BACKBONE_REGISTRY


@pytest.mark.parametrize("name", ["nasnet_fpn", "nasnet_mask_rcnn_fpn"])
def test_the_lazy_configs_build_models_that_train(name):
    config = LazyConfig.load(str(CONF / f"{name}.py"))
    config = LazyConfig.apply_overrides(
        config,
        [f"model.backbone.bottom_up.spec={SPEC}", "model.roi_heads.num_classes=3",
         "model.roi_heads.batch_size_per_image=16"],
    )  # fmt: skip
    model = instantiate(config.model).train()
    assert isinstance(model.backbone.bottom_up, NasdetBackbone)
    data = with_instances()
    if "mask" in name:
        for record in data:
            shape = (len(record["instances"]), *record["image"].shape[1:])
            record["instances"].gt_masks = BitMasks(torch.ones(shape, dtype=torch.bool))
    losses = model(data)
    assert ("loss_mask" in losses) == ("mask" in name)
    assert all(torch.isfinite(loss) for loss in losses.values())
    config.optimizer.params.model = model
    assert instantiate(config.optimizer).defaults["lr"] == 0.02


def test_detectron2_s_scripts_know_the_backbones_by_an_environment_variable():
    code = (
        "from detectron2.config import get_cfg; cfg = get_cfg(); print(cfg.MODEL.NASDET.SPEC); "
        "from detectron2.modeling import BACKBONE_REGISTRY; "
        "print(BACKBONE_REGISTRY.get('build_nasdet_fpn_backbone').__module__); "
        "import sys; print('detectron2.model_zoo' in sys.modules)"
    )
    root = str(CONF.parents[1])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ
        | {"DETECTRON2_ENV_MODULE": "detection.models.detectron2.registry", "PYTHONPATH": root},
    )
    assert done.stdout.split() == [
        "nasnet_a:4@1056",
        "detection.models.detectron2.registry",
        "False",
    ], done.stderr


def test_frozen_random_weights_are_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        nasdet_backbone(spec=SPEC, frozen_stages=2)
    assert "2 stages of nasnet_a:1@96 are frozen with random weights" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_format": "L"}, r"unknown input_format 'L'; choose from"),
        ({"pixel_mean": [1.0]}, r"pixel_mean and pixel_std need 3 values each, not \[1.0\]"),
        ({"frozen_stages": 9}, r"frozen_stages must be at most 5"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        nasdet_backbone(**{"spec": SPEC, **options})


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ((TorchvisionFasterRCNNConfig, {}), "TorchvisionFasterRCNN"),
        ((Detectron2FasterRCNNConfig, C4), "Detectron2FasterRCNN"),
    ],
    ids=["torchvision", "none"],
)
def test_weights_without_a_name_in_detectron2_are_refused(kind, name):
    with pytest.raises(ValueError, match=f"with neck=fpn have detectron2's names, not {name}"):
        to_detectron2_state(make(kind))
