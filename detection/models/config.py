"""Configuration of detectors, and the table that names them.

The defaults are those that detectron2 publishes for Faster R-CNN with FPN
(``configs/Base-RCNN-FPN.yaml``) and RetinaNet (``configs/Base-RetinaNet.yaml``); the detectors of
torchvision and of detectron2 read the same fields. Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from backbone.config import Choice, require_at_least, require_choice
from backbone.presets import Preset

NECKS = ("fpn", "c4")
FPN_NORMS = ("none", "batch")
RENAMED_NECKS = {"none": "c4"}
"""Former value of ``neck`` -> its value now."""


@dataclass(kw_only=True, slots=True)
class DetectorConfig(Preset):
    """Settings that every detector has. The type of a config selects the detector."""

    preset_group: ClassVar[str] = "detection/detector"
    preset_table: ClassVar[str] = "detection.models.config:DETECTORS"

    frozen_stages: int = 0
    """Number of backbone stages without gradients: 0 for none, 1 for the stem, 2 up to c2, ...
    (detectron2 publishes 2 for pretrained backbones)."""
    fpn_channels: int = 256
    """Channels of the FPN's maps p2, p3, ...; not used with ``neck=c4``."""
    fpn_norm: str = "none"
    """Normalization in the FPN: ``none`` or ``batch``."""
    box_loss_weight: float = 1.0
    """Weight of the box-regression losses; classification losses have weight 1."""
    score_threshold: float = 0.05
    """Minimum score of a detection, 0 to 1."""
    nms_threshold: float = 0.5
    """IoU above which a detection is suppressed by a better one of its class, 0 to 1."""
    max_detections: int = 100
    """Maximum number of detections per image; COCO counts 100."""

    def __post_init__(self) -> None:
        require_choice("fpn_norm", self.fpn_norm, FPN_NORMS)
        require_at_least(0, frozen_stages=self.frozen_stages)
        require_at_least(1, fpn_channels=self.fpn_channels, max_detections=self.max_detections)
        _require_fraction(score_threshold=self.score_threshold, nms_threshold=self.nms_threshold)
        if not self.box_loss_weight > 0:
            raise ValueError(f"box_loss_weight must be above 0, not {self.box_loss_weight}")

    def check_levels(self, levels: tuple[str, ...]) -> None:
        """Raise a ValueError if the settings do not fit the levels of a backbone."""


@dataclass(kw_only=True, slots=True)
class AnchorConfig(DetectorConfig):
    """Settings of detectors with anchors."""

    anchor_sizes: list[int] = field(default_factory=lambda: [32, 64, 128, 256, 512])
    """Side of a square anchor per level, in pixels, from p2 on. One more than the backbone has
    maps adds a pooled level (p6). With ``neck=c4`` all are on the one map."""
    anchor_ratios: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])
    """Aspect ratios of the anchors at each location: height divided by width."""

    def __post_init__(self) -> None:
        DetectorConfig.__post_init__(self)  # a slots dataclass has no working super()
        if not self.anchor_sizes or min(self.anchor_sizes) <= 0:
            raise ValueError(f"anchor_sizes needs values above 0, not {list(self.anchor_sizes)}")
        if not self.anchor_ratios or min(self.anchor_ratios) <= 0:
            raise ValueError(f"anchor_ratios needs values above 0, not {list(self.anchor_ratios)}")

    def check_levels(self, levels: tuple[str, ...]) -> None:
        count = len(levels)
        if len(self.anchor_sizes) not in (count, count + 1):
            raise ValueError(
                f"anchor_sizes needs one size per level, {count} for {list(levels)} or "
                f"{count + 1} with a pooled one, not {len(self.anchor_sizes)}"
            )


@dataclass(kw_only=True, slots=True)
class FasterRCNNConfig(AnchorConfig):
    """Faster R-CNN (Ren et al. 2015), with FPN (Lin et al. 2017) or on a C4 backbone."""

    neck: str = "fpn"
    """``fpn``; or ``c4``, as in Zoph et al. 2018, section 4.3: proposals from the map at stride 16
    alone, and the rest of the backbone as the box head on crops of that map."""
    box_head_dim: int = 1024
    """Dimension of the two hidden layers of the box head; not used with ``neck=c4``."""
    rpn_channels: int = 0
    """Channels of the RPN's hidden layer; 0: those of the maps."""
    rpn_batch_size_per_image: int = 256
    """Anchors per image that are sampled for the RPN loss, at most half of them positive."""
    rpn_pre_nms_top_n_train: int = 2000
    """Best-scored anchors per level that are kept before NMS, in training."""
    rpn_pre_nms_top_n_test: int = 1000
    """Best-scored anchors per level that are kept before NMS, in evaluation."""
    rpn_post_nms_top_n_train: int = 1000
    """Proposals per image that are kept after NMS, in training."""
    rpn_post_nms_top_n_test: int = 1000
    """Proposals per image that are kept after NMS, in evaluation."""
    roi_batch_size_per_image: int = 512
    """Proposals per image that are sampled for the loss of the box head."""
    roi_positive_fraction: float = 0.25
    """Maximum fraction of positives among them, 0 to 1; more helps a short training, since the
    background is learned first."""
    roi_sampling_ratio: int = 0
    """Sampling points per RoIAlign bin along each side; 0: one per pixel of the bin."""
    roi_pool_size: int = 7
    """Height and width of the RoIAlign output (Lin et al. 2017: 7; 17 with ``neck=c4``: Zoph et
    al. 2018's released code)."""
    roi_num_levels: int = 0
    """Number of maps, from the finest on, that RoIAlign reads, each box from the one that fits its
    size; 0: as many as the backbone has."""
    class_agnostic_boxes: bool = False
    """Whether box regression is shared by all classes instead of one per class."""

    def __post_init__(self) -> None:
        AnchorConfig.__post_init__(self)
        require_choice("neck", self.neck, NECKS, renamed=RENAMED_NECKS)
        for name in (
            "box_head_dim", "rpn_batch_size_per_image", "roi_batch_size_per_image", "roi_pool_size",
            "rpn_pre_nms_top_n_train", "rpn_pre_nms_top_n_test",
            "rpn_post_nms_top_n_train", "rpn_post_nms_top_n_test",
        ):  # fmt: skip
            require_at_least(1, **{name: getattr(self, name)})
        for name in ("rpn_channels", "roi_sampling_ratio", "roi_num_levels"):
            require_at_least(0, **{name: getattr(self, name)})
        _require_fraction(roi_positive_fraction=self.roi_positive_fraction)

    def check_levels(self, levels: tuple[str, ...]) -> None:
        if self.neck == "fpn":
            AnchorConfig.check_levels(self, levels)


@dataclass(kw_only=True, slots=True)
class TorchvisionFasterRCNNConfig(FasterRCNNConfig):
    """Faster R-CNN built from torchvision's components."""


@dataclass(kw_only=True, slots=True)
class Detectron2FasterRCNNConfig(FasterRCNNConfig):
    """Faster R-CNN built from detectron2's components."""


@dataclass(kw_only=True, slots=True)
class Detectron2CascadeConfig(FasterRCNNConfig):
    """Cascade R-CNN (Cai & Vasconcelos 2018) built from detectron2's components.

    Three box heads, each refining the boxes of the one before, with ``ROI_BOX_CASCADE_HEAD`` of
    detectron2's ``config/defaults.py``; its other defaults are those of
    ``configs/Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml``.
    """

    class_agnostic_boxes: bool = True
    """Must be true: the box regression of a cascade is shared by all classes."""
    rpn_post_nms_top_n_train: int = 2000
    """Proposals per image that are kept after NMS, in training."""

    def __post_init__(self) -> None:
        FasterRCNNConfig.__post_init__(self)
        if self.neck != "fpn":
            raise ValueError(f"a cascade needs neck=fpn, not {self.neck!r}")
        if not self.class_agnostic_boxes:
            raise ValueError("a cascade needs class_agnostic_boxes=true")


@dataclass(kw_only=True, slots=True)
class RetinaNetConfig(AnchorConfig):
    """RetinaNet with FPN (Lin et al. 2017, "Focal loss").

    Every level has anchors of its size, and of that size times 2^(1/3) and 2^(2/3). As many
    ``anchor_sizes`` as the backbone has maps put them on p2 to p5, one more on p3 to p7, as
    published.
    """

    topk_candidates: int = 1000
    """Best-scored anchors per level that are kept before NMS, in evaluation."""

    def __post_init__(self) -> None:
        AnchorConfig.__post_init__(self)
        require_at_least(1, topk_candidates=self.topk_candidates)


@dataclass(kw_only=True, slots=True)
class TorchvisionRetinaNetConfig(RetinaNetConfig):
    """RetinaNet built from torchvision's components."""


@dataclass(kw_only=True, slots=True)
class Detectron2RetinaNetConfig(RetinaNetConfig):
    """RetinaNet built from detectron2's components."""


DETECTORS: Mapping[str, Choice] = {
    "torchvision": Choice(
        TorchvisionFasterRCNNConfig,
        "detection.models.torchvision.faster_rcnn:TorchvisionFasterRCNN",
    ),
    "torchvision_retinanet": Choice(
        TorchvisionRetinaNetConfig, "detection.models.torchvision.retinanet:TorchvisionRetinaNet"
    ),
    "detectron2": Choice(
        Detectron2FasterRCNNConfig, "detection.models.detectron2.faster_rcnn:Detectron2FasterRCNN"
    ),
    "detectron2_cascade": Choice(
        Detectron2CascadeConfig, "detection.models.detectron2.faster_rcnn:Detectron2FasterRCNN"
    ),
    "detectron2_retinanet": Choice(
        Detectron2RetinaNetConfig, "detection.models.detectron2.retinanet:Detectron2RetinaNet"
    ),
}
"""Name of a detector, on the command line and in files -> its config and its class, which is called
as ``(backbone, *, num_classes, config)``."""


def detector_name(config: DetectorConfig) -> str:
    """Return the name of the detector that a config selects by its type.

    Raises:
        TypeError: if the table has no such config.
    """
    for name, choice in DETECTORS.items():
        if type(config) is choice.config:
            return name
    known = sorted(choice.config.__name__ for choice in DETECTORS.values())
    raise TypeError(f"no detector has a {type(config).__name__}; choose from {known}")


def _require_fraction(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be between 0 and 1, not {value}")
