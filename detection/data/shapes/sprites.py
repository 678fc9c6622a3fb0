"""Textured polygons, rendered with numpy alone, from which demonstration scenes are composed.

The same seed gives the same pixels on any machine. Random numbers are raw integers and ``random()``
of PCG64; everything after them is elementwise ``+ - * /``, ``sqrt``, ``floor`` and comparisons,
which IEEE 754 defines to the last bit. There is no sine, power or normal deviate (the C library
rounds those differently), no matrix product (BLAS fuses and reorders) and no sum of floats whose
order numpy chooses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import fsum, sqrt
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
Point = tuple[float, float]
Range = tuple[float, float]
Window = tuple[slice, slice]
"""Rows and columns of a picture."""

_MIN_PERIOD_PX = 3.2
_SUB_ROWS = 4  # scan lines per pixel row
_SUB_COLUMNS = 64  # steps per pixel to which a crossing is rounded


def uniform(rng: Generator, low: float, high: float) -> float:
    """Draw a number from ``low`` up to ``high``."""
    # not Generator.uniform: compiled, it may fuse the product and the sum
    return low + (high - low) * float(rng.random())


def point_in_disc(rng: Generator) -> Point:
    """Draw a point of the unit disc, not too near its center."""
    while True:
        x, y = uniform(rng, -1.0, 1.0), uniform(rng, -1.0, 1.0)
        if 0.01 < x * x + y * y <= 1.0:
            return x, y


def direction(rng: Generator) -> Point:
    """Draw a unit vector of any angle, without trigonometry."""
    x, y = point_in_disc(rng)
    length = sqrt(x * x + y * y)
    return x / length, y / length


def _unit_circle(per_quarter: int) -> NDArray[np.float64]:
    """Return points on the unit circle by its rational parametrization; (4 * per_quarter, 2)."""
    t = np.arange(per_quarter) / per_quarter
    x, y = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    quarters = [(x, y), (-y, x), (-x, -y), (y, -x)]
    return np.concatenate([np.stack(quarter, axis=1) for quarter in quarters])


_ARM = 0.36
CIRCLE = _unit_circle(8)
SHAPES: dict[str, NDArray[np.float64]] = {
    "disc": CIRCLE,
    "square": np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=np.float64),
    "triangle": np.array([(0.0, 1.0), (-0.8660254, -0.5), (0.8660254, -0.5)]),
    "cross": np.array(
        [
            *[(-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM)],
            *[(_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM)],
        ]
    ),
}

_PERIODS: dict[str, Range] = {
    "solid": (1.0, 1.0),
    "striped": (0.2, 0.36),
    "dotted": (0.22, 0.34),
    "ringed": (0.24, 0.36),
    "quartered": (1.0, 1.0),
}
"""Range of a texture's period, relative to the longest side of the polygon."""


def _solid(x: FloatArray, y: FloatArray, period_px: float) -> FloatArray:
    return np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=np.float32)


def _striped(x: FloatArray, y: FloatArray, period_px: float) -> FloatArray:
    return _bands(x + 0 * y, period_px)


def _ringed(x: FloatArray, y: FloatArray, period_px: float) -> FloatArray:
    return _bands(np.sqrt(x * x + y * y), period_px)


def _dotted(x: FloatArray, y: FloatArray, period_px: float) -> FloatArray:
    across, along = x / period_px, y / period_px
    across, along = across - np.floor(across) - 0.5, along - np.floor(along) - 0.5
    distance = np.sqrt(across * across + along * along)
    return np.clip((0.36 - distance) * period_px + 0.5, 0.0, 1.0)


def _quartered(x: FloatArray, y: FloatArray, period_px: float) -> FloatArray:
    return 0.5 + 2.0 * np.clip(x, -0.5, 0.5) * np.clip(y, -0.5, 0.5)


def _bands(distance: FloatArray, period_px: float) -> FloatArray:
    """Alternate two tones along ``distance``, with edges one pixel soft."""
    phase = distance / period_px + 0.25
    return np.clip((0.25 - np.abs(phase - np.floor(phase) - 0.5)) * period_px + 0.5, 0.0, 1.0)


Texture = Callable[[FloatArray, FloatArray, float], FloatArray]
TEXTURES: dict[str, Texture] = {
    "solid": _solid,
    "striped": _striped,
    "dotted": _dotted,
    "ringed": _ringed,
    "quartered": _quartered,
}
"""Each takes pixel coordinates about the texture's center, (h, w), and gives a tone in [0, 1]."""


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """A textured polygon in picture coordinates (pixels; x right, y down)."""

    corners: NDArray[np.float64]
    """(V, 2), in order, simple."""
    origin: Point
    """Center of the texture."""
    texture: str
    texture_axis: Point
    period_px: float
    colors: tuple[FloatArray, FloatArray]
    shading: float
    """Relative change of brightness from the origin along the texture's other axis, per pixel."""

    @property
    def area(self) -> float:
        x, y = self.corners.T.tolist()
        following = [*range(1, len(x)), 0]
        # fsum, because Python 3.12 changed how sum adds floats
        return abs(fsum(x[i] * y[j] - x[j] * y[i] for i, j in enumerate(following))) / 2

    @property
    def side_px(self) -> float:
        return float((self.corners.max(axis=0) - self.corners.min(axis=0)).max())


def render_sprite(
    rng: Generator,
    outline: NDArray[np.float64],
    texture: str,
    *,
    side_px: float,
    center: Point,
    narrowing: float,
) -> Sprite:
    """Squeeze ``outline`` along a random direction, turn it, and fit it to ``side_px``."""
    (squeeze_x, squeeze_y), (turn_x, turn_y) = direction(rng), direction(rng)
    x, y = outline[:, 0], outline[:, 1]
    lost = (1.0 - narrowing) * (x * squeeze_x + y * squeeze_y)
    x, y = x - lost * squeeze_x, y - lost * squeeze_y
    x, y = x * turn_x - y * turn_y, x * turn_y + y * turn_x
    left, right = float(x.min()), float(x.max())
    top, bottom = float(y.min()), float(y.max())
    scale = side_px / max(right - left, bottom - top)
    origin = (
        center[0] - scale * (left + right) / 2,
        center[1] - scale * (top + bottom) / 2,
    )
    return Sprite(
        corners=np.stack([x * scale + origin[0], y * scale + origin[1]], axis=1),
        origin=origin,
        texture=texture,
        texture_axis=direction(rng),
        period_px=max(_MIN_PERIOD_PX, side_px * uniform(rng, *_PERIODS[texture])),
        colors=_two_colors(rng),
        shading=uniform(rng, -0.5, 0.5) / side_px,
    )


def colors(rng: Generator, count: int) -> list[FloatArray]:
    """Draw colors, RGB in [0, 1], each (3, 1, 1)."""
    return list(rng.integers(256, size=(count, 3, 1, 1)).astype(np.float32) / 255)


def _two_colors(rng: Generator) -> tuple[FloatArray, FloatArray]:
    """Draw two colors whose brightness differs enough for a texture to show."""
    while True:
        first, second = colors(rng, 2)
        red, green, blue = (first - second).ravel().tolist()
        if abs(0.3 * red + 0.55 * green + 0.15 * blue) > 0.25:
            return first, second


def window_of(corners: NDArray[np.float64], size_px: int) -> Window | None:
    """Return the rows and columns that a polygon may touch; none if it is outside the picture."""
    low = np.clip(np.floor(corners.min(axis=0)), 0, size_px).astype(int).tolist()
    high = np.clip(np.ceil(corners.max(axis=0)), 0, size_px).astype(int).tolist()
    if low[0] >= high[0] or low[1] >= high[1]:
        return None
    return slice(low[1], high[1]), slice(low[0], high[0])


def coverage_of(corners: NDArray[np.float64], window: Window) -> FloatArray:
    """Return how much of each pixel in ``window`` a polygon covers, (h, w) in [0, 1].

    Scan lines cross the outline; each crossing, rounded to 1/64 pixel, adds or takes away what
    lies to its right. In whole numbers, so that the order of summing does not matter.
    """
    rows, columns = window
    height, width = rows.stop - rows.start, columns.stop - columns.start
    line_y = rows.start + (np.arange(height * _SUB_ROWS) + 0.5) / _SUB_ROWS
    x, y = corners[:, 0], corners[:, 1]
    next_x, next_y = np.append(x[1:], x[0]), np.append(y[1:], y[0])
    above, next_above = y <= line_y[:, None], next_y <= line_y[:, None]
    line, edge = np.nonzero(above != next_above)
    fraction = (line_y[line] - y[edge]) / (next_y[edge] - y[edge])
    crossing = x[edge] + fraction * (next_x[edge] - x[edge]) - columns.start
    step = np.clip(np.floor(crossing * _SUB_COLUMNS), 0, width * _SUB_COLUMNS).astype(np.int64)
    column, rest = step // _SUB_COLUMNS, step % _SUB_COLUMNS
    sign = np.where(above[line, edge], 1, -1)
    cell = (line // _SUB_ROWS) * (width + 2) + column
    length = height * (width + 2)
    change = np.bincount(cell, weights=sign * (_SUB_COLUMNS - rest), minlength=length)
    change += np.bincount(cell + 1, weights=sign * rest, minlength=length)
    inside = np.abs(np.cumsum(change.reshape(height, width + 2), axis=1)[:, :width])
    return (inside / (_SUB_ROWS * _SUB_COLUMNS)).astype(np.float32)


def fill(sprite: Sprite, window: Window) -> FloatArray:
    """Return the sprite's colors in ``window``, (3, h, w)."""
    rows, columns = window
    x = np.arange(columns.start, columns.stop, dtype=np.float32) + (0.5 - sprite.origin[0])
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + (0.5 - sprite.origin[1])
    axis_x, axis_y = sprite.texture_axis
    along, across = x * axis_x + y * axis_y, y * axis_x - x * axis_y
    first, second = sprite.colors
    tone = TEXTURES[sprite.texture](along, across, sprite.period_px)
    return (first + tone * (second - first)) * (1.0 + sprite.shading * across)
