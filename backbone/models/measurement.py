"""Measure what maps a library's model returns: strides, channels and memory layout.

What a library states about its models is not always what they compute. Shapes are measured by one
forward pass at each of two image sizes on torch's meta device, which computes shapes only.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Key = TypeVar("Key")

MEASURED_SIZES = ((256, 192), (320, 224))
"""Height and width of the images; all sides of all maps differ between the two."""
LEVEL_STRIDES = {"c2": 4, "c3": 8, "c4": 16, "c5": 32}
DEVICES = ("meta", "cpu")
"""Where models are created, in the order in which the devices are tried: some compute with values
of tensors when they are created. All run on the meta device, as when costs are computed."""


@dataclass(frozen=True, slots=True)
class MapShape:
    """Shape of one map of a model."""

    channels: int
    stride: int
    """Ratio of the sides of images and map: 4, 8, 16 or 32."""
    is_exact: bool = True
    """Whether sides that are multiples of 32 are divided exactly, not one row or column off."""
    is_channels_last: bool = False
    """Whether the model returns the map as (B, H, W, C)."""

    @property
    def level(self) -> str:
        """Name of the map."""
        return f"c{self.stride.bit_length() - 1}"


def measure_maps(model: Callable[[Tensor], Mapping[Key, Any]]) -> dict[Key, MapShape]:
    """Run a model at both sizes and return the shapes of its maps at strides 4 to 32.

    Outputs that are no such maps are left out.

    Args:
        model: normalized images (B, 3, H, W) to its outputs by name or index; on the meta device.

    Raises:
        ValueError: if there are no such maps; the message has the shapes of the last outputs.
    """
    with measuring("meta"), torch.no_grad():
        small, large = (
            {
                key: value.shape
                for key, value in model(torch.zeros(1, 3, *size)).items()
                if isinstance(value, Tensor)
            }
            for size in MEASURED_SIZES
        )
    shapes = {key: _map_shape(small[key], large[key]) for key in small if key in large}
    maps = {key: shape for key, shape in shapes.items() if shape is not None}
    if not maps:
        (height, width), last = MEASURED_SIZES[0], [tuple(shape) for shape in small.values()][-4:]
        raise ValueError(f"for an image of {height} x {width} px its last outputs have {last}")
    return maps


def _map_shape(small: torch.Size, large: torch.Size) -> MapShape | None:
    if not len(small) == len(large) == 4 or small[0] != 1:
        return None
    for is_channels_last in (False, True):
        channel, rows, columns = (3, 1, 2) if is_channels_last else (1, 2, 3)
        if small[channel] != large[channel]:
            continue
        sides = [shape[axis] for shape in (small, large) for axis in (rows, columns)]
        for stride in LEVEL_STRIDES.values():
            expected = [side // stride for size in MEASURED_SIZES for side in size]
            short = [e - side for side, e in zip(sides, expected, strict=True)]
            if min(short) >= 0 and max(short) <= 1:
                return MapShape(small[channel], stride, max(short) == 0, is_channels_last)
    return None


def deepest_maps(shapes: Mapping[Key, MapShape]) -> dict[str, tuple[Key, MapShape]]:
    """Choose a map for each stride: the deepest that is exact, or else the deepest.

    Args:
        shapes: in the order in which the model computes them.

    Returns:
        Level -> key and shape, finest level first.
    """
    chosen: dict[str, tuple[Key, MapShape]] = {}
    for key, shape in shapes.items():
        current = chosen.get(shape.level)
        if current is None or shape.is_exact or not current[1].is_exact:
            chosen[shape.level] = key, shape
    return dict(sorted(chosen.items()))


@contextmanager
def measuring(device: str) -> Iterator[None]:
    """Create or run models on a device without trace: no random numbers drawn, no warnings."""
    with (
        warnings.catch_warnings(),
        torch.random.fork_rng(devices=[]),
        torch.device(device),
    ):
        warnings.simplefilter("ignore")
        yield
