"""Configuration of detection data, training recipes and inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from backbone.config import OPTIMIZERS, require_at_least, require_choice
from backbone.presets import Preset

BAD_BOXES = ("error", "drop")
IMAGE_MODES = ("link", "copy", "none")
EVALUATION_BACKENDS = ("hotcoco", "pycocotools")
"""The first is the default."""
RENAMED_BACKENDS = {"faster-coco-eval": "hotcoco"}
"""Former value of ``backend`` -> its value now."""
DETECTOR_SCHEDULES = ("cosine", "multistep")
RENAMED_SCHEDULES = {"steps": "multistep"}
"""Former value of ``schedule`` -> its value now."""

FORMAT_MARKERS: Mapping[str, Sequence[str]] = {
    "yolo": ("data.yaml", "labels"),
    "voc": ("ImageSets", "Annotations"),
    "wider": ("wider_face_split",),
}
"""Format that ``convert_annotations`` reads -> files and folders that tell it from COCO's."""

RENAMED_SETTINGS: Mapping[str, str] = {
    "neck_channels": "fpn_channels",
    "neck_norm": "fpn_norm",
    "head_features": "box_head_dim",
    "rpn_batch": "rpn_batch_size_per_image",
    "rpn_candidates_train": "rpn_pre_nms_top_n_train",
    "rpn_candidates_test": "rpn_pre_nms_top_n_test",
    "proposals_train": "rpn_post_nms_top_n_train",
    "proposals_test": "rpn_post_nms_top_n_test",
    "roi_batch": "roi_batch_size_per_image",
    "roi_samples": "roi_sampling_ratio",
    "crop_side": "roi_pool_size",
    "crop_levels": "roi_num_levels",
    "backbone_rate": "backbone_lr_mult",
    "decay_at": "lr_milestones",
    "decay_factor": "lr_gamma",
    "reference_batch": "reference_batch_size",
    "accumulate": "accumulate_grad_batches",
}
"""Former name of a setting -> its name now."""
RENAMED_CHOICES: Mapping[str, str] = {}
"""Former ``group=option`` -> the option now."""


def conversion_hint(root: str | Path) -> str:
    """Return what to do with a folder whose annotations are in another format; empty if unknown."""
    for name, markers in FORMAT_MARKERS.items():
        if any((Path(root) / marker).exists() for marker in markers):
            return (
                f"; the folder looks like {name}: convert it with `nasdet convert-annotations "
                f"source={root} source_format={name} out=...`"
            )
    return ""


@dataclass(kw_only=True, slots=True)
class DetectionDataConfig(Preset):
    """A data set laid out as COCO is."""

    preset_group: ClassVar[str] = "detection/data"

    root: str
    """The folder that the other paths start from."""
    train_annotations: str = "annotations/instances_train2017.json"
    """COCO JSON of the training images, below ``root``."""
    train_images: str = "train2017"
    """Folder of the training images, below ``root``."""
    val_annotations: str = "annotations/instances_val2017.json"
    """COCO JSON of the validation images, below ``root``."""
    val_images: str = "val2017"
    """Folder of the validation images, below ``root``."""
    shortest_side_px: int = 800
    """Images are resized so that their shorter side has this many pixels ..."""
    longest_side_px: int = 1333
    """... unless the longer side would then have more than this many."""
    bad_boxes: str = "error"
    """Treatment of boxes without area or outside their image: ``error`` or ``drop``."""
    keep_empty: bool = False
    """Whether training uses images without objects."""

    @classmethod
    def find(cls, root: str | Path, **settings: Any) -> DetectionDataConfig:
        """Return the config of a folder, by the names of its annotation files.

        Args:
            root: a folder in COCO format with the file names of a preset: those of COCO 2017
                (``coco``) or those that ``convert_annotations`` writes (``converted``).
            **settings: settings that replace those of the preset, such as ``shortest_side_px``.

        Raises:
            FileNotFoundError: if no preset's annotation files are there.
        """
        presets = [cls.preset(name, root=str(root)) for name in ("coco", "converted")]
        for config in presets:
            if (Path(root) / config.train_annotations).is_file():
                return replace(config, **settings)
        files = " or ".join(config.train_annotations for config in presets)
        raise FileNotFoundError(
            f"{root} has no {files}"
            + (
                conversion_hint(root)
                or "; for other names give a DetectionDataConfig(root=..., train_annotations=...)"
            )
        )

    def __post_init__(self) -> None:
        if self.bad_boxes not in BAD_BOXES:
            raise ValueError(f"unknown bad_boxes {self.bad_boxes!r}; choose from {BAD_BOXES}")
        if not 0 < self.shortest_side_px <= self.longest_side_px:
            raise ValueError(
                f"shortest_side_px must be above 0 and at most longest_side_px, not "
                f"{self.shortest_side_px} and {self.longest_side_px}"
            )


@dataclass(kw_only=True, slots=True)
class DetectorRecipe(Preset):
    """Training schedule, optimizer and augmentation of a detector."""

    preset_group: ClassVar[str] = "detection/recipe"

    iterations: int
    """Number of optimizer steps."""
    batch_size: int
    """Images per batch and process."""
    optimizer: str
    """``adamw``, ``muon``, ``rmsprop`` or ``sgd``; see ``backbone.training.optim.build_optimizer``.
    ``sgd`` is detectron2's: momentum 0.9, no Nesterov, weight decay of biases too."""
    learning_rate: float
    """Peak learning rate of the new layers, reached after the warm-up."""
    backbone_lr_mult: float = 1.0
    """Multiplier of ``learning_rate`` for the backbone."""
    weight_decay: float = 1e-4
    """Weight decay of weight matrices and filters, not of normalization; of biases under ``sgd``
    only."""
    schedule: str = "cosine"
    """Learning-rate schedule: ``cosine``, half a cosine down to 0; or ``multistep``, drops at
    ``lr_milestones``."""
    lr_milestones: list[int] = field(default_factory=list)
    """Steps at which the learning rate is multiplied by ``lr_gamma``, ascending."""
    lr_gamma: float = 0.1
    """Multiplier of the learning rate at each of ``lr_milestones``, above 0, at most 1."""
    warmup_iterations: int = 100
    """Number of steps over which the learning rate rises linearly from 0."""
    reference_batch_size: int = 0
    """Images per step, over all processes, for which learning rate and numbers of steps are given:
    with k times as many the rate is k times as high and the steps are k times fewer (Goyal et al.
    2017, section 2.1). 0: no scaling."""
    accumulate_grad_batches: int = 1
    """Number of batches whose gradients are accumulated for one step."""
    gradient_clip: float = 10.0
    """Maximum norm of the whole gradient; 0 disables clipping."""
    ema_decay: float = 0.0
    """Decay of the exponential moving average of the weights, which is then evaluated and written,
    0 to 1; 0 disables it."""
    horizontal_flip: bool = True
    """Random horizontal flip (p=0.5)."""
    vertical_flip: bool = False
    """Random vertical flip (p=0.5); for data without a canonical orientation."""
    shortest_sides_px: list[int] = field(default_factory=list)
    """Multi-scale training: the shorter side of each image is drawn from these; empty: the
    data's ``shortest_side_px``."""
    scale_jitter: list[float] = field(default_factory=list)
    """Large-scale jitter: minimum and maximum factor by which an image is scaled before a random
    crop (Ghiasi et al. 2021: 0.1 and 2.0); empty: none."""
    jitter_side_px: int = 1024
    """Side of that crop; at factor 1 it is the image's longer side."""
    group_by_aspect: bool = False
    """Whether to batch wide images with wide ones and others with others, which pads less."""
    checkpoint_every: int = 1000
    """Number of steps between the checkpoints from which an interrupted training resumes."""
    evaluate_every: int = 0
    """Number of steps between evaluations on the validation images; the weights with the best AP
    are written, of equal ones the later. 0: evaluate the last weights only."""
    patience: int = 0
    """Number of evaluations without a better AP after which training stops; 0: never."""

    def __post_init__(self) -> None:
        require_choice("optimizer", self.optimizer, OPTIMIZERS)
        require_choice("schedule", self.schedule, DETECTOR_SCHEDULES, renamed=RENAMED_SCHEDULES)
        for name in ("iterations", "batch_size", "accumulate_grad_batches", "checkpoint_every",
                     "jitter_side_px"):  # fmt: skip
            require_at_least(1, **{name: getattr(self, name)})
        for name in ("warmup_iterations", "reference_batch_size", "evaluate_every", "patience"):
            require_at_least(0, **{name: getattr(self, name)})
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, not {self.learning_rate}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be at least 0 and below 1, not {self.ema_decay}")
        self._check_schedule()
        self._check_sizes()

    def _check_schedule(self) -> None:
        if list(self.lr_milestones) != sorted(self.lr_milestones):
            raise ValueError(f"lr_milestones must ascend, not {list(self.lr_milestones)}")
        if not 0 < self.lr_gamma <= 1:
            raise ValueError(f"lr_gamma must be above 0 and at most 1, not {self.lr_gamma}")
        if (self.schedule == "multistep") != bool(self.lr_milestones):
            raise ValueError(
                "schedule=multistep and lr_milestones=[...] go together; give both or neither"
            )
        if self.patience and not self.evaluate_every:
            raise ValueError("patience needs evaluate_every")

    def _check_sizes(self) -> None:
        jitter = list(self.scale_jitter)
        if jitter and not (len(jitter) == 2 and 0 < jitter[0] <= jitter[1]):
            raise ValueError(f"scale_jitter needs two ascending factors above 0, not {jitter}")
        if jitter and self.shortest_sides_px:
            raise ValueError("give shortest_sides_px or scale_jitter, not both")
        if min(self.shortest_sides_px, default=1) < 1:
            raise ValueError(
                f"shortest_sides_px must be at least 1, not {list(self.shortest_sides_px)}"
            )


@dataclass(kw_only=True, slots=True)
class InferenceConfig:
    """Settings of inference with a trained detector; see ``detection.engine.tta``."""

    shortest_sides_px: list[int] = field(default_factory=list)
    """Shorter sides to which each image is resized; the detections of several sizes are merged.
    Empty: the size that the detector was trained for."""
    horizontal_flip: bool = False
    """Whether to detect in the horizontally flipped image, too."""
    score_threshold: float | None = None
    """Minimum score of a detection, 0 to 1; null: the detector's own."""
    max_detections: int = 0
    """Maximum number of detections per image; 0: the detector's own."""

    def __post_init__(self) -> None:
        if min(self.shortest_sides_px, default=1) < 1 or self.max_detections < 0:
            raise ValueError(
                f"shortest_sides_px must be at least 1 and max_detections at least 0, not "
                f"{list(self.shortest_sides_px)} and {self.max_detections}"
            )
        if self.score_threshold is not None and not 0 <= self.score_threshold <= 1:
            raise ValueError(f"score_threshold must be between 0 and 1, not {self.score_threshold}")
