"""Sizes of a detector: named settings for images of some resolution (the config group ``size``)."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from backbone.presets import preset_names, read_preset
from detection.models.config import DETECTORS, DetectorConfig

SIZE_GROUP = "detection/size"
FULL_SIZE = "full"
"""The size without settings: the detector's own defaults."""


def fitting_size(detector: str, size: str) -> str:
    """Return the option of ``size`` that fits a detector.

    That is ``KIND_SIZE`` for a detector ``ENGINE_KIND`` if there is such an option
    (``retinanet_small``), or else ``SIZE``; or ``full`` if the detector lacks a setting of these.

    Args:
        detector: name of the detector, an option of ``detector``.
        size: the size for Faster R-CNN, such as ``small``.

    Raises:
        ValueError: if there is no such detector or size.
    """
    row, _ = read_preset(DetectorConfig.preset_group, detector)
    names = {field.name for field in fields(DETECTORS[row].config)}
    own, known = f"{detector.partition('_')[2]}_{size}", preset_names(SIZE_GROUP)
    options = [option for option in (own, size) if option in known]
    for option in options:
        if names.issuperset(read_preset(SIZE_GROUP, option)[1]):
            return option
    if not options:
        raise ValueError(f"there is no size={size}; choose from {known}")
    return FULL_SIZE


def sized_detector(name: str, size: str, **settings: Any) -> DetectorConfig:
    """Return the config of a detector at a size.

    Args:
        name: name of the detector, an option of ``detector``.
        size: ``full``, ``medium`` or ``small``: see ``fitting_size``.
        **settings: settings that replace those of both.

    Raises:
        ValueError: if there is no such detector, size or setting, or a value does not fit.
    """
    _, values = read_preset(SIZE_GROUP, fitting_size(name, size))
    return DetectorConfig.preset(name, **{**values, **settings})
