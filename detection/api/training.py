"""Train a detector, or the same detector on several backbones, from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from detection.config import DetectionDataConfig, DetectorRecipe
from detection.engine.comparison import run_comparison
from detection.engine.config import ComparisonConfig, TrainDetectorConfig
from detection.engine.train import DetectorResult, run_training
from detection.evaluation.summary import BackboneResult
from detection.models.config import DetectorConfig
from detection.models.sizes import sized_detector


def train_detector(  # noqa: PLR0913  # the settings of a training, by name
    backbone: str,
    data: str | Path | DetectionDataConfig,
    *,
    out: str | Path,
    detector: str | DetectorConfig = "torchvision",
    size: str = "medium",
    recipe: str | DetectorRecipe = "detector_cpu",
    pretrained: bool = False,
    grayscale: bool = False,
    norm: str = "batch",
    activation_checkpointing: bool = False,
    seed: int = 0,
    num_workers: int = 0,
    precision: str = "32-true",
    accelerator: str = "auto",
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
) -> DetectorResult:
    """Train a detector on a backbone and evaluate it with COCO's metrics.

    Writes ``detector.safetensors``, ``results.json`` and ``metrics.json``. A finished training of
    the same settings and data is not repeated; an interrupted one resumes from its last checkpoint.
    The defaults are those of ``experiment=detector_cpu``, for a few hundred photographs on a CPU;
    the published schedule is ``size="full", recipe="detector_1x"``.

    Args:
        backbone: backbone spec, such as ``timm:resnet50``, or a ``backbone.safetensors``.
        data: folder in COCO format, with the file names of COCO 2017 or those that
            ``convert_annotations`` writes; or a config, for other names and image sizes.
        out: folder of the run.
        detector: name, as ``DetectorConfig.preset_names()`` lists them, or a config.
        size: ``full``, ``medium`` (images of about 320 px) or ``small`` (about 192 px); not used
            with a config.
        recipe: name, as ``DetectorRecipe.preset_names()`` lists them, or a config:
            ``DetectorRecipe.preset("detector_cpu", iterations=1000)``.
        pretrained: load timm's or torchvision's released weights, which downloads them.
        grayscale: convert images to grayscale in the backbone.
        norm: the backbone's normalization: ``batch``, ``frozen``, ``sync`` or ``group``.
        activation_checkpointing: recompute the backbone's activations: less memory, more time.
        seed: seed of the initial weights, the order of images and their augmentation.
        num_workers: processes that read images; 0 reads in this one.
        precision: Lightning's precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        accelerator: Lightning's accelerator: ``auto``, ``cpu`` or ``gpu``.
        loggers: Lightning loggers.
        callbacks: Lightning callbacks.

    Returns:
        ``path`` of ``detector.safetensors``, ``metrics`` (``ap``, ``ap50``, ``per_class``, ..., in
        percent), ``seconds`` and ``skipped``.

    Raises:
        FileNotFoundError: if the spec's file or the data are missing.
        ValueError: if a name, the spec, annotations or an image are invalid.
        ImportError: if the detector needs detectron2 and that is not installed.
        FloatingPointError: if the loss is not finite; the message names step and images.
    """
    config = _training_config(
        backbone,
        data,
        detector=detector,
        size=size,
        recipe=recipe,
        pretrained=pretrained,
        norm=norm,
        activation_checkpointing=activation_checkpointing,
        grayscale=grayscale,
        seed=seed,
        num_workers=num_workers,
        precision=precision,
        accelerator=accelerator,
    )
    return run_training(config, Path(out), loggers=loggers, callbacks=callbacks)


def compare_backbones(  # noqa: PLR0913  # the settings of a training, by name
    backbones: Sequence[str],
    data: str | Path | DetectionDataConfig,
    *,
    out: str | Path,
    detector: str | DetectorConfig = "torchvision",
    size: str = "medium",
    recipe: str | DetectorRecipe = "detector_cpu",
    pretrained: bool = False,
    grayscale: bool = False,
    seed: int = 0,
    num_workers: int = 0,
    precision: str = "32-true",
    accelerator: str = "auto",
) -> list[BackboneResult]:
    """Train the same detector on several backbones and compare them.

    Writes ``report.html``, ``comparison.json``, and each detector to a folder of its own; finished
    trainings are not repeated. See ``train_detector`` for the arguments.

    Args:
        backbones: backbone specs; ``.safetensors`` files come with their weights.
        data: as for ``train_detector``; multiply-adds are counted at its ``shortest_side_px``.
        out: folder of the run.
        detector: name or config of the detector.
        size: size of the detector.
        recipe: name or config of the recipe.
        pretrained: load timm's or torchvision's released weights, which downloads them.
        grayscale: convert images to grayscale in the backbone.
        seed: seed of each training.
        num_workers: processes that read images; 0 reads in this one.
        precision: Lightning's precision.
        accelerator: Lightning's accelerator.

    Returns:
        For each backbone, in order: ``name``, ``parameters``, ``mult_adds``, ``metrics`` and
        ``seconds``.

    Raises:
        FileNotFoundError: if the file of a spec or the data are missing.
        ValueError: if a name, a spec, annotations or an image are invalid.
        ImportError: if the detector needs detectron2 and that is not installed.
        FloatingPointError: if a loss is not finite.
    """
    training = _training_config(
        "",  # that of each training
        data,
        detector=detector,
        size=size,
        recipe=recipe,
        pretrained=pretrained,
        grayscale=grayscale,
        seed=seed,
        num_workers=num_workers,
        precision=precision,
        accelerator=accelerator,
    )
    config = ComparisonConfig(
        backbones=list(backbones), training=training, side_px=training.data.shortest_side_px
    )
    return run_comparison(config, Path(out)).results


def _training_config(  # the settings that may be names
    backbone: str,
    data: str | Path | DetectionDataConfig,
    *,
    detector: str | DetectorConfig,
    size: str,
    recipe: str | DetectorRecipe,
    **settings: Any,
) -> TrainDetectorConfig:
    """Return the config of a training of which some settings are given by their names."""
    return TrainDetectorConfig(
        backbone=backbone,
        detector=sized_detector(detector, size) if isinstance(detector, str) else detector,
        data=data if isinstance(data, DetectionDataConfig) else DetectionDataConfig.find(data),
        recipe=DetectorRecipe.named(recipe),
        **settings,
    )
