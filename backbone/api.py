"""Pretrain a backbone from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from backbone.config import ClassifierRecipe, PretrainConfig
from backbone.training.pretrain import PretrainResult, run_pretraining


def pretrain_backbone(  # noqa: PLR0913  # the settings of a pretraining, by name
    backbone: str,
    data_root: str | Path,
    *,
    out: str | Path,
    recipe: str | ClassifierRecipe = "classifier_quick",
    grayscale: bool = False,
    stem: str = "imagenet",
    norm: str = "batch",
    activation_checkpointing: bool = False,
    download: bool = False,
    seed: int = 0,
    num_workers: int = 0,
    precision: str = "32-true",
    accelerator: str = "auto",
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
) -> PretrainResult:
    """Train a backbone as a classifier.

    Writes ``backbone.safetensors``, which is a backbone spec, and ``metrics.json``. A finished
    training of the same settings and data is not repeated; an interrupted one resumes from its last
    checkpoint.

    Args:
        backbone: backbone spec, such as ``nasnet_a:4@1056`` or ``runs/search/cells.json:2@384``.
        data_root: image folder with ``train`` and ``val``, or the folder of CIFAR-10.
        out: folder of the run.
        recipe: name, as ``ClassifierRecipe.preset_names()`` lists them, or a config:
            ``ClassifierRecipe.preset("classifier_quick", epochs=20)``.
        grayscale: convert images to gray, here and wherever the trained backbone is used.
        stem: stem of cells: ``imagenet``, or ``cifar``, which keeps the resolution of small images.
        norm: normalization layers: ``batch``, ``sync`` or ``group``.
        activation_checkpointing: recompute activations: less memory, more time.
        download: download CIFAR-10 into ``data_root`` if it is missing.
        seed: seed of the initial weights, the order of images and their augmentation.
        num_workers: data-loading processes; 0 loads in this one.
        precision: Lightning's precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        accelerator: Lightning's accelerator: ``auto``, ``cpu`` or ``gpu``.
        loggers: Lightning loggers.
        callbacks: Lightning callbacks.

    Returns:
        ``path`` of ``backbone.safetensors``, ``accuracy`` from 0 to 1, ``seconds`` and ``skipped``.

    Raises:
        FileNotFoundError: if the spec's file or the data are missing.
        ValueError: if a name or the spec is unknown, an image is damaged, or the training does not
            fit into memory.
    """
    config = PretrainConfig(
        backbone=backbone,
        data_root=str(data_root),
        recipe=ClassifierRecipe.named(recipe),
        grayscale=grayscale,
        stem=stem,
        norm=norm,
        activation_checkpointing=activation_checkpointing,
        download=download,
        seed=seed,
        num_workers=num_workers,
        precision=precision,
        accelerator=accelerator,
    )
    return run_pretraining(config, Path(out), loggers=loggers, callbacks=callbacks)
