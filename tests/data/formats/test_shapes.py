"""Tests that the generated data set is reproducible, has exact boxes, and cannot be solved by colour alone."""

import math

import numpy as np
import pytest
from helpers import reference
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.cluster.vq import kmeans2, vq
from scipy.spatial import ConvexHull

from ssd_jax.config import Data, Shapes
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.formats.shapes import CLASS_NAMES, ShapesSource, _contrasting_colour, _paint_shape, sample_shapes
from ssd_jax.errors import UserError


@pytest.fixture(scope="module")
def shapes_source():
    return ShapesSource(Shapes(), "train")


def sample_many_shapes(count, size=128):
    """Return the shapes of ``count`` images, sampled with seeds that the data set does not use."""
    return [sample_shapes(np.random.default_rng([7, index]), size) for index in range(count)]


def draw_silhouette(shape, size, scale=4):
    """Return a mask of the pixels inside a shape's polygon, at ``scale`` times the resolution of the image."""
    image = Image.new("1", (size * scale, size * scale))
    ImageDraw.Draw(image).polygon([tuple(c) for c in (shape.corners * scale - 0.5).tolist()], fill=1)
    return np.asarray(image)


# ---- reproducibility ----


def test_boxes_of_a_known_image_have_the_stored_values(shapes_source):
    """Check that the generator is unchanged. A change would invalidate every published result on this data set."""
    annotation = shapes_source.annotation(11)
    assert [CLASS_NAMES[label - 1] for label in annotation.labels] == ["square", "circle", "circle", "star"]
    boxes = [
        [0.5, 90.71875, 28.71875, 118.921875],
        [79.21875, 71.96875, 126.6875, 119.421875],
        [102.421875, 80.359375, 123.90625, 101.859375],
        [24.828125, 42.15625, 76.953125, 93.0],
    ]
    np.testing.assert_array_equal(annotation.boxes_px, boxes)


def test_box_coordinates_are_multiples_of_one_64th_of_a_pixel(shapes_source):
    boxes = np.concatenate([shapes_source.annotation(i).boxes_px for i in range(50)])
    np.testing.assert_array_equal(boxes * 64, np.round(boxes * 64))


def test_images_are_determined_by_seed_split_and_index():
    small = Shapes(train_images=5, val_images=5, image_size=48)
    first, again = ShapesSource(small, "train"), ShapesSource(small, "train")
    backwards = [again.image(i) for i in reversed(range(5))][::-1]
    for index in range(5):
        np.testing.assert_array_equal(first.image(index), backwards[index])
        np.testing.assert_array_equal(first.annotation(index).boxes_px, again.annotation(index).boxes_px)
    others = [
        first.image(1),
        ShapesSource(small, "val").image(0),
        ShapesSource(Shapes(train_images=5, image_size=48, seed=1), "train").image(0),
    ]
    assert all((first.image(0) != other).any() for other in others)


def test_images_do_not_depend_on_the_number_of_images():
    few, many = (ShapesSource(Shapes(train_images=n, image_size=32), "train") for n in (2, 9))
    np.testing.assert_array_equal(few.image(1), many.image(1))


def test_shapes_source_has_the_configured_length_and_rejects_invalid_arguments():
    config = Shapes(train_images=3, val_images=2, test_images=1)
    assert [len(ShapesSource(config, split)) for split in ("train", "val", "test")] == [3, 2, 1]
    assert open_source(Data(shapes=config), "val").annotation(1).image_id == "val_000001"
    with pytest.raises(UserError, match=r"'trainval'.*train, val, test"):
        ShapesSource(config, "trainval")
    with pytest.raises(UserError, match=r"circle.*cat"):
        open_source(Data(shapes=config), "val", ("cat",))
    with pytest.raises(IndexError):
        ShapesSource(config, "val").image(2)


def test_cached_images_are_read_only(shapes_source):
    with pytest.raises(ValueError, match="read-only"):
        shapes_source.image(0)[:] = 0


@pytest.mark.parametrize("size", [32, 128, 301])
def test_images_of_any_size_can_be_drawn(size):
    image = ShapesSource(Shapes(image_size=size), "train").image(0)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8


# ---- boxes ----


def test_boxes_are_tight_around_the_silhouette():
    """Compare the boxes with silhouettes that are drawn at four times the resolution of the image."""
    for shapes in sample_many_shapes(20):
        for shape in shapes:
            rows, columns = np.nonzero(draw_silhouette(shape, 128))
            drawn = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 4
            np.testing.assert_allclose(shape.box_px, drawn, atol=0.5)


def test_painted_pixels_match_the_box():
    """Check that painting a shape changes only pixels inside the box of the shape, and some at each edge of the box."""
    blank = Image.new("RGB", (128, 128), (128, 128, 128))
    for shapes in sample_many_shapes(20):
        canvas = blank.copy()
        _paint_shape(np.random.default_rng(0), canvas, shapes[0])
        rows, columns = np.nonzero((np.asarray(canvas) != np.asarray(blank)).any(-1))
        changed = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        np.testing.assert_allclose(shapes[0].box_px, changed, atol=1.3)


@pytest.mark.parametrize(
    ("name", "fill"), [("circle", math.pi / 4), ("square", None), ("triangle", None), ("star", None)]
)
def test_area_ratios_match_the_geometry_of_each_class(name, fill):
    """Check the ratio of the areas of a shape and of its convex hull and, for circles, of the shape and of its box."""
    hollow = {"circle": 1.0, "square": 1.0, "triangle": 1.0, "star": 0.45 / math.cos(math.pi / 5)}
    shapes = [s for many in sample_many_shapes(60) for s in many if CLASS_NAMES[s.label - 1] == name]
    assert len(shapes) > 10
    for shape in shapes:
        x, y = shape.corners.T
        area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
        # For a regular star, the ratio is its inner radius divided by the inradius of the hull.
        assert area / ConvexHull(shape.corners).volume == pytest.approx(hollow[name], abs=0.02)
        left, top, right, bottom = shape.box_px
        if fill:
            assert area / ((right - left) * (bottom - top)) == pytest.approx(fill, abs=0.01)


def test_occlusion_is_limited():
    """Check that at most 40 % of a shape is covered. The margin allows for the generator's grid of 14 x 14 points."""
    worst = 0.0
    for shapes in sample_many_shapes(150):
        masks = [draw_silhouette(shape, 128, scale=2) for shape in shapes]
        for k, mask in enumerate(masks):
            over = np.any(masks[k + 1 :], axis=0) if k + 1 < len(masks) else np.zeros_like(mask)
            worst = max(worst, (mask & over).sum() / mask.sum())
    assert 0.25 < worst < 0.45


def test_rotation_is_limited():
    """Check that the direction from the centre of a triangle or star to its top is within 15 degrees of upright."""
    turns = []
    for shape in (
        s for many in sample_many_shapes(60) for s in many if CLASS_NAMES[s.label - 1] in ("triangle", "star")
    ):
        x, y = (shape.corners - shape.corners.mean(0)).T
        top = np.argmin(y)
        turns.append(math.degrees(math.atan2(x[top], -y[top])))
    assert 12 < max(turns) < 15.5 and -15.5 < min(turns) < -12


# ---- difficulty ----


def test_counts_sizes_and_classes_have_the_intended_distribution(shapes_source):
    annotations = [shapes_source.annotation(i) for i in range(300)]
    counts = np.array([len(a.labels) for a in annotations])
    boxes = np.concatenate([a.boxes_px for a in annotations])
    sides = (boxes[:, 2:] - boxes[:, :2]).max(-1) / 128
    assert counts.min() == 1 and counts.max() == 6 and 3 < counts.mean() < 4
    assert boxes.min() >= 0 and boxes.max() <= 128
    assert sides.min() >= 1 / 8 - 1 / 88 and sides.max() <= 0.8 + 1 / 88
    # Sizes are sampled log-uniformly, so each third of the logarithmic range contains about a third of the shapes. The
    # margin allows for large shapes, which are rejected more often.
    shares = np.histogram(np.log(sides), np.linspace(math.log(1 / 8) - 0.1, math.log(0.8) + 0.1, 4))[0] / len(sides)
    assert (shares > 0.15).all() and (shares < 0.5).all()
    classes = np.bincount(np.concatenate([a.labels for a in annotations]), minlength=5)[1:] / len(boxes)
    np.testing.assert_allclose(classes, 0.25, atol=0.06)
    overlapping = [
        any(reference.voc_iou(a, b) > 0.02 for k, a in enumerate(annotation.boxes_px) for b in annotation.boxes_px[:k])
        for annotation in annotations
    ]
    assert 0.25 < np.mean(overlapping) < 0.75


def test_backgrounds_are_textured_and_varied(shapes_source):
    """Check that the background of an image has many colours, and that the mean colours of backgrounds differ."""
    means = []
    for index in range(60):
        image, outside = shapes_source.image(index).astype(float), np.ones((128, 128), bool)
        for left, top, right, bottom in shapes_source.annotation(index).boxes_px.astype(int):
            outside[top : bottom + 1, left : right + 1] = False
        if outside.sum() < 2000:
            continue
        assert image[outside].std(0).max() > 10
        means.append(image[outside].mean(0))
    assert len(means) > 20 and np.std(means, axis=0).min() > 20


def test_contrasting_colour_has_the_minimum_distance(shapes_source):
    """Check that the colours of a shape and of its surroundings have a distance of at least 90 (RGB from 0 to 255)."""
    rng = np.random.default_rng(0)
    for around in ((0, 0, 0), (128, 128, 128), (255, 255, 255), (255, 0, 128)):
        assert min(np.linalg.norm(_contrasting_colour(rng, np.uint8(around)) - around) for _ in range(50)) >= 90


# ---- colour alone ----


def detect_by_colour(image, clusters):
    """Return the shapes that are found by colour and geometry, as tuples of class name, box (xyxy, pixels) and score.

    The colours of the image are clustered by k-means, and connected regions of one cluster are classified.
    """
    smooth = ndimage.median_filter(image, (3, 3, 1)).astype(float)
    means, _ = kmeans2(smooth[::3, ::3].reshape(-1, 3), clusters, minit="++", seed=0)
    colours, _ = vq(smooth.reshape(-1, 3), means)
    detections = []
    for cluster in range(clusters):
        regions, _ = ndimage.label(colours.reshape(image.shape[:2]) == cluster)
        for number, (rows, columns) in enumerate(ndimage.find_objects(regions), start=1):
            region = ndimage.binary_fill_holes(regions[rows, columns] == number)
            if min(region.shape) >= 7 and max(region.shape) <= 0.85 * len(image):
                name, score = classify_region(region)
                detections.append((name, (columns.start, rows.start, columns.stop, rows.stop), score))
    return detections


def classify_region(region):
    """Return the most probable class name of a region, and a score of at most 0.

    Classes are distinguished by two numbers that do not depend on rotation: the ratios of the region's area to that of
    the ellipse with equal moments, and to that of the convex hull.
    """
    forms = {"circle": (1.0, 1.0), "square": (0.955, 1.0), "triangle": (0.827, 1.0), "star": (0.806, 0.56)}
    points = np.argwhere(region)
    compact = len(points) / (4 * math.pi * math.sqrt(max(np.linalg.det(np.cov(points.T)), 1e-9)))
    corners = np.concatenate([points + np.array(step) for step in ((0, 0), (0, 1), (1, 0), (1, 1))])
    solid = len(points) / ConvexHull(corners).volume
    distance = {name: 3 * abs(compact - c) + abs(solid - s) for name, (c, s) in forms.items()}
    name = min(distance, key=distance.get)
    return name, -distance[name]


def compute_map_by_colour(images, truths, clusters):
    """Return the mAP of `detect_by_colour`. ``truths`` has a list of objects (class name, box) for each image."""
    by_image = [detect_by_colour(image, clusters) for image in images]
    aps = []
    for name in CLASS_NAMES:
        detections = [[(box, score) for n, box, score in image if n == name] for image in by_image]
        truth = [[(box, False) for n, box in image if n == name] for image in truths]
        aps.append(reference.voc_ap(*reference.voc_precision_recall(detections, truth, 0.5), eleven_point=True))
    return np.mean(aps)


@pytest.mark.parametrize(
    ("clusters", "count"),
    [(6, 40), pytest.param(6, 60, marks=pytest.mark.slow), pytest.param(12, 60, marks=pytest.mark.slow)],
)
def test_colour_clustering_does_not_find_the_shapes(clusters, count):
    source = ShapesSource(Shapes(), "test")
    truths = [
        [(CLASS_NAMES[label - 1], box) for label, box in zip(a.labels, a.boxes_px, strict=True)]
        for a in map(source.annotation, range(count))
    ]
    assert compute_map_by_colour([source.image(i) for i in range(count)], truths, clusters) < 0.3


def test_colour_clustering_finds_plain_shapes_on_plain_backgrounds():
    """Check that detection by colour is a fair baseline, because it finds single shapes of uniform colour."""
    images, truths = [], []
    for shapes in sample_many_shapes(60):
        inside = draw_silhouette(shapes[0], 128, scale=1)
        images.append(np.where(inside[..., None], (250, 200, 30), (20, 60, 90)).astype(np.uint8))
        truths.append([(CLASS_NAMES[shapes[0].label - 1], shapes[0].box_px)])
    assert compute_map_by_colour(images, truths, clusters=2) > 0.8
