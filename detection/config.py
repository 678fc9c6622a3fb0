"""Configuration for detectors, data and training.

The defaults of a detector are those that detectron2 publishes for Faster R-CNN with FPN
(``configs/Base-RCNN-FPN.yaml``); both engines read the same fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from backbone.config import MIN_WIDTH, OPTIMIZERS, require_at_least

NECKS = ("fpn", "none")
NECK_NORMS = ("none", "batch")
BAD_BOXES = ("error", "drop")
SOURCE_FORMATS = ("coco", "voc", "yolo", "wider")
TARGET_FORMATS = ("coco", "voc", "yolo")
IMAGE_MODES = ("link", "copy", "none")
EVALUATION_BACKENDS = ("faster-coco-eval", "pycocotools")
"""The first is the default."""
DETECTOR_SCHEDULES = ("cosine", "steps")
REWARD_PRECISIONS = ("32-true", "bf16-mixed")
_LOWEST = {
    "frozen_stages": 0,
    "neck_channels": 1,
    "rpn_channels": 0,
    "crop_side": 1,
    "head_features": 1,
    "rpn_batch": 1,
    "roi_batch": 1,
    "max_detections": 1,
    "roi_samples": 0,
    "crop_levels": 0,
}
_LOWEST_OF_RECIPE = {
    "iterations": 1,
    "batch_size": 1,
    "accumulate": 1,
    "checkpoint_every": 1,
    "jitter_side_px": 1,
    "warmup_iterations": 0,
    "reference_batch": 0,
    "evaluate_every": 0,
    "patience": 0,
}


@dataclass(kw_only=True, slots=True)
class DetectorConfig:
    """Faster R-CNN with FPN (Ren et al. 2015; Lin et al. 2017). The subclass names the engine."""

    neck: str = "fpn"
    """``fpn``; or ``none``, as the paper has it: proposals from the map at stride 16 alone, and the
    rest of the backbone as the box head on crops of that map (Zoph et al. 2018, section 4.3)."""
    frozen_stages: int = 0
    """How many of the backbone's stages do not learn: 0 for none, 1 for the stem, 2 up to c2, ...
    (detectron2 publishes 2 for pretrained backbones)."""
    anchor_sizes: list[int] = field(default_factory=lambda: [32, 64, 128, 256, 512])
    """Side of a square anchor per level, in pixels, from p2 on. One more than the backbone has
    maps adds a pooled level (p6). With ``neck=none`` all are on the one map."""
    anchor_ratios: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])
    """Height divided by width of the anchors at each place."""
    neck_channels: int = 256
    """Channels of the pyramid's maps p2, p3, ...; not used with ``neck=none``."""
    neck_norm: str = "none"
    """Normalization in the pyramid: ``none`` or ``batch``."""
    head_features: int = 1024
    """Width of the two hidden layers of the box head; not used with ``neck=none``."""
    rpn_channels: int = 0
    """Width of the region proposals' hidden layer; 0: that of the maps."""
    rpn_batch: int = 256
    """Anchors per image in the loss of the region proposals, half of them objects at most."""
    rpn_candidates_train: int = 2000
    """Best-scored anchors per level that suppression looks at, in training."""
    rpn_candidates_test: int = 1000
    """The same in evaluation."""
    proposals_train: int = 1000
    """Proposals per image that go to the box head, in training."""
    proposals_test: int = 1000
    """The same in evaluation."""
    roi_batch: int = 512
    """Proposals per image in the loss of the box head."""
    roi_positive_fraction: float = 0.25
    """The greatest share of objects among them, 0 to 1; more helps a short training, since the
    background is learnt first."""
    roi_samples: int = 0
    """Points along each side of a crop's cell at which the map is read; 0 takes as many as the
    cell has pixels."""
    crop_side: int = 7
    """Rows and columns of the crop that the box head sees (Lin et al. 2017: 7; 17 without a
    pyramid: Zoph et al. 2018's released code)."""
    crop_levels: int = 0
    """How many maps, from the finest on, the box head's crops are taken from, each crop from the
    one that fits its size; 0: from all of the backbone's."""
    class_agnostic_boxes: bool = False
    """Whether the box head refines a box in one way for all classes instead of one per class."""
    box_loss_weight: float = 1.0
    """Weight of the losses of places, the proposals' and the boxes'; those of classes have 1."""
    score_threshold: float = 0.05
    """Detections below this score are dropped, 0 to 1."""
    nms_threshold: float = 0.5
    """A detection that overlaps a better one of its class by more than this IoU is dropped."""
    max_detections: int = 100
    """Detections per image at most; COCO counts 100."""

    def __post_init__(self) -> None:
        _check_choice("neck", self.neck, NECKS)
        _check_choice("neck_norm", self.neck_norm, NECK_NORMS)
        for name, lowest in _LOWEST.items():
            require_at_least(lowest, **{name: getattr(self, name)})
        if not self.anchor_sizes or min(self.anchor_sizes) <= 0 or min(self.anchor_ratios) <= 0:
            raise ValueError("anchors need sizes and ratios above 0")
        for name in ("score_threshold", "nms_threshold", "roi_positive_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, not {getattr(self, name)}")
        if not self.box_loss_weight > 0:
            raise ValueError(f"box_loss_weight must be above 0, not {self.box_loss_weight}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"unknown {name} {value!r}; choose from {choices}")


@dataclass(kw_only=True, slots=True)
class TorchvisionDetectorConfig(DetectorConfig):
    """The detector from torchvision's parts."""


@dataclass(kw_only=True, slots=True)
class Detectron2DetectorConfig(DetectorConfig):
    """The detector from detectron2's parts."""


@dataclass(kw_only=True, slots=True)
class Detectron2CascadeConfig(Detectron2DetectorConfig):
    """Cascade R-CNN (Cai & Vasconcelos 2018) from detectron2's parts.

    Three box heads, each refining the boxes of the one before, with ``ROI_BOX_CASCADE_HEAD`` of
    detectron2's ``config/defaults.py``; its other defaults are those of
    ``configs/Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml``.
    """

    class_agnostic_boxes: bool = True
    """A cascade's heads refine a box in one way for all classes."""
    proposals_train: int = 2000
    """Proposals per image that go to the first box head, in training."""

    def __post_init__(self) -> None:
        DetectorConfig.__post_init__(self)  # a slots dataclass has no working super()
        _refuse_single_map(self, "a cascade")
        if not self.class_agnostic_boxes:
            raise ValueError("a cascade needs class_agnostic_boxes=true")


@dataclass(kw_only=True, slots=True)
class TorchvisionRetinaNetConfig(TorchvisionDetectorConfig):
    """RetinaNet (Lin et al. 2017, "Focal loss") from torchvision's parts.

    Every level has anchors of each size, and of that size times 2^(1/3) and 2^(2/3). As many
    ``anchor_sizes`` as the backbone has maps put them on p2 to p5, one more on p3 to p7, as
    published. There are no proposals: of the fields about them and about the box head only
    ``rpn_candidates_test`` (anchors per level before suppression) is read.
    """

    def __post_init__(self) -> None:
        DetectorConfig.__post_init__(self)
        _refuse_single_map(self, "RetinaNet")


@dataclass(kw_only=True, slots=True)
class Detectron2RetinaNetConfig(Detectron2DetectorConfig):
    """RetinaNet from detectron2's parts; see ``TorchvisionRetinaNetConfig``.

    With the defaults of detectron2's ``configs/Base-RetinaNet.yaml``.
    """

    def __post_init__(self) -> None:
        DetectorConfig.__post_init__(self)
        _refuse_single_map(self, "RetinaNet")


def _refuse_single_map(config: DetectorConfig, kind: str) -> None:
    if config.neck != "fpn":
        raise ValueError(f"{kind} needs neck=fpn, not {config.neck!r}")


@dataclass(kw_only=True, slots=True)
class DetectionDataConfig:
    """A data set laid out as COCO is."""

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
    """What to do about boxes without area or outside their image: ``error`` or ``drop``."""
    keep_empty: bool = False
    """Whether training uses images without objects."""

    def __post_init__(self) -> None:
        if self.bad_boxes not in BAD_BOXES:
            raise ValueError(f"unknown bad_boxes {self.bad_boxes!r}; choose from {BAD_BOXES}")
        if not 0 < self.shortest_side_px <= self.longest_side_px:
            raise ValueError(
                f"shortest_side_px must be above 0 and at most longest_side_px, not "
                f"{self.shortest_side_px} and {self.longest_side_px}"
            )


@dataclass(kw_only=True, slots=True)
class DetectorRecipe:
    """How a detector is trained."""

    iterations: int
    """Optimizer steps."""
    batch_size: int
    """Images at a time in each process."""
    optimizer: str
    """``adamw``, ``muon`` or ``sgd``; see ``backbone.training.optim.build_optimizer``. ``sgd`` is
    detectron2's: momentum 0.9, no Nesterov, decay of biases too."""
    learning_rate: float
    """Highest rate of the new layers, reached after the warm-up."""
    backbone_rate: float = 1.0
    """The backbone's rate as a multiple of ``learning_rate``."""
    weight_decay: float = 1e-4
    """Of weight matrices and filters, not of normalization; of biases under ``sgd`` only."""
    schedule: str = "cosine"
    """How the rate falls: ``cosine``, to 0 along half a cosine; or ``steps``, at ``decay_at``."""
    decay_at: list[int] = field(default_factory=list)
    """Steps at which the rate is multiplied by ``decay_factor``, ascending."""
    decay_factor: float = 0.1
    """See ``decay_at``; above 0, at most 1."""
    warmup_iterations: int = 100
    """Steps over which the rate rises linearly from 0."""
    reference_batch: int = 0
    """Images per step, over all processes, that rate and steps above are written for: with k
    times as many the rate is k times as high and the steps are k times fewer (Goyal et al. 2017,
    section 2.1). 0: they hold as they are."""
    accumulate: int = 1
    """Batches whose gradients make one step."""
    gradient_clip: float = 10.0
    """Greatest norm of the whole gradient; 0 for no limit."""
    ema_decay: float = 0.0
    """The weights that are evaluated and written are a moving average of this decay, 0 to 1; 0
    takes the last ones."""
    horizontal_flip: bool = True
    """Whether half of the images are mirrored."""
    vertical_flip: bool = False
    """Whether half of the images are turned upside down: right for images without an up."""
    shortest_sides_px: list[int] = field(default_factory=list)
    """Multi-scale training: the shorter side of each image is one of these; empty: the data's."""
    scale_jitter: list[float] = field(default_factory=list)
    """Large-scale jitter: least and greatest factor by which images are scaled before a window is
    cut out (Ghiasi et al. 2021: 0.1 and 2.0); empty: none."""
    jitter_side_px: int = 1024
    """Side of that window; at factor 1 it is the image's longer side."""
    group_by_aspect: bool = False
    """Whether a batch holds images that are all wider than high, or none that is: less padding."""
    checkpoint_every: int = 1000
    """Steps between the checkpoints from which a killed training goes on."""
    evaluate_every: int = 0
    """Steps between evaluations on the validation images; the weights with the best AP are the ones
    that are written. 0: evaluates the last ones only."""
    patience: int = 0
    """Training ends after this many evaluations without a better AP; 0: never early."""

    def __post_init__(self) -> None:
        for name, choices in (("optimizer", OPTIMIZERS), ("schedule", DETECTOR_SCHEDULES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; choose from {choices}")
        for name, lowest in _LOWEST_OF_RECIPE.items():
            require_at_least(lowest, **{name: getattr(self, name)})
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, not {self.learning_rate}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be at least 0 and below 1, not {self.ema_decay}")
        self._check_schedule()
        self._check_sizes()

    def _check_schedule(self) -> None:
        if list(self.decay_at) != sorted(self.decay_at) or not 0 < self.decay_factor <= 1:
            raise ValueError(
                f"decay_at must ascend and decay_factor be above 0 and at most 1, not "
                f"{list(self.decay_at)} and {self.decay_factor}"
            )
        if (self.schedule == "steps") != bool(self.decay_at):
            raise ValueError("schedule=steps and decay_at=[...] go together; give both or neither")
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
class TrainDetectorConfig:
    """One detector training: which backbone, on which data, how."""

    backbone: str
    """Backbone spec; a ``.safetensors`` file brings pretrained weights."""
    detector: DetectorConfig
    """The detector and its engine."""
    data: DetectionDataConfig
    """The data."""
    recipe: DetectorRecipe
    """The training."""
    pretrained: bool = False
    """Whether timm's or torchvision's released weights are loaded, which downloads them."""
    norm: str = "batch"
    """The backbone's normalization: ``batch``, ``frozen`` statistics, ``sync`` over all processes,
    or ``group`` for a backbone without pretrained weights."""
    activation_checkpointing: bool = False
    """Whether the backbone computes activations again for the gradient: less memory, more time."""
    grayscale: bool = False
    """Whether the backbone sees images without their colours; a ``.safetensors`` file sees what it
    was trained to see."""
    seed: int = 0
    """Seed of the initial weights, the order of images and their augmentation."""
    num_workers: int = 0
    """Processes that read images; 0 reads in the training process."""
    precision: str = "32-true"
    """Lightning's name of the arithmetic: ``32-true``, ``bf16-mixed``, ``16-mixed``."""
    accelerator: str = "auto"
    """Lightning's name of the device kind: ``auto``, ``cpu``, ``gpu``."""


@dataclass(kw_only=True, slots=True)
class InferenceConfig:
    """How a trained detector is used; see ``detection.engine.tta``."""

    shortest_sides_px: list[int] = field(default_factory=list)
    """Images are looked at in each of these sizes, and what is found is put together; empty: in
    the size that the detector was trained for."""
    horizontal_flip: bool = False
    """Whether they are looked at mirrored as well."""
    score_threshold: float | None = None
    """Detections below this score are dropped, 0 to 1; null: what the detector's file says."""
    max_detections: int = 0
    """Detections per image at most; 0: what the detector's file says."""

    def __post_init__(self) -> None:
        if min(self.shortest_sides_px, default=1) < 1 or self.max_detections < 0:
            raise ValueError(
                f"shortest_sides_px must be at least 1 and max_detections at least 0, not "
                f"{list(self.shortest_sides_px)} and {self.max_detections}"
            )
        if self.score_threshold is not None and not 0 <= self.score_threshold <= 1:
            raise ValueError(f"score_threshold must be between 0 and 1, not {self.score_threshold}")


@dataclass(kw_only=True, slots=True)
class DetectionRewardConfig:
    """The short detector training whose AP is a genotype's reward."""

    num_cells: int
    """N: normal cells per stack of the backbone, at least 1."""
    first_filters: int
    """Width of the first stack's cells, a multiple of 4. The same for every
    genotype, so F of N @ F varies with the number of states that a cell concatenates."""
    detector: DetectorConfig
    """The detector and its engine."""
    data: DetectionDataConfig
    """The data; the reward is AP on its ``val`` split, which a comparison that is to follow the
    search should not be made on."""
    recipe: DetectorRecipe
    """The training; its ``checkpoint_every`` is not used."""
    grayscale: bool = False
    """Whether the backbone sees images without their colours, for data whose colours tell
    nothing."""
    max_train_images: int = 0
    """Train on this many images, the same for all genotypes; 0 for all."""
    max_val_images: int = 0
    """Score on this many images, the same for all genotypes; 0 for all."""
    report_every: int = 0
    """Steps between the scores that are reported while training goes on, each of which costs an
    evaluation; 0 reports the last one only."""
    precision: str = "32-true"
    """Arithmetic of the training: ``32-true``, or ``bf16-mixed`` where the GPU has it."""
    accelerator: str = "auto"
    """Kind of the device: ``auto``, ``cpu``, ``gpu``."""
    num_threads: int = 0
    """Threads on the CPU; 1 is right where several trainings share the cores, 0 leaves torch's own
    number."""

    def __post_init__(self) -> None:
        lowest = {
            "num_cells": 1,
            "first_filters": MIN_WIDTH,
            "max_train_images": 0,
            "max_val_images": 0,
            "report_every": 0,
            "num_threads": 0,
        }
        for name, least in lowest.items():
            require_at_least(least, **{name: getattr(self, name)})
        if self.precision not in REWARD_PRECISIONS:
            raise ValueError(
                f"unknown precision {self.precision!r}; choose from {REWARD_PRECISIONS}"
            )


@dataclass(kw_only=True, slots=True)
class ConversionConfig:
    """Annotations from one format to another; see ``detection.data.convert.convert``."""

    source: str
    """The folder to read."""
    source_format: str
    """``voc``, ``yolo``, ``wider`` or ``coco``."""
    target_format: str = "coco"
    """``coco``, ``voc`` or ``yolo``."""
    splits: list[str] = field(default_factory=lambda: ["train", "val"])
    """Names of the parts, all of which share their categories."""
    images: str = "link"
    """Whether images are put into the new folder: as a ``link``, as a ``copy``, or ``none``."""
    bad_boxes: str = "error"
    """What to do about boxes without area or outside their image: ``error`` or ``drop``."""
    first_pixel: int = 1
    """Of VOC's files: number of the first pixel, 1 (VOC's own) or 0 with corners between pixels."""

    def __post_init__(self) -> None:
        _check_choice("source_format", self.source_format, SOURCE_FORMATS)
        _check_choice("target_format", self.target_format, TARGET_FORMATS)
        _check_choice("images", self.images, IMAGE_MODES)
        _check_choice("bad_boxes", self.bad_boxes, BAD_BOXES)
        if self.first_pixel not in (0, 1):
            raise ValueError(f"first_pixel must be 0 or 1, not {self.first_pixel}")
        if not self.splits or len(set(self.splits)) < len(self.splits):
            raise ValueError(f"splits needs names that differ, not {list(self.splits)}")
