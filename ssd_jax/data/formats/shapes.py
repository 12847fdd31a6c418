"""Generated pictures of shapes with exact boxes: a data set that needs no download.

Circles, squares, stars and triangles, blotched, roughly upright, of an eighth of the image's side to
most of it, some hiding part of others; over backgrounds of noise, stripes, checks and gradients with
stray strokes and blobs. Shapes are blotched as grounds are, by the same function, and have as many
colours, so that colour alone does not tell them apart.

A picture follows from (seed, split, index) alone. Boxes come from a random stream of their own and
are sums of 64ths of a pixel, so that they are the same on every platform and with every Pillow.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image, ImageDraw

from ssd_jax.config import Shapes
from ssd_jax.data.source import Annotation, Source, make_annotation
from ssd_jax.errors import UserError

CLASS_NAMES = ("circle", "square", "star", "triangle")
SPLITS = ("train", "val", "test")

_MIN_SIDE, _MAX_SIDE = 1 / 8, 0.8  # longer side of a box over the image's side
_MAX_OBJECTS = 6
_MAX_TURN = math.radians(15)
_MAX_HIDDEN = 0.4  # of a shape's area, by those in front of it
_STAR_WAIST = 0.45  # inner over outer radius
_SUPERSAMPLE = 4
_KEEP_BYTES = 2**29
_MIN_CONTRAST = 90.0  # distance in RGB 0-255 from a shape's mean colour to that around it
_ROUND = 64  # corners of the polygon drawn for a circle


class Shape(NamedTuple):
    """Pixels of the image; y grows downwards."""

    label: int
    """1..C"""
    corners: Float[np.ndarray, "k 2"]
    """xy of a polygon; of a circle, of the polygon that it is drawn as."""
    box_px: tuple[float, float, float, float]
    """xyxy, tight around the corners."""


class ShapesSource(Source):
    """One split of the generated data set."""

    class_names: tuple[str, ...] = CLASS_NAMES
    in_memory = False

    def __init__(self, config: Shapes, split: str):
        """split: train, val or test. Raises UserError for any other."""
        if split not in SPLITS:
            raise UserError(f"shapes: there is no split '{split}'. Its splits: {', '.join(SPLITS)}.")
        self._size = config.image_size
        self._length = {"train": config.train_images, "val": config.val_images, "test": config.test_images}[split]
        self._split = split
        self._seeds = (config.seed, SPLITS.index(split))
        self._annotations: dict[int, Annotation] = {}
        self._images: dict[int, UInt8[np.ndarray, "h w 3"]] = {}

    def __len__(self) -> int:
        return self._length

    def annotation(self, index: int) -> Annotation:
        if index not in self._annotations:
            shapes = draw_layout(self._generator(index, 0), self._size)
            self._annotations[index] = make_annotation(
                f"{self._split}_{index:06d}",
                f"generated picture {index} of {self._split}",
                (self._size, self._size),
                [shape.box_px for shape in shapes],
                [shape.label for shape in shapes],
            )
        return self._annotations[index]

    def sizes(self) -> list[tuple[int, int]]:
        return [(self._size, self._size)] * self._length

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Drawn once and kept, read-only, up to half a gigabyte in all: drawing takes longer than decoding would."""
        image = self._images.get(index)
        if image is None:
            shapes = draw_layout(self._generator(index, 0), self._size)
            image = paint(self._generator(index, 1), shapes, self._size)
            image.setflags(write=False)
            if len(self._images) * image.nbytes < _KEEP_BYTES:
                self._images[index] = image
        return image

    def _generator(self, index: int, stream: int) -> np.random.Generator:
        if not 0 <= index < self._length:
            raise IndexError(f"index {index} of {self._length} pictures")
        return np.random.Generator(np.random.PCG64([*self._seeds, index, stream]))


# ---- what is where ----


def draw_layout(rng: np.random.Generator, size: int) -> list[Shape]:
    """One to six shapes, back to front, whole inside a square image of size pixels."""
    wanted = 1 + int(rng.random() * _MAX_OBJECTS)
    shapes: list[Shape] = []
    visible: list[Float[np.ndarray, "m 2"]] = []  # of each shape, the points of a grid in it that can be seen
    points: list[int] = []
    for _ in range(4 * wanted):
        shape = _draw_shape(rng, size)
        left = [
            seen[~_contains(shape, seen)] if _overlap(shape.box_px, other.box_px) else seen
            for other, seen in zip(shapes, visible, strict=True)
        ]
        if any(len(seen) < (1 - _MAX_HIDDEN) * count for seen, count in zip(left, points, strict=True)):
            continue
        inside = _points_inside(shape)
        shapes, visible, points = [*shapes, shape], [*left, inside], [*points, len(inside)]
        if len(shapes) == wanted:
            break
    return shapes


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _draw_shape(rng: np.random.Generator, size: int) -> Shape:
    label = 1 + int(rng.random() * len(CLASS_NAMES))
    unit = _unit_corners(CLASS_NAMES[label - 1], _MAX_TURN * (2 * rng.random() - 1))
    low, high = unit.min(0), unit.max(0)
    side = size * _MIN_SIDE * (_MAX_SIDE / _MIN_SIDE) ** rng.random()  # log-uniform
    scale = side / (high - low).max()
    room = size - (high - low) * scale
    corner = room * np.array([rng.random(), rng.random()])
    corners = np.round(((unit - low) * scale + corner) * 64) / 64
    box = (*corners.min(0).tolist(), *corners.max(0).tolist())
    return Shape(label, corners, box)


def _unit_corners(name: str, angle: float) -> Float[np.ndarray, "k 2"]:
    """Corners on (and for the star within) a circle of radius 1; a point of star and triangle upwards, then turned."""
    count = {"circle": _ROUND, "square": 4, "star": 10, "triangle": 3}[name]
    upright = {"circle": 0.0, "square": math.pi / 4, "star": -math.pi / 2, "triangle": -math.pi / 2}[name]
    turn = 0.0 if name == "circle" else upright + angle
    radii = [_STAR_WAIST if name == "star" and k % 2 else 1.0 for k in range(count)]
    angles = [turn + 2 * math.pi * k / count for k in range(count)]
    return np.array([(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)])


def _points_inside(shape: Shape) -> Float[np.ndarray, "m 2"]:
    left, top, right, bottom = shape.box_px
    steps = (np.arange(14) + 0.5) / 14
    x, y = np.meshgrid(left + (right - left) * steps, top + (bottom - top) * steps)
    points = np.stack([x.ravel(), y.ravel()], axis=-1)
    return points[_contains(shape, points)]


def _contains(shape: Shape, points: Float[np.ndarray, "m 2"]) -> Bool[np.ndarray, " m"]:
    """Even-odd rule: a ray to the right crosses the outline an odd number of times."""
    (x1, y1), (x2, y2) = shape.corners.T, np.roll(shape.corners, -1, axis=0).T
    x, y = points[:, :1], points[:, 1:]
    straddles = (y1 > y) != (y2 > y)
    slope = (x2 - x1) / np.where(y1 == y2, 1.0, y2 - y1)
    return (straddles & (x < x1 + (y - y1) * slope)).sum(-1) % 2 == 1


# ---- how it looks ----


def paint(rng: np.random.Generator, shapes: list[Shape], size: int) -> UInt8[np.ndarray, "h w 3"]:
    """The picture of a layout: background, clutter, then the shapes from back to front; light and grain over all."""
    canvas = _pattern(rng, (size, size), rng.uniform(40, 215, 3), spread=rng.uniform(20, 60))
    _paint_camouflage(rng, canvas)
    canvas = _paint_strokes(rng, canvas)
    for shape in shapes:
        _paint_shape(rng, canvas, shape)
    return _light_and_grain(rng, canvas)


def _pattern(
    rng: np.random.Generator, size: tuple[int, int], colour: Float[np.ndarray, " 3"], spread: float
) -> Image.Image:
    """Two shades of noise around a colour, in stripes, checks or a gradient, or just one; size: width, height;
    spread: how far the pattern strays from the colour, of 0-255."""
    shift = rng.uniform(-1, 1, 3) * spread
    kind = rng.integers(len(_WAVES) + 1)
    if kind == len(_WAVES):
        return _noise(rng, size, colour, spread)
    image = _noise(rng, size, colour - shift, spread)
    image.paste(_noise(rng, size, colour + shift, spread), mask=Image.fromarray(_WAVES[kind](rng, size)))
    return image


def _noise(
    rng: np.random.Generator, size: tuple[int, int], colour: Float[np.ndarray, " 3"], spread: float
) -> Image.Image:
    """Blotches of a quarter and of a sixteenth of the image."""
    blotches = np.repeat(np.repeat(rng.uniform(-0.6, 0.6, (4, 4, 3)), 4, axis=0), 4, axis=1)
    blotches += rng.uniform(-0.4, 0.4, (16, 16, 3))
    coarse = np.clip(colour + spread * blotches, 0, 255).astype(np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def _ramp(size: tuple[int, int], angle: float) -> Float32[np.ndarray, "h w"]:
    """Pixels along a direction."""
    x, y = (np.arange(side, dtype=np.float32) for side in size)
    return x * np.float32(math.cos(angle)) + y[:, None] * np.float32(math.sin(angle))


def _stripes(rng: np.random.Generator, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    ramp = _ramp(size, rng.uniform(0, math.pi))
    return (127.5 + 127.5 * np.sin(ramp * (2 * math.pi / rng.uniform(4, 24)) + rng.uniform(0, 6))).astype(np.uint8)


def _checks(rng: np.random.Generator, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    side, angle = rng.uniform(2, 12), rng.uniform(0, math.pi)
    one, other = (np.floor(_ramp(size, a) / side).astype(np.int32) for a in (angle, angle + math.pi / 2))
    return ((one ^ other) & 1).astype(np.uint8) * np.uint8(255)


def _gradient(rng: np.random.Generator, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    ramp = _ramp(size, rng.uniform(0, 2 * math.pi))
    return ((ramp - ramp.min()) * (255 / max(np.ptp(ramp), 1))).astype(np.uint8)


_WAVES = (_stripes, _checks, _gradient)


def _paint_camouflage(rng: np.random.Generator, canvas: Image.Image) -> None:
    """Irregular patches of a second pattern, with soft borders."""
    cells = int(rng.integers(6, 13))
    field = Image.fromarray(rng.integers(0, 256, (cells, cells), np.uint8)).resize(
        canvas.size, Image.Resampling.BICUBIC
    )
    threshold = rng.uniform(150, 205)
    cover = field.point([min(max(round((level - threshold) * 5), 0), 255) for level in range(256)])
    canvas.paste(_pattern(rng, canvas.size, rng.uniform(20, 235, 3), spread=30), mask=cover)


def _paint_strokes(rng: np.random.Generator, canvas: Image.Image) -> Image.Image:
    """Lines, bent lines and arcs of up to half a turn; nothing that closes."""
    layer = canvas.resize((2 * canvas.width, 2 * canvas.height), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(layer)
    for _ in range(rng.integers(4, 13)):
        colour = tuple(rng.integers(0, 256, 3).tolist())
        thickness = int(rng.integers(2, 3 + canvas.width // 14))
        if rng.random() < 0.5:
            points = rng.random((rng.integers(2, 4), 2)) * layer.size
            draw.line([tuple(point) for point in points.tolist()], colour, thickness)
        else:
            centre, radius = rng.random(2) * layer.size, rng.uniform(0.05, 0.4) * layer.width
            start = rng.uniform(0, 360)
            box = [*(centre - radius).tolist(), *(centre + radius).tolist()]
            draw.arc(box, start, start + rng.uniform(40, 180), colour, thickness)
    return layer.reduce(2)


def _paint_shape(rng: np.random.Generator, canvas: Image.Image, shape: Shape) -> None:
    """A fifth nearly plain, the rest blotched, in a colour unlike what lies around."""
    left, top = (max(math.floor(edge) - 1, 0) for edge in shape.box_px[:2])
    right, bottom = (min(math.ceil(edge) + 1, limit) for edge, limit in zip(shape.box_px[2:], canvas.size, strict=True))
    window = (left, top, right, bottom)
    size = (right - left, bottom - top)
    around = np.asarray(canvas.resize((1, 1), Image.Resampling.BOX, window))[0, 0]
    spread = rng.uniform(5, 20) if rng.random() < 0.2 else rng.uniform(25, 60)
    cover = _coverage(shape.corners - (left, top), size)
    canvas.paste(_noise(rng, size, _contrasting(rng, around), spread), window, cover)


def _contrasting(rng: np.random.Generator, other: UInt8[np.ndarray, " 3"]) -> Float[np.ndarray, " 3"]:
    """A colour at least _MIN_CONTRAST from the other one, or the furthest of 20."""
    colours = rng.uniform(20, 235, (20, 3))
    distance = np.linalg.norm(colours - other, axis=-1)
    return colours[np.argmax(np.minimum(distance, _MIN_CONTRAST))]


def _coverage(corners: Float[np.ndarray, "k 2"], size: tuple[int, int]) -> Image.Image:
    """Share of each pixel, 0-255, inside a polygon; size: width, height."""
    mask = Image.new("L", (size[0] * _SUPERSAMPLE, size[1] * _SUPERSAMPLE))
    fine = corners * _SUPERSAMPLE - 0.5  # Pillow's integers are pixel centres
    ImageDraw.Draw(mask).polygon([tuple(corner) for corner in fine.tolist()], fill=255)
    return mask.reduce(_SUPERSAMPLE)


def _light_and_grain(rng: np.random.Generator, canvas: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """Uneven light, a fifth up or down, and the noise of a sensor."""
    light = rng.uniform(0.8, 1.2, (3, 3)).astype(np.float32)
    light = np.asarray(Image.fromarray(light).resize(canvas.size, Image.Resampling.BICUBIC))
    pixels = np.asarray(canvas) * light[..., None]
    grain = rng.integers(0, 256, pixels.shape, np.uint8) * np.float32(rng.uniform(4, 20) / 255)
    pixels += grain - grain.mean()
    return np.clip(pixels, 0, 255).astype(np.uint8)
