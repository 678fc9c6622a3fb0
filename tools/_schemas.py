"""Register every config dataclass with Hydra, so that each YAML is checked against it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from _detection_schemas import (
    BenchmarkDetector,
    BenchmarkEvaluation,
    BenchmarkTraining,
    CompareBackbones,
    ConvertAnnotations,
    EvaluateDetector,
    ExplainEvaluation,
    ExportDetector,
    Predict,
    TrainDetector,
)
from _run import CsvLoggerConfig, LoggerConfig, WandbLoggerConfig
from _search_schemas import (
    BenchmarkProxy,
    CompareCells,
    CompareSearches,
    MeasureFidelity,
    MeasureSharing,
    ReplayStrategies,
    SearchCells,
    SimulateSearch,
    TabulateRewards,
)
from _shapes import ShapesConfig
from backbone.config import PretrainConfig, require_at_least
from detection.engine.config import TrainDetectorConfig
from detection.models.config import DETECTORS
from detection.reward import DetectionRewardConfig
from search.execution import EXECUTORS
from search.rewards import REWARDS
from search.rewards.config import ProxyConfig
from search.space import SpaceConfig
from search.strategies import STRATEGIES
from search.study.config import SearchConfig

CONF = Path(__file__).parent.parent / "conf"


@dataclass(kw_only=True, slots=True)
class MakeShapes:
    """What ``make_shapes`` takes."""

    out: str
    """The folder to write; it becomes the data root of the other tools."""
    shapes: ShapesConfig = field(default_factory=ShapesConfig)
    """How much to make."""


@dataclass(kw_only=True, slots=True)
class PretrainBackbone(PretrainConfig):
    """What ``pretrain_backbone`` takes."""

    out: str
    """The run's folder."""
    logger: LoggerConfig
    """Where figures are logged."""


@dataclass(kw_only=True, slots=True)
class DescribeBackbone:
    """What ``describe_backbone`` takes."""

    out: str
    """The folder for the drawings of its cells."""
    backbone: str
    """Backbone spec."""
    side_px: int
    """Height and width of the images."""
    batch_size: int
    """Images at a time, for the memory."""
    num_classes: int = 1000
    """Classes of the classifier whose head is counted."""
    stem: str = "imagenet"
    """Of cells: ``imagenet`` or ``cifar``."""

    def __post_init__(self) -> None:
        for name in ("side_px", "batch_size", "num_classes"):
            require_at_least(1, **{name: getattr(self, name)})


@dataclass(kw_only=True, slots=True)
class TabulateSizes:
    """What ``tabulate_sizes`` takes."""

    out: str
    """A Markdown file with the lines ``<!-- sizes -->`` and ``<!-- /sizes -->``; what is between
    them is replaced."""


@dataclass(kw_only=True, slots=True)
class ConvertCells:
    """What ``convert_cells`` takes."""

    out: str
    """The folder for the converted file and the drawings."""
    cells: str
    """Published cells by name, such as ``nasnet_a``, or a file in any of the notations: our JSON,
    DARTS's tuples, ENAS's integers, NNI's JSON."""
    to: str = "json"
    """Notation to write: ``json`` (ours), ``darts``, ``enas`` or ``nni``."""
    merge: str = "all"
    """Which blocks NNI's space concatenates: ``all``, or ``loose_end`` (those that none reads)."""


@dataclass(kw_only=True, slots=True)
class ExportBackbone:
    """What ``export_backbone`` takes."""

    out: str
    """The folder for the file."""
    backbone: str
    """Backbone spec, as a rule a ``.safetensors``; another has random weights."""
    part: str = "trunk"
    """``trunk``, images to maps; or ``classifier``, images to logits, of a pretrained file."""
    file_format: str = "onnx"
    """``onnx`` or ``torch`` (``torch.export``)."""
    side_px: int = 224
    """Height and width of the images that the file takes, as many at a time as one likes."""

    def __post_init__(self) -> None:
        if self.part not in ("trunk", "classifier"):
            raise ValueError(f"unknown part {self.part!r}; choose trunk or classifier")


@dataclass(kw_only=True, slots=True)
class ImportWeights:
    """What ``import_weights`` takes."""

    out: str
    """The folder for ``backbone.safetensors``."""
    weights: str
    """A state dict's file (``.pth`` or ``.safetensors``) under timm's and Cadene's names, or
    ``timm:nasnetalarge``, which downloads."""
    backbone: str
    """The cells at N @ F that the weights are of."""
    average_counts_padding: bool = False
    """Whether strided average pooling counts the zeros of its padding, which gives timm's and
    Keras's numbers; the released code, which the weights are from, leaves them out."""


@dataclass(kw_only=True, slots=True)
class RunPipeline:
    """What ``run_pipeline`` takes: the arguments of every stage of the road."""

    out: str
    """The run's folder; each stage has one of its own in it."""
    search: SearchConfig
    """The search for cells."""
    reward: ProxyConfig
    """The proxy training that rewards a genotype."""
    num_cells: int
    """N of the backbone that is built from the cells."""
    first_filters: int
    """Filters of its first stack's cells, a multiple of 4; decides F, unless ``size_of`` does."""
    rivals: list[str]
    """Specs of human-designed backbones; the one whose multiply-adds come nearest is trained in
    the same way for comparison. Empty: none."""
    pretrain: PretrainConfig
    """The pretraining; its ``backbone`` is filled in."""
    training: TrainDetectorConfig
    """The detector training; its ``backbone`` is filled in."""
    logger: LoggerConfig
    """Where figures are logged."""
    size_of: str = ""
    """Backbone spec whose multiply-adds the searched cells, and published cells among ``also``,
    come as near to as a whole number of filters can."""
    also: list[str] = field(default_factory=list)
    """Further backbones that go the same way: specs, or published cells by their name alone, which
    are then as large as the searched ones."""
    at_once: int = 1
    """How many backbones are trained at the same time, each in a process of its own with its share
    of the CPU cores and loggers of its own: small networks gain little from several threads."""
    demonstration: ShapesConfig | None = None
    """If given, demonstration data are made first, in ``demonstration_root``."""
    demonstration_root: str = "data/shapes"
    """Where; the stages' data roots lie below it."""

    def __post_init__(self) -> None:
        require_at_least(1, at_once=self.at_once)
        roots = {"reward": self.reward.data_root, "pretrain": self.pretrain.data_root}
        missing = [name for name, root in roots.items() if not root]
        if missing:
            raise ValueError(f"give {' '.join(f'{name}.data_root=...' for name in missing)}")


def small_size(group: str, *, _root_: Any) -> str:
    """Return the option of ``size`` for small images that fits the chosen detector.

    A detector with settings of its own has a file of its own: ``detector=torchvision_retinanet``
    takes ``size=retinanet_small``.

    Args:
        group: the config group of the detector, as Hydra's defaults list names it.
        _root_: the choices so far, which Hydra passes.
    """
    _, _, kind = _root_[group].partition("_")
    own = f"{kind}_small"
    return own if (CONF / "size" / f"{own}.yaml").is_file() else "small"


def register_schemas() -> None:
    """Make the dataclasses and ``small_size`` known to Hydra."""
    OmegaConf.register_new_resolver("small_size", small_size, replace=True)
    store = ConfigStore.instance().store
    for name, schema in {
        "make_shapes_schema": MakeShapes,
        "search_cells_schema": SearchCells,
        "measure_fidelity_schema": MeasureFidelity,
        "measure_sharing_schema": MeasureSharing,
        "benchmark_proxy_schema": BenchmarkProxy,
        "compare_cells_schema": CompareCells,
        "tabulate_rewards_schema": TabulateRewards,
        "replay_strategies_schema": ReplayStrategies,
        "simulate_search_schema": SimulateSearch,
        "compare_searches_schema": CompareSearches,
        "pretrain_backbone_schema": PretrainBackbone,
        "convert_cells_schema": ConvertCells,
        "export_backbone_schema": ExportBackbone,
        "import_weights_schema": ImportWeights,
        "describe_backbone_schema": DescribeBackbone,
        "tabulate_sizes_schema": TabulateSizes,
        "train_detector_schema": TrainDetector,
        "evaluate_detector_schema": EvaluateDetector,
        "convert_annotations_schema": ConvertAnnotations,
        "export_detector_schema": ExportDetector,
        "explain_evaluation_schema": ExplainEvaluation,
        "benchmark_detector_schema": BenchmarkDetector,
        "benchmark_evaluation_schema": BenchmarkEvaluation,
        "predict_schema": Predict,
        "compare_backbones_schema": CompareBackbones,
        "benchmark_training_schema": BenchmarkTraining,
        "run_pipeline_schema": RunPipeline,
    }.items():
        store(name=name, node=schema)
    for name, row in DETECTORS.items():
        store(group="detector", name=f"{name}_schema", node=row.config)
    for group, name, choice in (
        ("space", "space_schema", SpaceConfig),
        *(("strategy", f"{name}_schema", row.config) for name, row in STRATEGIES.items()),
        *(("reward", f"{name}_schema", choice.config) for name, choice in REWARDS.items()),
        ("reward", "detection_schema", DetectionRewardConfig),
        *(("executor", f"{name}_schema", row.config) for name, row in EXECUTORS.items()),
        ("logger", "none_schema", LoggerConfig),
        ("logger", "csv_schema", CsvLoggerConfig),
        ("logger", "wandb_schema", WandbLoggerConfig),
    ):
        store(group=group, name=name, node=choice)
