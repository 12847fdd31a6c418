"""Generate the data set ``shapes``: images of geometric shapes with exact boxes, without a download.

The images contain circles, squares, stars and triangles. The shapes are textured, rotated by at most 15 degrees from
their upright position, and may partly occlude each other. The longer side of their boxes is between 1/8 and 4/5 of the
image's side. The background consists of noise, stripes, a checkerboard or a gradient, with random strokes and patches.
Shapes and backgrounds have textures from the same function and from a similar range of colours, so that colour alone
does not identify the shapes.

An image is determined by (seed, split, index). Boxes are sampled from a separate random stream, and their coordinates
are multiples of 1/64 pixel, so that they are the same on every platform and with every version of Pillow.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image, ImageDraw

from ssd_jax.config import Data, Shapes
from ssd_jax.data.formats.reader import missing_split_error
from ssd_jax.data.problems import Problems
from ssd_jax.data.source import Annotation, Source, join_names, make_annotation
from ssd_jax.errors import UserError

CLASS_NAMES = ("circle", "square", "star", "triangle")
SPLITS = ("train", "val", "test")

_MIN_SIDE, _MAX_SIDE = 1 / 8, 0.8  # range of the longer side of a box, relative to the image's side
_MAX_OBJECTS = 6
_MAX_ROTATION = math.radians(15)
_MAX_OCCLUSION = 0.4  # maximum fraction of a shape's area that other shapes cover
_STAR_RADIUS_RATIO = 0.45  # inner radius divided by outer radius
_SUPERSAMPLING = 4
_MAX_CACHE_BYTES = 2**29
_MIN_CONTRAST = 90.0  # minimum distance (RGB 0-255) between the mean colours of a shape and of its surroundings
_CIRCLE_CORNERS = 64  # corners of the polygon that is drawn for a circle


def split_names(data: Data) -> tuple[str, ...]:
    """Return the names of the splits of the data set ``shapes``."""
    return SPLITS


def open_split(
    data: Data, split: str, class_names: Sequence[str] = (), problems: Problems | None = None
) -> "ShapesSource":
    """Open a split of the generated data set that ``data.shapes`` describes.

    Raises:
        UserError: If the split does not exist, or ``class_names`` is neither empty nor equal to `CLASS_NAMES`.
    """
    if class_names and tuple(class_names) != CLASS_NAMES:
        raise UserError(
            f"shapes: the classes are {join_names(CLASS_NAMES)}, not {join_names(class_names)}. Use the data set that "
            "the model was trained on."
        )
    return ShapesSource(data.shapes, split)


class Shape(NamedTuple):
    """A shape in an image. Coordinates are in pixels, with y pointing down."""

    label: int
    """Label of the class, from 1."""
    corners: Float[np.ndarray, "k 2"]
    """Coordinates (x, y) of the corners of the polygon."""
    box_px: tuple[float, float, float, float]
    """Bounding box of the corners, xyxy in pixels."""


class ShapesSource(Source):
    """A split of the generated data set ``shapes``."""

    class_names = CLASS_NAMES

    def __init__(self, config: Shapes, split: str):
        """Open a split of the generated data set.

        Args:
            config: Options of the data set: numbers of images, image size and seed.
            split: Name of the split: train, val or test.

        Raises:
            UserError: If the split has another name.
        """
        if split not in SPLITS:
            raise missing_split_error("shapes", split, SPLITS)
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
            shapes = sample_shapes(self._random_generator(index, 0), self._size)
            self._annotations[index] = make_annotation(
                f"{self._split}_{index:06d}",
                f"generated image {index} of {self._split}",
                (self._size, self._size),
                [shape.box_px for shape in shapes],
                [shape.label for shape in shapes],
            )
        return self._annotations[index]

    def sizes(self) -> list[tuple[int, int]]:
        return [(self._size, self._size)] * self._length

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Return the image at an index as a read-only array of RGB pixels.

        Since drawing an image takes longer than decoding a file, images are kept in memory, up to 512 MiB per split.
        """
        image = self._images.get(index)
        if image is None:
            shapes = sample_shapes(self._random_generator(index, 0), self._size)
            image = paint_image(self._random_generator(index, 1), shapes, self._size)
            image.setflags(write=False)
            if len(self._images) * image.nbytes < _MAX_CACHE_BYTES:
                self._images[index] = image
        return image

    def _random_generator(self, index: int, stream: int) -> np.random.Generator:
        if not 0 <= index < self._length:
            raise IndexError(f"index {index} of {self._length} images")
        return np.random.Generator(np.random.PCG64([*self._seeds, index, stream]))


# ---- positions ----


def sample_shapes(rng: np.random.Generator, size: int) -> list[Shape]:
    """Return random shapes for an image.

    Args:
        rng: Random generator.
        size: Side of the square image in pixels.

    Returns:
        One to six shapes from back to front. Each shape is entirely inside the image, and at most 40 % of its area is
        covered by other shapes.
    """
    target = 1 + int(rng.random() * _MAX_OBJECTS)
    shapes: list[Shape] = []
    visible: list[Float[np.ndarray, "m 2"]] = []  # the grid points of each shape that are not covered
    totals: list[int] = []  # the number of grid points of each shape
    for _ in range(4 * target):
        shape = _sample_shape(rng, size)
        remaining = [
            points[~_contains_points(shape, points)] if _boxes_overlap(shape.box_px, other.box_px) else points
            for other, points in zip(shapes, visible, strict=True)
        ]
        if any(len(points) < (1 - _MAX_OCCLUSION) * total for points, total in zip(remaining, totals, strict=True)):
            continue
        inside = _grid_points(shape)
        shapes, visible, totals = [*shapes, shape], [*remaining, inside], [*totals, len(inside)]
        if len(shapes) == target:
            break
    return shapes


def _boxes_overlap(box: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def _sample_shape(rng: np.random.Generator, size: int) -> Shape:
    label = 1 + int(rng.random() * len(CLASS_NAMES))
    unit = _unit_corners(CLASS_NAMES[label - 1], _MAX_ROTATION * (2 * rng.random() - 1))
    low, high = unit.min(0), unit.max(0)
    side = size * _MIN_SIDE * (_MAX_SIDE / _MIN_SIDE) ** rng.random()  # sampled log-uniformly
    scale = side / (high - low).max()
    room = size - (high - low) * scale
    corner = room * np.array([rng.random(), rng.random()])
    corners = np.round(((unit - low) * scale + corner) * 64) / 64
    box = (*corners.min(0).tolist(), *corners.max(0).tolist())
    return Shape(label, corners, box)


def _unit_corners(name: str, angle: float) -> Float[np.ndarray, "k 2"]:
    """Return the corners (x, y) of a shape of radius 1 around the origin, rotated by an angle in radians.

    The angle is measured from the upright position. A circle is not rotated.
    """
    count = {"circle": _CIRCLE_CORNERS, "square": 4, "star": 10, "triangle": 3}[name]
    upright = {"circle": 0.0, "square": math.pi / 4, "star": -math.pi / 2, "triangle": -math.pi / 2}[name]
    start = 0.0 if name == "circle" else upright + angle
    radii = [_STAR_RADIUS_RATIO if name == "star" and k % 2 else 1.0 for k in range(count)]
    angles = [start + 2 * math.pi * k / count for k in range(count)]
    return np.array([(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)])


def _grid_points(shape: Shape) -> Float[np.ndarray, "m 2"]:
    """Return the points of a 14 x 14 grid over the shape's box that lie inside the shape."""
    left, top, right, bottom = shape.box_px
    steps = (np.arange(14) + 0.5) / 14
    x, y = np.meshgrid(left + (right - left) * steps, top + (bottom - top) * steps)
    points = np.stack([x.ravel(), y.ravel()], axis=-1)
    return points[_contains_points(shape, points)]


def _contains_points(shape: Shape, points: Float[np.ndarray, "m 2"]) -> Bool[np.ndarray, " m"]:
    """Return whether each point is inside a shape.

    By the even-odd rule, a point is inside if a ray from it to the right crosses the outline an odd number of times.
    """
    (x1, y1), (x2, y2) = shape.corners.T, np.roll(shape.corners, -1, axis=0).T
    x, y = points[:, :1], points[:, 1:]
    straddles = (y1 > y) != (y2 > y)
    slope = (x2 - x1) / np.where(y1 == y2, 1.0, y2 - y1)
    return (straddles & (x < x1 + (y - y1) * slope)).sum(-1) % 2 == 1


# ---- appearance ----


def paint_image(rng: np.random.Generator, shapes: list[Shape], size: int) -> UInt8[np.ndarray, "h w 3"]:
    """Return the RGB pixels of an image with the given shapes.

    The shapes are drawn over a background with clutter; uneven light and noise are then applied to the whole image.

    Args:
        rng: Random generator.
        shapes: Shapes from back to front.
        size: Side of the square image in pixels.
    """
    canvas = _draw_texture(rng, (size, size), rng.uniform(40, 215, 3), spread=rng.uniform(20, 60))
    _paint_camouflage(rng, canvas)
    canvas = _paint_strokes(rng, canvas)
    for shape in shapes:
        _paint_shape(rng, canvas, shape)
    return _add_light_and_noise(rng, canvas)


def _draw_texture(
    rng: np.random.Generator, size: tuple[int, int], colour: Float[np.ndarray, " 3"], spread: float
) -> Image.Image:
    """Return an image with a random texture.

    The texture is smooth noise around one colour, or around two colours that form stripes, a checkerboard or a
    gradient.

    Args:
        rng: Random generator.
        size: Width and height in pixels.
        colour: Mean colour, RGB 0-255.
        spread: Maximum deviation of the noise from its colour, and of each of two colours from ``colour``, on the scale
            0-255.
    """
    shift = rng.uniform(-1, 1, 3) * spread
    kind = rng.integers(len(_MASKS) + 1)
    if kind == len(_MASKS):
        return _draw_noise(rng, size, colour, spread)
    image = _draw_noise(rng, size, colour - shift, spread)
    image.paste(_draw_noise(rng, size, colour + shift, spread), mask=Image.fromarray(_MASKS[kind](rng, size)))
    return image


def _draw_noise(
    rng: np.random.Generator, size: tuple[int, int], colour: Float[np.ndarray, " 3"], spread: float
) -> Image.Image:
    """Return an image of smooth noise around a colour, in patches with sides of 1/4 and 1/16 of the image's sides."""
    noise = np.repeat(np.repeat(rng.uniform(-0.6, 0.6, (4, 4, 3)), 4, axis=0), 4, axis=1)
    noise += rng.uniform(-0.4, 0.4, (16, 16, 3))
    coarse = np.clip(colour + spread * noise, 0, 255).astype(np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def _axis_coordinate(size: tuple[int, int], angle: float) -> Float32[np.ndarray, "h w"]:
    """Return the coordinate of each pixel, in pixels, along an axis that is rotated by an angle in radians."""
    x, y = (np.arange(side, dtype=np.float32) for side in size)
    return x * np.float32(math.cos(angle)) + y[:, None] * np.float32(math.sin(angle))


def _stripes_mask(rng: np.random.Generator, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    ramp = _axis_coordinate(size, rng.uniform(0, math.pi))
    return (127.5 + 127.5 * np.sin(ramp * (2 * math.pi / rng.uniform(4, 24)) + rng.uniform(0, 6))).astype(np.uint8)


def _checkerboard_mask(rng: np.random.Generator, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    side, angle = rng.uniform(2, 12), rng.uniform(0, math.pi)
    one, other = (np.floor(_axis_coordinate(size, a) / side).astype(np.int32) for a in (angle, angle + math.pi / 2))
    return ((one ^ other) & 1).astype(np.uint8) * np.uint8(255)


def _gradient_mask(rng: np.random.Generator, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    ramp = _axis_coordinate(size, rng.uniform(0, 2 * math.pi))
    return ((ramp - ramp.min()) * (255 / max(np.ptp(ramp), 1))).astype(np.uint8)


_MASKS = (_stripes_mask, _checkerboard_mask, _gradient_mask)


def _paint_camouflage(rng: np.random.Generator, canvas: Image.Image) -> None:
    """Draw irregular patches of a second texture, with soft borders, on an image."""
    cells = int(rng.integers(6, 13))
    field = Image.fromarray(rng.integers(0, 256, (cells, cells), np.uint8)).resize(
        canvas.size, Image.Resampling.BICUBIC
    )
    threshold = rng.uniform(150, 205)
    cover = field.point([min(max(round((level - threshold) * 5), 0), 255) for level in range(256)])
    canvas.paste(_draw_texture(rng, canvas.size, rng.uniform(20, 235, 3), spread=30), mask=cover)


def _paint_strokes(rng: np.random.Generator, canvas: Image.Image) -> Image.Image:
    """Return the image with random open curves drawn on it: lines, polylines, and arcs up to a semicircle."""
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
    """Draw a shape in a colour that differs from its surroundings. With probability 1/5, the shape is nearly plain."""
    left, top = (max(math.floor(edge) - 1, 0) for edge in shape.box_px[:2])
    right, bottom = (min(math.ceil(edge) + 1, limit) for edge, limit in zip(shape.box_px[2:], canvas.size, strict=True))
    window = (left, top, right, bottom)
    size = (right - left, bottom - top)
    around = np.asarray(canvas.resize((1, 1), Image.Resampling.BOX, window))[0, 0]
    spread = rng.uniform(5, 20) if rng.random() < 0.2 else rng.uniform(25, 60)
    cover = _polygon_coverage(shape.corners - (left, top), size)
    canvas.paste(_draw_noise(rng, size, _contrasting_colour(rng, around), spread), window, cover)


def _contrasting_colour(rng: np.random.Generator, surroundings: UInt8[np.ndarray, " 3"]) -> Float[np.ndarray, " 3"]:
    """Return a random colour (RGB 0-255) whose distance from the surrounding colour is at least _MIN_CONTRAST.

    If none of 20 random colours has this distance, return the most distant of them.
    """
    colours = rng.uniform(20, 235, (20, 3))
    distance = np.linalg.norm(colours - surroundings, axis=-1)
    return colours[np.argmax(np.minimum(distance, _MIN_CONTRAST))]


def _polygon_coverage(corners: Float[np.ndarray, "k 2"], size: tuple[int, int]) -> Image.Image:
    """Return the fraction of each pixel that is inside a polygon, as an image of (width, height) with values 0-255."""
    mask = Image.new("L", (size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING))
    fine = corners * _SUPERSAMPLING - 0.5  # in Pillow, integer coordinates are pixel centres
    ImageDraw.Draw(mask).polygon([tuple(corner) for corner in fine.tolist()], fill=255)
    return mask.reduce(_SUPERSAMPLING)


def _add_light_and_noise(rng: np.random.Generator, canvas: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """Return the pixels of an image with uneven light, which changes values by up to 20 %, and with sensor noise."""
    light = rng.uniform(0.8, 1.2, (3, 3)).astype(np.float32)
    light = np.asarray(Image.fromarray(light).resize(canvas.size, Image.Resampling.BICUBIC))
    pixels = np.asarray(canvas) * light[..., None]
    grain = rng.integers(0, 256, pixels.shape, np.uint8) * np.float32(rng.uniform(4, 20) / 255)
    pixels += grain - grain.mean()
    return np.clip(pixels, 0, 255).astype(np.uint8)
