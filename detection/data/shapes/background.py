"""Background and camera model of a demonstration scene: clutter, light, blur and noise.

The same seed gives the same pixels on any machine; ``sprites`` explains why.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from detection.data.shapes.sprites import TEXTURES, FloatArray, colors, direction, uniform


def draw_background(rng: Generator, size_px: int) -> FloatArray:
    """Mix three colors by clouds of several scales, and often by stripes or dots; (3, H, W)."""
    base, second, third = colors(rng, 3)
    cloud = np.zeros((2, size_px, size_px), dtype=np.float32)
    for cell_px in (72.0, 28.0, 11.0, 5.0):
        cloud += uniform(rng, 0.05, 0.7) * _smooth_noise(rng, size_px, cell_px)
    if rng.random() < 0.5:
        texture = "striped" if rng.random() < 0.6 else "dotted"
        pattern = _pattern(rng, size_px, texture)
        cloud[0] += uniform(rng, 0.1, 0.4) * (pattern - 0.5)
    mixing = uniform(rng, 0.3, 1.0)
    return base + mixing * (cloud[0] * (second - base) + cloud[1] * (third - base))


def _smooth_noise(rng: Generator, size_px: int, cell_px: float) -> FloatArray:
    """Return two fields of random values on a grid, smoothly interpolated; (2, H, W) in [0, 1]."""
    offset = uniform(rng, 0.0, 1.0)
    position = np.arange(size_px) / cell_px + offset
    cell = np.floor(position).astype(np.int64)
    fraction = (position - cell).astype(np.float32)
    fraction = fraction * fraction * (3 - 2 * fraction)
    num_cells = int(cell[-1]) + 2
    grid = rng.integers(256, size=(2, num_cells, num_cells)).astype(np.float32) / 255
    grid = grid[:, cell] + fraction[:, None] * (grid[:, cell + 1] - grid[:, cell])
    return grid[:, :, cell] + fraction * (grid[:, :, cell + 1] - grid[:, :, cell])


def _pattern(rng: Generator, size_px: int, texture: str) -> FloatArray:
    """Return a texture over the whole picture, (H, W) in [0, 1]."""
    (axis_x, axis_y), shift = direction(rng), uniform(rng, 0.0, 64.0)
    x = np.arange(size_px, dtype=np.float32) + shift
    y = np.arange(size_px, dtype=np.float32)[:, None]
    period_px = uniform(rng, 4.0, 24.0)
    return TEXTURES[texture](x * axis_x + y * axis_y, y * axis_x - x * axis_y, period_px)


def apply_camera(rng: Generator, picture: FloatArray) -> NDArray[np.uint8]:
    """Light, blur and digitize ``picture``, (3, H, W), nominally in [0, 1]; return (H, W, 3)."""
    size_px = picture.shape[1]
    contrast, brightness = uniform(rng, 0.55, 1.1), uniform(rng, -0.15, 0.15)
    axis_x, axis_y = direction(rng)
    slope = uniform(rng, 0.0, 0.35) / size_px
    along = np.arange(size_px, dtype=np.float32) - size_px / 2
    light = contrast * (1.0 + slope * (along * axis_x + (along * axis_y)[:, None]))
    lit = (picture - 0.5) * light + (0.5 + brightness)
    if rng.random() < 0.6:
        lit = _blurred(lit, uniform(rng, 0.05, 0.25))
    grain = rng.integers(256, size=(2, *lit.shape), dtype=np.uint8).astype(np.float32)
    lit = 255 * lit + uniform(rng, 0.005, 0.08) * (grain[0] + grain[1] - 255)
    return np.clip(lit + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def _blurred(image: FloatArray, weight: float) -> FloatArray:
    """Mix each pixel with its four neighbors, each of ``weight``; the border is repeated."""
    for axis in (1, 2):
        padding = [(0, 0), (0, 0), (0, 0)]
        padding[axis] = (1, 1)
        wide = np.pad(image, padding, mode="edge")
        before, after = (
            (wide[:, :-2], wide[:, 2:]) if axis == 1 else (wide[..., :-2], wide[..., 2:])
        )
        image = image * (1 - 2 * weight) + weight * (before + after)
    return image
