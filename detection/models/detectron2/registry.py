"""nasdet backbones in detectron2's own configs, models and scripts.

In its YAML configs they are ``MODEL.BACKBONE.NAME`` ``build_nasdet_fpn_backbone``,
``build_nasdet_retinanet_fpn_backbone`` and, without an FPN, ``build_nasdet_backbone``; their
settings are under ``MODEL.NASDET``. Its scripts load them with the environment variable
``DETECTRON2_ENV_MODULE=detection.models.detectron2.registry``; in Python call
``add_nasdet_config``. In LazyConfig files use ``nasdet_backbone``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from backbone.models.backbone import LEVELS, Backbone, build_backbone
from detection.models.detector import Detector
from detection.models.detectron2.faster_rcnn import Detectron2FasterRCNN
from detection.models.detectron2.parts import (
    BACKBONE_REGISTRY,
    FPN,
    Detectron2Backbone,
    LastLevelMaxPool,
    LastLevelP6P7,
    ShapeSpec,
    shapes_of,
)

CHANNEL_ORDERS = ("RGB", "BGR")
DETECTRON2_NAMES = {
    "backbone": "backbone.bottom_up.body",
    "neck": "backbone",
    "rpn": "proposal_generator",
    "roi_heads": "roi_heads",
}
"""Part of a detector of ours -> its name in detectron2's GeneralizedRCNN."""
RAW_MEAN, RAW_STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

logger = logging.getLogger(__name__)


class NasdetBackbone(Detectron2Backbone):  # type: ignore[misc]  # untyped package
    """A ``Backbone`` of ours for images as detectron2 prepares them.

    detectron2 subtracts ``pixel_mean`` from pixels of 0 to 255 and divides by ``pixel_std``; this
    module takes that back, since the backbone normalizes by itself. Let them be 0 and 1: then the
    zeros with which detectron2 pads a batch are black, as in our own trainings, and not the mean.

    Args:
        backbone: becomes a child.
        pixel_mean: detectron2's, one per channel in the order of ``input_format``.
        pixel_std: likewise.
        input_format: ``BGR`` or ``RGB``.

    Shape:
        - images: (B, 3, H, W)
        - output: a map per level of the backbone, by its name (``c2``, ...)

    Raises:
        ValueError: if there is no such format, or not three values per statistic.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        pixel_mean: Sequence[float] = RAW_MEAN,
        pixel_std: Sequence[float] = RAW_STD,
        input_format: str = "BGR",
    ) -> None:
        super().__init__()
        if input_format not in CHANNEL_ORDERS:
            raise ValueError(f"unknown input_format {input_format!r}; choose from {CHANNEL_ORDERS}")
        if len(pixel_mean) != 3 or len(pixel_std) != 3:
            raise ValueError(
                f"pixel_mean and pixel_std need 3 values each, not {list(pixel_mean)} and "
                f"{list(pixel_std)}"
            )
        self.body = backbone
        self.is_bgr = input_format == "BGR"
        self._mean: Tensor
        self._std: Tensor
        for name, values in (("_mean", pixel_mean), ("_std", pixel_std)):
            tensor = torch.tensor([float(v) for v in values]).view(3, 1, 1)
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        pixels = (images * self._std + self._mean) / 255
        return self.body(pixels.flip(1) if self.is_bgr else pixels)

    def output_shape(self) -> dict[str, ShapeSpec]:
        return shapes_of(self.body)

    @property
    def size_divisibility(self) -> int:
        """Number of pixels that must divide the sides of a batch."""
        return max(self.body.strides.values())


def nasdet_backbone(  # noqa: PLR0913  # detectron2's configs have that many settings
    *,
    spec: str,
    out_features: Sequence[str] = LEVELS,
    pretrained: bool = False,
    norm: str = "batch",
    frozen_stages: int = 0,
    pixel_mean: Sequence[float] = RAW_MEAN,
    pixel_std: Sequence[float] = RAW_STD,
    input_format: str = "BGR",
) -> NasdetBackbone:
    """Build a spec's backbone for detectron2; in a LazyConfig, ``L(nasdet_backbone)(spec=...)``.

    Args:
        spec: see ``backbone.models.backbone``; a ``.safetensors`` file comes with its weights.
        out_features: names of the maps, ``c2`` to ``c5``.
        pretrained: load timm's or torchvision's released weights.
        norm: ``batch``, ``frozen``, ``sync`` or ``group``.
        frozen_stages: as ``MODEL.BACKBONE.FREEZE_AT``; see ``Backbone.freeze_stages``.
        pixel_mean: the model's; see ``NasdetBackbone``.
        pixel_std: the model's.
        input_format: the model's.

    Raises:
        ValueError: if the spec, the norm or the maps are wrong; see ``build_backbone``.
        FileNotFoundError: if the spec's file does not exist.
    """
    backbone = build_backbone(spec, pretrained=pretrained, norm=norm, out=list(out_features))
    if frozen_stages and not (pretrained or spec.endswith(".safetensors")):
        logger.warning(
            "%d stages of %s are frozen with random weights; give a .safetensors file as spec, "
            "pretrained weights, or frozen_stages=0 (MODEL.BACKBONE.FREEZE_AT 0)",
            frozen_stages, spec,
        )  # fmt: skip
    backbone.freeze_stages(frozen_stages)
    return NasdetBackbone(
        backbone, pixel_mean=pixel_mean, pixel_std=pixel_std, input_format=input_format
    )


def build_nasdet_backbone(cfg: Any, input_shape: ShapeSpec) -> NasdetBackbone:
    """Build the backbone of ``cfg.MODEL.NASDET`` without a feature pyramid."""
    if input_shape.channels != 3:
        raise ValueError(f"images need 3 channels, not {input_shape.channels}")
    options = cfg.MODEL.NASDET
    return nasdet_backbone(
        spec=options.SPEC,
        out_features=options.OUT_FEATURES,
        pretrained=options.PRETRAINED,
        norm=options.NORM,
        frozen_stages=cfg.MODEL.BACKBONE.FREEZE_AT,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
        input_format=cfg.INPUT.FORMAT,
    )


def build_nasdet_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> FPN:
    """Build the backbone and detectron2's FPN on ``MODEL.FPN.IN_FEATURES``, with a pooled p6."""
    top = LastLevelMaxPool()
    top.in_feature = cfg.MODEL.FPN.IN_FEATURES[-1].replace("c", "p")
    return _pyramid(cfg, build_nasdet_backbone(cfg, input_shape), top)


def build_nasdet_retinanet_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> FPN:
    """Build the backbone and detectron2's FPN with the p6 and p7 that RetinaNet has."""
    bottom_up = build_nasdet_backbone(cfg, input_shape)
    last = cfg.MODEL.FPN.IN_FEATURES[-1]
    top = LastLevelP6P7(
        bottom_up.output_shape()[last].channels, cfg.MODEL.FPN.OUT_CHANNELS, in_feature=last
    )
    return _pyramid(cfg, bottom_up, top)


def _pyramid(cfg: Any, bottom_up: NasdetBackbone, top: Any) -> FPN:
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def to_detectron2_state(detector: Detector) -> dict[str, Tensor]:
    """Return a detector's weights under the names of detectron2's model of the same kind.

    Saved as ``torch.save({"model": state}, path)`` they are a ``MODEL.WEIGHTS`` for a config with
    ``build_nasdet_fpn_backbone``, the detector's sizes and the spec of its backbone.

    Args:
        detector: Faster R-CNN with FPN, or a cascade, of the detectron2 engine.

    Raises:
        ValueError: if it is of another kind.
    """
    if not isinstance(detector, Detectron2FasterRCNN) or not isinstance(detector.neck, FPN):
        raise ValueError(
            "only detectors of detector=detectron2 or detectron2_cascade with neck=fpn have "
            f"detectron2's names, not {type(detector).__name__}"
        )
    state: dict[str, Tensor] = {}
    for name, value in detector.state_dict().items():
        part, _, rest = name.partition(".")
        state[f"{DETECTRON2_NAMES[part]}.{rest}"] = value
    return state


def add_nasdet_config(cfg: Any) -> None:
    """Add ``MODEL.NASDET`` to a config of detectron2 and our builders to its registry."""
    from detectron2.config import CfgNode

    cfg.MODEL.NASDET = CfgNode()
    cfg.MODEL.NASDET.SPEC = "nasnet_a:4@1056"
    cfg.MODEL.NASDET.PRETRAINED = False
    cfg.MODEL.NASDET.NORM = "batch"
    cfg.MODEL.NASDET.OUT_FEATURES = list(LEVELS)
    for build in (
        build_nasdet_backbone,
        build_nasdet_fpn_backbone,
        build_nasdet_retinanet_fpn_backbone,
    ):
        if build.__name__ not in BACKBONE_REGISTRY:
            BACKBONE_REGISTRY.register(build)


def setup_environment() -> None:
    """Make every config of this process know our backbones.

    detectron2 calls it when it is imported with ``DETECTRON2_ENV_MODULE`` naming this module.
    """
    from detectron2.config import defaults

    add_nasdet_config(defaults._C)
