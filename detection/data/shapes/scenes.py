"""Scenes of the demonstration data: textured shapes on clutter.

A class is a shape *and* a texture. Four shapes and four textures are paired in a ring, so that each
shape and each texture belongs to exactly two classes: neither identifies the class by itself. The
colors of object, texture and background come from one distribution, whatever the class.

A scene is laid out from the front to the back, so that how much of each object can be seen is known
before it is accepted, and painted from the back to the front.

The same seed gives the same pixels on any machine; ``sprites`` explains why.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence
from numpy.typing import NDArray

from detection.data.shapes.background import apply_camera, draw_background
from detection.data.shapes.config import OBJECT_SIDE_PX
from detection.data.shapes.sprites import (
    CIRCLE,
    SHAPES,
    TEXTURES,
    FloatArray,
    Point,
    Range,
    Sprite,
    Window,
    coverage_of,
    fill,
    point_in_disc,
    render_sprite,
    uniform,
    window_of,
)

BoolArray = NDArray[np.bool_]

MIN_VISIBLE = 0.3
"""An object is drawn, and annotated, only if at least this fraction of its area is visible."""
MIN_VISIBLE_SMALL = 0.6
"""The same for objects shorter than ``SMALL_SIDE_PX``: a few pixels show nothing recognizable."""
SMALL_SIDE_PX = 20.0
MAX_OBJECTS = 8
"""The most annotations in a scene, a crowd being one."""

_MIN_BOX_PX = 3
_CROWD_MEMBERS = (8, 18)
_CROWD_SIDE_PX: Range = (8.0, 13.0)


@dataclass(frozen=True, slots=True)
class ShapeClass:
    """One class of the demonstration data."""

    category_id: int
    """The id in COCO files. They have gaps, as COCO's have, so that readers meet them."""
    shape: str
    texture: str

    @property
    def name(self) -> str:
        return f"{self.texture}_{self.shape}"


CLASSES = (
    ShapeClass(1, "disc", "dotted"),
    ShapeClass(2, "disc", "striped"),
    ShapeClass(4, "square", "dotted"),
    ShapeClass(7, "square", "ringed"),
    ShapeClass(8, "triangle", "ringed"),
    ShapeClass(11, "triangle", "quartered"),
    ShapeClass(13, "cross", "quartered"),
    ShapeClass(16, "cross", "striped"),
)


@dataclass(frozen=True, slots=True, eq=False)
class SceneObject:
    """One annotated object, or one crowd of objects of the same class."""

    label: int
    """Index into ``CLASSES``."""
    side_px: float
    """Longest side of the whole object's upright box, hidden parts included; a crowd's largest."""
    visible: BoolArray
    """(H, W): the pixels of which it covers at least half and that nothing in front hides."""
    is_crowd: bool = False

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The visible pixels' box, xywh in pixels, inside the image."""
        columns = np.flatnonzero(self.visible.any(axis=0))
        rows = np.flatnonzero(self.visible.any(axis=1))
        left, top = int(columns[0]), int(rows[0])
        return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture and its annotated objects."""

    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    objects: tuple[SceneObject, ...]


def scene_generator(seed: int, stream: int, index: int) -> Generator:
    """Return the random generator of one scene: a stream of its own, independent of the others."""
    return Generator(PCG64(SeedSequence(seed, spawn_key=(stream, index))))


def draw_scene(rng: Generator, *, size_px: int, crowd_fraction: float) -> Scene:
    """Draw a square scene of 0 to ``MAX_OBJECTS`` objects for detection.

    Args:
        rng: its source of randomness; see ``scene_generator``.
        size_px: side of the picture.
        crowd_fraction: probability, 0 to 1, that one annotation is a crowd.
    """
    layout = _Layout(size_px)
    num_objects = (int(rng.integers(2 * MAX_OBJECTS + 1)) + 1) // 2  # none is half as likely
    if rng.random() < crowd_fraction:
        _place_crowd(layout, rng)
        num_objects = min(num_objects, MAX_OBJECTS - 1)
    num_distractors = int(rng.integers(1 + 8 * size_px * size_px // 128**2))
    turns = rng.permutation(num_objects + num_distractors)
    for turn in turns.tolist():
        if turn < num_objects:
            _place_object(layout, rng)
        else:
            layout.place(_distractor(rng, center=_center_in(rng, 0.0, float(size_px))))
    return Scene(_render(layout, rng), tuple(layout.objects))


def draw_object_crop(rng: Generator, label: int, *, size_px: int, side_range_px: Range) -> Scene:
    """Draw one object near the center, for classification; only it is listed in the scene.

    The surroundings are those of a detection scene: clutter, distractors, and parts of other
    objects at the border.

    Args:
        rng: its source of randomness; see ``scene_generator``.
        label: the object's class, an index into ``CLASSES``.
        size_px: side of the picture.
        side_range_px: range of the object's longest side.
    """
    layout = _Layout(size_px)
    if rng.random() < 0.15:
        in_front = _distractor(rng, center=_center_in(rng, 0.0, float(size_px)), largest=0.5)
        layout.place(in_front)
    shift = size_px * 0.08
    center = _center_in(rng, size_px / 2 - shift, size_px / 2 + shift)
    sprite = _object_sprite(rng, label, side_px=uniform(rng, *side_range_px), center=center)
    if not layout.place(sprite, label=label, min_visible=MIN_VISIBLE_SMALL):
        layout = _Layout(size_px)  # the distractor in front hides it: leave that out
        layout.place(sprite, label=label)
    for _ in range(int(rng.integers(3))):
        center = _center_at_border(rng, size_px)
        if rng.random() < 0.5:
            layout.place(_distractor(rng, center=center))
        else:
            other = int(rng.integers(len(CLASSES)))
            layout.place(_object_sprite(rng, other, side_px=_object_side(rng), center=center))
    return Scene(_render(layout, rng), tuple(layout.objects))


@dataclass(slots=True, eq=False)
class _Layout:
    """Sprites from the front to the back on a square picture."""

    size_px: int
    objects: list[SceneObject] = field(default_factory=list)
    painted: list[tuple[Sprite, Window, FloatArray]] = field(default_factory=list)
    taken: BoolArray = field(init=False)

    def __post_init__(self) -> None:
        self.taken = np.zeros((self.size_px, self.size_px), dtype=np.bool_)

    def place(self, sprite: Sprite, *, label: int | None = None, min_visible: float = 0.0) -> bool:
        """Put ``sprite`` behind everything so far if enough of it is visible; return whether.

        Args:
            sprite: the sprite to place.
            label: its class if it is to be listed as an object.
            min_visible: least visible fraction of its area, 0 to 1; parts outside the picture are
                hidden.
        """
        window = window_of(sprite.corners, self.size_px)
        if window is None:
            return False
        coverage = coverage_of(sprite.corners, window)
        solid = coverage >= 0.5
        visible = solid & ~self.taken[window]
        num_visible = int(np.count_nonzero(visible))
        if num_visible == 0 or num_visible < min_visible * sprite.area:
            return False
        if label is not None:
            mask = np.zeros_like(self.taken)
            mask[window] = visible
            listed = SceneObject(label=label, side_px=sprite.side_px, visible=mask)
            if min(listed.box[2:]) < _MIN_BOX_PX:
                return False
            self.objects.append(listed)
        self.taken[window] |= solid
        self.painted.append((sprite, window, coverage))
        return True


def _place_object(layout: _Layout, rng: Generator) -> None:
    label = int(rng.integers(len(CLASSES)))
    for _ in range(4):  # a full picture ends up with fewer
        center = _center_in(rng, 0.0, float(layout.size_px))
        side_px = _object_side(rng)
        sprite = _object_sprite(rng, label, side_px=side_px, center=center)
        min_visible = MIN_VISIBLE if side_px >= SMALL_SIDE_PX else MIN_VISIBLE_SMALL
        if layout.place(sprite, label=label, min_visible=min_visible):
            return


def _place_crowd(layout: _Layout, rng: Generator) -> None:
    """Place a cluster of small objects of one class and list it as one crowd."""
    label = int(rng.integers(len(CLASSES)))
    spread = uniform(rng, 14.0, 26.0)
    x, y = _center_in(rng, spread, layout.size_px - spread)
    for _ in range(int(rng.integers(*_CROWD_MEMBERS, endpoint=True))):
        dx, dy = point_in_disc(rng)
        center = (x + spread * dx, y + spread * dy)
        sprite = _object_sprite(rng, label, side_px=uniform(rng, *_CROWD_SIDE_PX), center=center)
        layout.place(sprite, label=label, min_visible=0.5)
    members, layout.objects = layout.objects, []
    together = np.zeros_like(layout.taken)
    for member in members:
        together |= member.visible
    largest = max(member.side_px for member in members)
    layout.objects.append(
        SceneObject(label=label, side_px=largest, visible=together, is_crowd=True)
    )


def _center_in(rng: Generator, low: float, high: float) -> Point:
    return uniform(rng, low, high), uniform(rng, low, high)


def _center_at_border(rng: Generator, size_px: int) -> Point:
    """Draw a point in a frame about the picture's edge, half of it outside."""
    along, across = uniform(rng, 0.0, size_px), uniform(rng, -0.1, 0.1) * size_px
    if rng.random() < 0.5:
        across = size_px - across
    return (along, across) if rng.random() < 0.5 else (across, along)


def _object_side(rng: Generator) -> float:
    """Draw a longest side; small ones a little more often than large ones."""
    fraction = float(rng.random())
    low, high = OBJECT_SIDE_PX
    return low + (high - low) * fraction * (0.5 + 0.5 * fraction)


def _object_sprite(rng: Generator, label: int, *, side_px: float, center: Point) -> Sprite:
    kind = CLASSES[label]
    narrowing = uniform(rng, 0.72, 1.0)
    return render_sprite(
        rng, SHAPES[kind.shape], kind.texture, side_px=side_px, center=center, narrowing=narrowing
    )


def _distractor(rng: Generator, *, center: Point, largest: float = 1.0) -> Sprite:
    """Draw something of no class: a bar, a plain pebble, or a jagged patch of any texture."""
    texture = list(TEXTURES)[int(rng.integers(len(TEXTURES)))]
    kind = float(rng.random())
    if kind < 0.4:
        outline, narrowing = SHAPES["square"], uniform(rng, 0.04, 0.14)
        side_px = uniform(rng, 20.0, 90.0)
        texture = texture if rng.random() < 0.3 else "solid"
    else:
        pebble = kind < 0.7
        radii = np.array([[uniform(rng, 0.6, 1.0)] for _ in range(len(CIRCLE) // 3)])
        if pebble:
            texture = "solid"
        else:
            radii[::2] *= uniform(rng, 0.3, 0.55)
        outline, narrowing = CIRCLE[: 3 * len(radii) : 3] * radii, uniform(rng, 0.5, 1.0)
        side_px = uniform(rng, 10.0, 44.0)
    return render_sprite(
        rng, outline, texture, side_px=side_px * largest, center=center, narrowing=narrowing
    )


def _render(layout: _Layout, rng: Generator) -> NDArray[np.uint8]:
    picture = draw_background(rng, layout.size_px)
    for sprite, window, coverage in reversed(layout.painted):
        view = picture[:, window[0], window[1]]
        view += coverage * (fill(sprite, window) - view)
    return apply_camera(rng, picture)
