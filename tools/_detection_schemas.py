"""What the tools around detectors take; registered with Hydra in ``_schemas``."""

from __future__ import annotations

from dataclasses import dataclass, field

from _run import LoggerConfig
from backbone.config import require_at_least
from detection.config import (
    EVALUATION_BACKENDS,
    ConversionConfig,
    DetectionDataConfig,
    InferenceConfig,
)
from detection.engine.config import TrainDetectorConfig
from detection.models.config import DetectorConfig

EVALUATION_TASKS = ("detection", "localization")
BENCHMARK_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass(kw_only=True, slots=True)
class TrainDetector(TrainDetectorConfig):
    """What ``train_detector`` takes."""

    out: str
    """The run's folder."""
    logger: LoggerConfig
    """Where figures are logged."""
    dry_run: bool = False
    """Only overfit one batch, within a minute, and say whether the set-up is sound; ``--dry-run``
    is short for it."""


@dataclass(kw_only=True, slots=True)
class EvaluateDetector:
    """What ``evaluate_detector`` takes."""

    out: str
    """The folder for ``metrics.json``, ``results.json`` and what else the evaluation says."""
    annotations: str
    """COCO JSON with the truth."""
    weights: str = ""
    """A ``detector.safetensors`` to run on ``images``; or give ``results``."""
    images: str = ""
    """Folder of the images."""
    results: str = ""
    """Detections in COCO's results format, of any program, to score instead."""
    task: str = "detection"
    """``detection``: COCO's figures; ``localization``: is the surest box on the object?"""
    backend: str = EVALUATION_BACKENDS[0]
    """``hotcoco``, or ``pycocotools``, the reference; the metrics are equal."""
    score_threshold: float = 0.5
    """From which on a detection counts in the confusion matrix and in the images' tallies, 0 to 1;
    COCO's figures take all."""
    plots: bool = True
    """Whether to draw precision by recall, confusion and error kinds, and write report.html."""
    per_class: bool = True
    """Whether to print a table of all categories."""
    batch_size: int = 8
    """Images at a time; only those of equal size go together."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    """How a detector looks at images; not used with ``results``."""
    bad_boxes: str = "error"
    """What to do about boxes without area or outside their image: ``error`` or ``drop``."""

    def __post_init__(self) -> None:
        if bool(self.weights) == bool(self.results):
            raise ValueError("give either weights=... (and images=...) or results=...")
        if self.weights and not self.images:
            raise ValueError("weights=... needs images=..., the folder of the images")
        for name, value, choices in (
            ("task", self.task, EVALUATION_TASKS),
            ("backend", self.backend, EVALUATION_BACKENDS),
        ):
            if value not in choices:
                raise ValueError(f"unknown {name} {value!r}; choose from {list(choices)}")
        if not 0 <= self.score_threshold <= 1:
            raise ValueError(f"score_threshold must lie in 0 to 1, not {self.score_threshold:g}")
        require_at_least(1, batch_size=self.batch_size)


@dataclass(kw_only=True, slots=True)
class ExplainEvaluation:
    """What ``explain_evaluation`` takes."""

    out: str
    """The folder for ``explanation.json``."""
    before: str
    """A folder that ``evaluate_detector`` wrote, or the ``metrics.json`` in it."""
    after: str
    """Likewise, to be compared with it."""
    annotations: str = ""
    """COCO JSON with the truth, for folders that have ``results.json`` but no
    ``error_kinds.json``, such as a training's."""
    num_rows: int = 10
    """Categories and images to print; the file has all."""

    def __post_init__(self) -> None:
        require_at_least(1, num_rows=self.num_rows)


@dataclass(kw_only=True, slots=True)
class BenchmarkEvaluation:
    """What ``benchmark_evaluation`` takes."""

    out: str
    """The folder for ``benchmark.json`` and the made data."""
    num_images: int = 5000
    """Images to make."""
    num_categories: int = 80
    """Categories, of which each image has three."""
    detections_per_image: int = 100
    """Detections in every image; COCO looks at no more per category."""
    rounds: int = 1
    """How often each contender runs; the median counts."""
    seed: int = 0
    """Of the made data."""

    def __post_init__(self) -> None:
        for name in ("num_images", "num_categories", "detections_per_image", "rounds"):
            require_at_least(1, **{name: getattr(self, name)})


@dataclass(kw_only=True, slots=True)
class Predict(InferenceConfig):
    """What ``predict`` takes."""

    out: str
    """The folder for the drawn images and ``predictions.json``."""
    weights: str
    """A ``detector.safetensors``."""
    images: str
    """An image, a folder of images, a glob in quotes, a video file, or the number of a camera."""
    score_threshold: float | None = 0.5
    """Detections below this score are neither drawn nor written, 0 to 1."""
    batch_size: int = 1
    """Images at a time; only those of equal size go together."""
    every_nth: int = 1
    """Of a video: only every so manieth frame is looked at and written."""
    max_frames: int = 0
    """Of a video: end after so many of these; 0: with the video."""

    def __post_init__(self) -> None:
        InferenceConfig.__post_init__(self)  # a slots dataclass has no working super()
        for name, least in (("batch_size", 1), ("every_nth", 1), ("max_frames", 0)):
            require_at_least(least, **{name: getattr(self, name)})


@dataclass(kw_only=True, slots=True)
class CompareBackbones:
    """What ``compare_backbones`` takes."""

    out: str
    """The run's folder; each backbone has one of its own in it."""
    backbones: list[str]
    """Backbone specs; ``.safetensors`` files come with their weights."""
    training: TrainDetectorConfig
    """The detector training, the same for all; its ``backbone`` is filled in."""
    side_px: int
    """Side of the square image for which multiply-adds are counted."""
    logger: LoggerConfig
    """Where figures are logged."""

    def __post_init__(self) -> None:
        if not self.backbones:
            raise ValueError("backbones needs at least one spec")


@dataclass(kw_only=True, slots=True)
class BenchmarkTraining:
    """What ``benchmark_training`` takes."""

    out: str
    """The folder for ``benchmark.json``."""
    backbone: str
    """Backbone spec."""
    detector: DetectorConfig
    """The detector; each engine builds it from these fields."""
    data: DetectionDataConfig
    """The data; only the training images are used."""
    engines: list[str] = field(default_factory=list)
    """``torchvision`` and ``detectron2``; empty: all that are installed."""
    steps: int = 20
    """Steps that are timed, in each round."""
    warmup_steps: int = 5
    """Steps before them, not timed; the rate rises over them."""
    rounds: int = 3
    """How often each training is made; the median counts."""
    batch_size: int = 8
    """Images per step."""
    learning_rate: float = 0.01
    """Rate after the warm-up."""
    seed: int = 0
    """Of the weights, the order of images and what the engines sample."""
    num_workers: int = 0
    """Processes that read images."""
    accelerator: str = "auto"
    """Kind of the device: ``auto``, ``cpu``, ``gpu``."""

    def __post_init__(self) -> None:
        for name in ("steps", "warmup_steps", "rounds", "batch_size"):
            require_at_least(1, **{name: getattr(self, name)})
        unknown = [name for name in self.engines if name not in ("torchvision", "detectron2")]
        if unknown:
            raise ValueError(f"unknown engines {unknown}; choose from torchvision and detectron2")


@dataclass(kw_only=True, slots=True)
class ConvertAnnotations(ConversionConfig):
    """What ``convert_annotations`` takes."""

    out: str
    """The folder to write; with ``target_format=coco`` it becomes ``data.root`` of
    ``data=converted``."""


@dataclass(kw_only=True, slots=True)
class ExportDetector:
    """What ``export_detector`` takes."""

    out: str
    """The folder for ``detector.onnx`` or ``backbone.pt2``, and the JSON about it."""
    weights: str
    """A ``detector.safetensors``."""
    annotations: str
    """COCO JSON of the images on which the file must be as good as the detector."""
    images: str
    """Their folder."""
    file_format: str = "onnx"
    """``onnx``: the whole detector, of the torchvision engine; ``torch``: its backbone, by
    ``torch.export``."""
    bad_boxes: str = "error"
    """What to do about boxes without area or outside their image: ``error`` or ``drop``."""


@dataclass(kw_only=True, slots=True)
class BenchmarkDetector:
    """What ``benchmark_detector`` takes."""

    out: str
    """The folder for ``benchmark.json``."""
    detectors: list[str]
    """Each a ``detector.safetensors``, or a backbone spec, which gets ``detector`` with new
    weights around it."""
    detector: DetectorConfig
    """The detector around backbone specs."""
    height_px: int = 480
    """Height of the images."""
    width_px: int = 640
    """Their width."""
    shortest_side_px: int = 0
    """What they are resized to; 0: as in the detector's file, and for specs not at all."""
    batch_size: int = 8
    """Images at a time where throughput is measured; latency is that of one."""
    rounds: int = 20
    """How often each is measured; the median counts."""
    warmup_rounds: int = 3
    """Rounds before them that do not count."""
    precision: str = "32-true"
    """Arithmetic: ``32-true``, ``bf16-mixed``, or on a GPU ``16-mixed``."""
    num_classes: int = 80
    """Classes of detectors around backbone specs."""
    num_threads: int = 0
    """Threads on the CPU; 0 leaves torch's own number."""
    accelerator: str = "auto"
    """Kind of the device: ``auto``, ``cpu``, ``gpu``."""

    def __post_init__(self) -> None:
        if not self.detectors:
            raise ValueError("detectors needs at least one file or backbone spec")
        lowest = {"height_px": 1, "width_px": 1, "shortest_side_px": 0, "batch_size": 1,
                  "rounds": 1, "warmup_rounds": 0, "num_classes": 1, "num_threads": 0}  # fmt: skip
        for name, least in lowest.items():
            require_at_least(least, **{name: getattr(self, name)})
        if self.precision not in BENCHMARK_PRECISIONS:
            choices = list(BENCHMARK_PRECISIONS)
            raise ValueError(f"unknown precision {self.precision!r}; choose from {choices}")
