"""Tests of augmentation and resampling against plain loops that follow Caffe and OpenCV, and against closed forms."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reference
from scipy import stats

from ssd_jax.config import Augment, Config
from ssd_jax.errors import UserError
from ssd_jax.ops import augmentation, resample
from ssd_jax.runs.config_file import validate

MEAN = (123.0, 117.0, 104.0)
PAPER = Augment()
ALL_OFF = Augment(distort_probability=0, expand_probability=0, crop=False, flip_probability=0)
NEUTRAL = {"brightness": 0.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, "contrast_first": True}
WHOLE = np.array([0, 0, 1, 1], np.float32)


def make_random_keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


jit_resize = jax.jit(resample.resize, static_argnums=1, static_argnames="fill")


def make_noise_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pad_objects(boxes, labels=None, object_count=4):
    """Return boxes and labels padded to ``object_count`` objects.

    Padding boxes cover the whole image, so that a test fails if they are used.
    """
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    rest = object_count - len(boxes)
    labels = [1] * len(boxes) if labels is None else labels
    return np.concatenate([boxes, np.tile(WHOLE, (rest, 1))]), np.array([*labels, *[0] * rest], np.int32)


# ---- sampling ----


@pytest.mark.parametrize(("height", "width", "size"), [(13, 17, 9), (9, 14, 23), (20, 20, 10), (1, 1, 4), (7, 3, 1)])
def test_resize_equals_opencv_and_ignores_pixels_beyond_the_content(height, width, size):
    canvas = make_noise_image(24, 32)
    expected = reference.resize_like_cv2(canvas[:height, :width], size)
    actual = jit_resize(canvas, size, np.int32(height), np.int32(width))
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, atol=2e-3)


def test_resize_returns_hand_computed_values():
    row = np.repeat(np.array([[[0], [100], [200]]], np.uint8), 3, axis=2)
    # From 3 pixels to 2, samples are at 0.25 and 1.75; from 3 to 6, at -0.25 (moved to 0), 0.25, 0.75, ...
    np.testing.assert_allclose(jit_resize(row, 2)[0, :, 0], [25, 175], atol=1e-4)
    np.testing.assert_allclose(jit_resize(row, 6)[0, :, 0], [0, 25, 75, 125, 175, 200], atol=1e-4)


@pytest.mark.parametrize("size", [1, 49, 141, 300])  # in float32, 141 * (1 / 141) is not 1
def test_resize_returns_an_image_of_the_target_size_unchanged(size):
    image = make_noise_image(size, size)
    actual = jit_resize(image, size, np.int32(size), np.int32(size))
    np.testing.assert_array_equal(actual, image)


def test_resize_fills_an_image_without_pixels():
    resized = jit_resize(make_noise_image(4, 4), 3, 0, 0, fill=(1.0, 2.0, 3.0))
    np.testing.assert_array_equal(resized, np.broadcast_to([1, 2, 3], (3, 3, 3)))


@pytest.mark.parametrize(
    "interpolate", [resample.interpolate_by_gather, resample.interpolate_in_chunks, resample.interpolate_by_products]
)
@pytest.mark.parametrize("count", [1, 4, 11])
def test_interpolation_functions_equal_a_plain_loop(interpolate, count):
    image, rng = make_noise_image(12, 15), np.random.default_rng(1)
    rows, columns = rng.uniform(0, 11, count).astype(np.float32), rng.uniform(0, 14, 6).astype(np.float32)
    rows[0], columns[:3] = 11, (0, 14, 7)  # the border and a pixel's centre
    expected = [[reference.interpolate_bilinearly(image.astype(float), y, x) for x in columns] for y in rows]
    actual = jax.jit(interpolate)(image, jnp.array(rows), jnp.array(columns))
    np.testing.assert_allclose(actual, expected, atol=2e-3)


def test_resize_compiles_only_the_interpolation_of_the_platform():
    batched = jax.jit(jax.vmap(lambda image: resample.resize(image, 8)))
    image = jax.ShapeDtypeStruct((2, 9, 9, 3), jnp.uint8)
    operations = {
        platform: jax.export.export(batched, platforms=[platform])(image).mlir_module()
        for platform in ("cpu", "cuda", "tpu")
    }
    assert "stablehlo.gather" in operations["cpu"] and "stablehlo.while" in operations["cpu"]
    assert "stablehlo.gather" in operations["cuda"] and "stablehlo.while" not in operations["cuda"]
    assert "dot_general" not in operations["cpu"] + operations["cuda"]
    assert "dot_general" in operations["tpu"] and "HIGHEST" in operations["tpu"]
    assert "stablehlo.gather" not in operations["tpu"] and "stablehlo.while" not in operations["tpu"]


@pytest.mark.parametrize("flip", [False, True])
def test_sample_window_equals_separate_expand_crop_flip_and_resize(flip):
    """The edges of the windows lie between pixels, so the separate steps need no rounding.

    Samples interpolated across a border are not compared: there the separate steps mix image and fill, and repeat the
    last pixel of the crop.
    """
    height, width, size = 20, 24, 31
    image = make_noise_image(height, width)
    canvas_box = (50, 50)  # 2.5 times the height, but 50 / 24 times the width
    top, left, crop = 9, 13, (3, 6, 43, 46)  # crop is xyxy in pixels of the canvas
    canvas = reference.expand_image(image, *canvas_box, top, left, MEAN)
    content = reference.expand_image(np.ones_like(image), *canvas_box, top, left, (0, 0, 0))
    cropped, content = (a[crop[1] : crop[3], crop[0] : crop[2]] for a in (canvas, content))
    cropped, content = (a[:, ::-1] if flip else a for a in (cropped, content))
    expected, content = reference.resize_like_cv2(cropped, size), reference.resize_like_cv2(content, size)[..., 0]

    expand = np.array([-left / width, -top / height, (50 - left) / width, (50 - top) / height], np.float32)
    window = augmentation.unproject_boxes(np.array([crop], np.float32) / 50, expand)[0]
    window = augmentation.flip_window(window) if flip else window
    pixels, inside = resample.sample_window(image, window, size)
    actual = np.where(inside[..., None], pixels, MEAN)

    np.testing.assert_array_equal(inside[content == 1], True)
    np.testing.assert_array_equal(inside[content == 0], False)
    unmixed = ((content == 0) | (content == 1))[1:-1, 1:-1]
    assert unmixed.mean() > 0.8 and inside.mean() > 0.2
    np.testing.assert_allclose(actual[1:-1, 1:-1][unmixed], expected[1:-1, 1:-1][unmixed], atol=0.02)


# ---- expand ----


def test_random_expand_window_has_the_distribution_of_caffe():
    windows = np.asarray(
        jax.vmap(lambda key: augmentation.random_expand_window(key, PAPER))(make_random_keys(4000)), np.float64
    )
    ratio = windows[:, 2:] - windows[:, :2]
    np.testing.assert_allclose(ratio[:, 0], ratio[:, 1], atol=1e-5)  # the same ratio for both sides
    expanded = ratio[:, 0] > 1
    assert expanded.mean() == pytest.approx(0.5, abs=0.03)
    np.testing.assert_array_equal(windows[~expanded], np.tile(WHOLE, ((~expanded).sum(), 1)))
    ratio = ratio[expanded, 0]
    position = -windows[expanded, :2] / (ratio[:, None] - 1)  # 0 if the image is at the left or top of the canvas
    assert stats.kstest((ratio - 1) / 3, "uniform").pvalue > 0.01
    assert stats.kstest(position[:, 0], "uniform").pvalue > 0.01
    assert stats.kstest(position[:, 1], "uniform").pvalue > 0.01
    assert np.abs(np.corrcoef([ratio, *position.T]) - np.eye(3)).max() < 0.1


# ---- the batch sampler ----


@functools.partial(jax.jit, static_argnames=("config", "count"))
def draw_crop_windows(boxes, labels, config=PAPER, count=4000):
    draw = functools.partial(augmentation.random_crop_window, boxes=boxes, labels=labels, config=config)
    return jax.vmap(lambda key: draw(key))(make_random_keys(count, seed=5))


def are_whole_images(windows):
    return (np.asarray(windows) == WHOLE).all(axis=1)


SCENES = {
    "medium": [[0.3, 0.2, 0.7, 0.8]],
    "small in a corner": [[0.0, 0.9, 0.2, 1.0]],
    "three": [[0.1, 0.1, 0.25, 0.4], [0.4, 0.0, 1.0, 0.7], [0.6, 0.6, 0.63, 0.65]],
}


@pytest.mark.parametrize(
    "scene",
    ["three", *(pytest.param(scene, marks=pytest.mark.slow) for scene in ("medium", "small in a corner"))],
)
def test_random_crop_window_has_the_distribution_of_caffe(scene):
    boxes = SCENES[scene]
    rng = np.random.default_rng(3)
    expected = []
    for _ in range(1500):
        samples = reference.sample_patches(rng, boxes, (0.1, 0.3, 0.5, 0.7, 0.9), 50, (0.3, 1.0), (0.5, 2.0))
        expected.append(samples[rng.integers(len(samples))])
    expected, actual = np.array(expected), np.asarray(draw_crop_windows(*pad_objects(boxes)), np.float64)
    assert are_whole_images(actual).mean() == pytest.approx(are_whole_images(expected).mean(), abs=0.04)

    def compute_window_features(windows):
        windows = windows[~are_whole_images(windows)]
        width, height = (windows[:, 2:] - windows[:, :2]).T
        overlap = [max(reference.box_iou(window, box) for box in boxes) for window in windows]
        return {
            "area": width * height,
            "aspect": width / height,
            "x": windows[:, 0],
            "y": windows[:, 1],
            "iou": overlap,
        }

    actual, expected = compute_window_features(actual), compute_window_features(expected)
    for name in actual:  # rounded, because values near 0 differ between float32 and float64
        assert stats.ks_2samp(*(np.round(f[name], 4) for f in (actual, expected))).pvalue > 0.01, name


def test_random_patches_are_inside_the_image_with_scale_and_ratio_in_range():
    patches = np.asarray(augmentation.random_patches(jax.random.key(0), 20_000, PAPER), np.float64)
    assert patches.min() >= 0 and patches.max() <= 1 + 1e-6
    width, height = (patches[:, 2:] - patches[:, :2]).T
    scale, ratio = np.sqrt(width * height), width / height
    assert stats.kstest((scale - 0.3) / 0.7, "uniform").pvalue > 0.01
    assert ratio.min() > 0.499 and ratio.max() < 2.001
    assert (ratio > scale**2 - 1e-4).all() and (ratio < 1 / scale**2 + 1e-4).all()
    free = scale < 0.7  # here [s^2, 1 / s^2] contains [.5, 2], so the ratio is not limited
    assert stats.kstest((ratio[free] - 0.5) / 1.5, "uniform").pvalue > 0.01
    assert (width[scale**2 > 0.95] > 0.95).all()  # the limit of the ratio has an effect
    for corner, extent in zip(patches.T, (width, height), strict=False):
        assert stats.kstest((corner / np.maximum(1 - extent, 0.1))[extent < 0.9], "uniform").pvalue > 0.01


def test_random_crop_window_matches_the_closed_form_for_an_object_of_image_size():
    """A patch of scale s has an IoU of s^2 with the object. Since s is uniform in [0.3, 1], the shares are known."""
    windows = np.asarray(draw_crop_windows(*pad_objects([WHOLE])), np.float64)
    p_valid = [(1 - max(t**0.5, 0.3)) / 0.7 for t in (0.1, 0.3, 0.5, 0.7, 0.9, 0.0)]
    miss = (1 - p_valid[4]) ** 50  # only the sampler with minimum .9 may find no patch, in about 1 of 45 cases
    share = (1 - miss) / 7 + miss / 6
    assert are_whole_images(windows).mean() == pytest.approx(share, abs=0.02)
    area = np.prod(windows[:, 2:] - windows[:, :2], axis=1)
    for level in (0.3, 0.5, 0.9):
        above = (1 - level**0.5) / 0.7
        expected = share * (1 + sum(min(1, above / p) for p in p_valid[:4] + p_valid[5:])) + (1 - miss) / 7
        assert (area >= level - 1e-6).mean() == pytest.approx(expected, abs=0.03), level


def test_random_crop_window_is_the_whole_image_in_half_of_the_draws_for_a_tiny_object():
    # Patches have an IoU of at most .0025 / .09 with this object.
    windows = draw_crop_windows(*pad_objects([[0.5, 0.5, 0.55, 0.55]]))
    assert are_whole_images(windows).mean() == pytest.approx(0.5, abs=0.03)


def test_random_crop_window_accepts_patches_that_overlap_one_of_two_objects():
    alone = are_whole_images(draw_crop_windows(*pad_objects([WHOLE]))).mean()
    both = are_whole_images(draw_crop_windows(*pad_objects([[0.5, 0.5, 0.55, 0.55], WHOLE]))).mean()
    assert both == pytest.approx(alone, abs=0.02)


@pytest.mark.parametrize("object_count", [0, 4])
def test_random_crop_window_is_the_whole_image_without_objects(object_count):
    assert are_whole_images(
        draw_crop_windows(*pad_objects([], object_count=object_count), count=4000 if object_count else 20)
    ).all()


def test_random_crop_window_without_minimum_overlap_accepts_a_box_without_area():
    # The IoU with such a box is 0, which meets Caffe's bound of "at most 1".
    assert are_whole_images(draw_crop_windows(*pad_objects([[0.5, 0.5, 0.5, 0.9]]))).mean() == pytest.approx(
        0.5, abs=0.03
    )


@pytest.mark.parametrize(
    ("overlap", "share"),
    [(0.25, 1 / 3), pytest.param(np.nextafter(np.float32(0.25), np.float32(1)), 1 / 2, marks=pytest.mark.slow)],
)
def test_random_crop_window_accepts_patches_with_exactly_the_minimum_overlap(overlap, share):
    # Patches of .5 x .5 in an object as large as the image have an IoU of exactly 1 / 4, also in float32.
    config = Augment(
        crop_min_overlaps=(float(overlap),), crop_scale=(0.5, 0.5), crop_aspect_ratio=(1.0, 1.0), crop_trials=3
    )
    assert are_whole_images(draw_crop_windows(*pad_objects([WHOLE]), config=config)).mean() == pytest.approx(
        share, abs=0.03
    )


# ---- boxes ----


def test_crop_boxes_keeps_boxes_with_centres_inside_the_window_or_on_its_border():
    window = np.array([0.25, 0.25, 0.75, 0.75], np.float32)
    boxes = [
        [0.0, 0.25, 0.5, 0.5],  # centre exactly on the left border
        [0.5, 0.5, 1.0, 1.0],  # centre in the corner of the window
        [0.0, 0.3, 0.4999999, 0.5],  # centre left of the border
        [0.5, 0.5, 0.5, 0.6],  # no width
        [0.375, 0.5, 0.625, 0.625],
    ]
    labels = np.array([1, 2, 3, 4, 5], np.int32)
    actual, kept = augmentation.crop_boxes(np.array(boxes, np.float32), labels, window)
    np.testing.assert_array_equal(kept, [1, 2, 0, 0, 5])
    expected = [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0] * 4, [0] * 4, [0.25, 0.5, 0.75, 0.75]]
    np.testing.assert_array_equal(actual, expected)


def test_crop_boxes_equals_caffe_on_random_boxes():
    crop_boxes = jax.jit(augmentation.crop_boxes)
    rng = np.random.default_rng(0)
    for _ in range(20):
        corners = np.sort(rng.uniform(0, 1, (50, 2, 2)), axis=1).astype(np.float32)
        boxes, labels = corners.reshape(50, 4), rng.integers(0, 3, 50).astype(np.int32)
        window = np.asarray(reference.sample_patch(rng, (0.3, 1.0), (0.5, 2.0)), np.float32)
        expected, expected_labels = reference.crop_annotation(boxes.tolist(), labels.tolist(), window.tolist())
        actual, actual_labels = crop_boxes(boxes, labels, window)
        np.testing.assert_array_equal(actual_labels, expected_labels)
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_flip_boxes_mirrors_boxes_and_zeroes_padding():
    boxes, labels = pad_objects([[0.1, 0.2, 0.4, 0.9]], object_count=2)
    np.testing.assert_allclose(augmentation.flip_boxes(boxes, labels), [[0.6, 0.2, 0.9, 0.9], [0] * 4], atol=1e-6)


# ---- colours ----


def test_random_distortion_has_the_distribution_of_caffe():
    draws = jax.jit(jax.vmap(lambda key: augmentation.random_distortion(key, PAPER)))(make_random_keys(6000))
    neutral = {"brightness": 0, "contrast": 1, "saturation": 1, "hue": 0}
    low_high = {"brightness": (-32, 32), "contrast": (0.5, 1.5), "saturation": (0.5, 1.5), "hue": (-18, 18)}
    applied = {name: np.asarray(getattr(draws, name)) != neutral[name] for name in neutral}
    for name, (low, high) in low_high.items():
        assert applied[name].mean() == pytest.approx(0.5, abs=0.03)
        values = np.asarray(getattr(draws, name), np.float64)[applied[name]]
        assert stats.kstest((values - low) / (high - low), "uniform").pvalue > 0.01
    assert np.mean(draws.contrast_first) == pytest.approx(0.5, abs=0.03)
    switches = np.array([*applied.values(), draws.contrast_first], float)
    assert np.abs(np.corrcoef(switches) - np.eye(5)).max() < 0.06
    np.testing.assert_array_equal(draws.channel_order, np.tile([0, 1, 2], (6000, 1)))


def test_random_distortion_shuffles_channels_uniformly():
    config = Augment(channel_shuffle_probability=0.5)
    draws = jax.jit(jax.vmap(lambda key: augmentation.random_distortion(key, config)))(make_random_keys(6000))
    orders, counts = np.unique(draws.channel_order, axis=0, return_counts=True)
    assert len(orders) == 6
    expected = [0.5 + 0.5 / 6, *[0.5 / 6] * 5]  # a shuffle may keep the order
    np.testing.assert_allclose(counts / 6000, expected, atol=0.02)
    shuffled = (np.asarray(draws.channel_order) != [0, 1, 2]).any(axis=1)
    assert abs(np.corrcoef(shuffled, draws.contrast_first)[0, 1]) < 0.06


@jax.jit
def distort_pixels(pixels, distortion):
    return augmentation.distort(pixels[None], distortion)[0]


def make_distortion(channel_order=(0, 1, 2), **values):
    numbers = {k: np.asarray(v, bool if k == "contrast_first" else np.float32) for k, v in (NEUTRAL | values).items()}
    return augmentation.Distortion(**numbers, channel_order=np.array(channel_order, np.int32))


def test_distort_equals_caffe_pixel_by_pixel():
    rng = np.random.default_rng(0)
    extremes = np.array(np.meshgrid([0, 128, 255], [0, 128, 255], [0, 128, 255])).reshape(3, -1).T
    nearly_red = [[255, 0, 10], [255, 10, 0], [200, 199, 199], [1, 0, 0]]
    pixels = np.concatenate([extremes, nearly_red, rng.uniform(0, 255, (60, 3))]).astype(np.float32)
    for trial in range(24):
        values = {
            "brightness": rng.uniform(-32, 32),
            "contrast": rng.uniform(0.5, 1.5),
            "saturation": rng.uniform(0.5, 1.5),
            "hue": rng.uniform(-18, 18),
            "contrast_first": trial % 2 == 0,
            "channel_order": tuple(rng.permutation(3).tolist()),
        }
        expected = [reference.distort_pixel(pixel.tolist(), **values) for pixel in pixels]
        np.testing.assert_allclose(distort_pixels(pixels, make_distortion(**values)), expected, atol=0.02)


@pytest.mark.parametrize(
    ("pixel", "values", "expected"),
    [
        ((255, 0, 0), {"hue": 15}, (255, 127.5, 0)),  # 30 degrees, between red and yellow
        ((255, 0, 0), {"hue": -15}, (255, 0, 0)),  # a hue below 0 becomes 0, as in Caffe's uint8
        ((255, 0, 127.5), {"hue": 18}, (255, 25.5, 0)),  # 330 + 36 degrees wraps around to 6
        ((0, 0, 255), {"hue": -15}, (0, 127.5, 255)),
        ((200, 100, 100), {"saturation": 0.5}, (200, 150, 150)),
        ((200, 100, 50), {"saturation": 1.5}, (200, 200 / 3, 0)),  # S is at most 1; the hue is kept
        ((90, 90, 90), {"saturation": 1.5, "hue": 18}, (90, 90, 90)),
        ((10, 250, 100), {"brightness": 20}, (30, 255, 120)),
        ((10, 250, 100), {"brightness": -20}, (0, 230, 80)),
        ((10, 250, 100), {"contrast": 1.5}, (15, 255, 150)),  # values are multiplied, not differences from the mean
        ((10, 20, 30), {"channel_order": (2, 0, 1)}, (30, 10, 20)),
        ((200, 100, 100), {"contrast": 1.5, "saturation": 0.5, "contrast_first": True}, (255, 202.5, 202.5)),
        ((200, 100, 100), {"contrast": 1.5, "saturation": 0.5, "contrast_first": False}, (255, 225, 225)),
    ],
)
def test_distort_returns_hand_computed_values(pixel, values, expected):
    actual = distort_pixels(jnp.array([pixel], jnp.float32), make_distortion(**values))
    np.testing.assert_allclose(actual, [expected], atol=1e-3)


def test_distort_with_neutral_parameters_changes_nothing():
    pixels = make_noise_image(1, 500)[0].astype(np.float32)
    np.testing.assert_allclose(distort_pixels(pixels, make_distortion()), pixels, atol=1e-3)


# ---- augment ----


@functools.partial(jax.jit, static_argnames=("size", "config"))
def augment_batch(batch_keys, images, size, boxes, labels, config, height, width):
    def augment_one(key, image, boxes, labels, height, width):
        return augmentation.augment(key, image, size, boxes, labels, config, height=height, width=width, fill=MEAN)

    return jax.vmap(augment_one)(batch_keys, images, boxes, labels, height, width)


def repeat_arrays(count, *arrays):
    return [np.broadcast_to(a, (count, *np.shape(a))) for a in arrays]


def test_augment_moves_boxes_with_the_pixels():
    """The red and green channels contain the coordinates of each pixel, so the result shows where the window was.

    The blue channel distinguishes the content from the fill.
    """
    height, width, size, count = 50, 60, 64, 300
    canvas = make_noise_image(64, 64)
    canvas[:height, :width] = 200
    canvas[:height, :width, 0] = 4 * np.arange(width)
    canvas[:height, :width, 1] = 4 * np.arange(height)[:, None]
    boxes_px = np.array([[12, 5, 48, 44], [40, 20, 58, 30], [2, 30, 12, 48]])
    boxes, labels = pad_objects(boxes_px / [width, height, width, height], [1, 2, 3])
    config = Augment(distort_probability=0)
    images, new_boxes, new_labels = augment_batch(
        make_random_keys(count, seed=2),
        *repeat_arrays(count, canvas),
        size,
        *repeat_arrays(count, boxes, labels),
        config,
        *repeat_arrays(count, np.int32(height), np.int32(width)),
    )
    images, cases = np.asarray(images, np.float64), []
    for image, actual, actual_labels in zip(images, np.asarray(new_boxes), np.asarray(new_labels), strict=True):
        inside = image[..., 2] > 150
        np.testing.assert_array_equal(image[~inside], np.broadcast_to(MEAN, ((~inside).sum(), 3)))
        if inside.any(axis=0).sum() < 12 or inside.any(axis=1).sum() < 12:
            continue  # too few pixels to measure the window
        step_x, start_x = fit_window(image[..., 0], inside, axis=1, last=4 * (width - 1))
        step_y, start_y = fit_window(image[..., 1], inside, axis=0, last=4 * (height - 1))
        window = np.array([start_x / width, start_y / height, (start_x + step_x) / width, (start_y + step_y) / height])
        flip = step_x < 0
        upright = window[[2, 1, 0, 3]] if flip else window
        expected, expected_labels = reference.crop_annotation(boxes.tolist(), labels.tolist(), upright.tolist())
        if flip:
            expected[:, [0, 2]] = np.where(np.array(expected_labels)[:, None] > 0, 1 - expected[:, [2, 0]], 0)
        np.testing.assert_array_equal(actual_labels, expected_labels)
        np.testing.assert_allclose(actual, expected, atol=0.2 / size)
        cases.append([flip, (~inside).any(), 0 in expected_labels[:3]])
    flips, expansions, drops = np.array(cases, float).T
    assert flips.sum() > 50 and expansions.sum() > 50 and drops.sum() > 30
    assert abs(np.corrcoef(flips, expansions)[0, 1]) < 0.2


def fit_window(values, inside, axis, last):
    """Return the length and the start of the window along an axis, in pixels of the input image.

    ``values`` is a colour channel that increases by 4 per pixel of the input image along this axis.
    """
    size = len(values)
    other = np.flatnonzero(inside.any(axis=axis))[0]
    line, valid = (values[other], inside[other]) if axis == 1 else (values[:, other], inside[:, other])
    valid = valid & (line > 0) & (line < last)  # without the repeated pixels of the border
    slope, start = np.polyfit((np.flatnonzero(valid) + 0.5) / size, line[valid] / 4 + 0.5, 1)
    return slope, start


def test_augment_only_resizes_if_all_steps_are_off():
    images = make_noise_image(40, 30)[None]
    boxes, labels = pad_objects([[0.1, 0.2, 0.4, 0.9], [0.5, 0.5, 0.5, 0.6]], [3, 4])
    image, new_boxes, new_labels = augment_batch(
        make_random_keys(1),
        images,
        16,
        boxes[None],
        labels[None],
        ALL_OFF,
        np.array([25], np.int32),
        np.array([30], np.int32),
    )
    np.testing.assert_allclose(image[0], reference.resize_like_cv2(images[0, :25], 16), atol=5e-3)
    np.testing.assert_array_equal(new_labels[0], [3, 0, 0, 0])  # a box without area is dropped
    np.testing.assert_allclose(new_boxes[0, 0], boxes[0])
    np.testing.assert_array_equal(new_boxes[0, 1:], 0)


def test_augment_distorts_the_image_but_not_the_fill():
    count, image = 64, np.full((20, 20, 3), (40, 90, 200), np.uint8)
    augmented, _, _ = augment_batch(
        make_random_keys(count),
        *repeat_arrays(count, image),
        24,
        *repeat_arrays(count, *pad_objects([])),
        Augment(crop=False),
        *repeat_arrays(count, np.int32(20), np.int32(20)),
    )
    colours = [np.unique(np.round(a.reshape(-1, 3), 2), axis=0) for a in np.asarray(augmented)]
    expanded = sum((rows == MEAN).all(axis=1).any() for rows in colours)
    changed = sum(not (np.abs(rows - [40, 90, 200]).max(axis=1) < 0.1).any() for rows in colours)
    assert all(len(rows) <= 2 for rows in colours)  # the image and the fill, without blends
    assert 16 < expanded < 48
    assert changed > 48  # 15 of 16 are expected


def test_augment_is_reproducible_from_the_key_inside_and_outside_a_batch():
    boxes, labels = pad_objects(SCENES["three"])
    images, size, heights, widths = (
        repeat_arrays(4, make_noise_image(30, 40))[0],
        16,
        *repeat_arrays(4, np.int32(30), np.int32(40)),
    )
    arrays = (*repeat_arrays(4, boxes, labels), PAPER, heights, widths)
    first = augment_batch(make_random_keys(4), images, size, *arrays)
    again = augment_batch(make_random_keys(4), images, size, *arrays)
    other = augment_batch(make_random_keys(4, seed=1), images, size, *arrays)
    alone = jax.jit(augmentation.augment, static_argnums=(2, 5))(
        make_random_keys(4)[2], images[2], size, boxes, labels, PAPER
    )
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(first, alone, strict=True):
        np.testing.assert_allclose(a[2], b, atol=0.05)
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[0][0], first[0][1])


def test_augment_uses_a_separate_key_for_each_step(monkeypatch):
    """The random steps are replaced by functions that record their key and return a constant."""
    used = []

    def make_recorder(result):
        def record_key(key, *_):
            used.append(tuple(jax.random.key_data(key).tolist()))
            return result

        return record_key

    monkeypatch.setattr(augmentation, "random_expand_window", make_recorder(jnp.array(WHOLE)))
    monkeypatch.setattr(augmentation, "random_crop_window", make_recorder(jnp.array(WHOLE)))
    monkeypatch.setattr(augmentation, "random_distortion", make_recorder(make_distortion()))
    monkeypatch.setattr(augmentation, "distort", lambda image, _: image)
    monkeypatch.setattr(augmentation, "sample_window", lambda *_, **__: (jnp.zeros((2, 2, 3)), jnp.ones((2, 2), bool)))
    key = jax.random.key(3)
    augmentation.augment(key, make_noise_image(2, 2), 2, *pad_objects([]), ALL_OFF)
    assert len({*used, tuple(jax.random.key_data(key).tolist())}) == 4


# ---- conventions ----


def test_augmentation_functions_take_the_key_first_and_options_as_keywords():
    functions = [
        f for _, f in inspect.getmembers(augmentation, inspect.isfunction) if f.__module__ == augmentation.__name__
    ]
    assert {"augment", "random_crop_window", "random_expand_window", "random_distortion"} <= {
        f.__name__ for f in functions
    }
    for function in functions:
        parameters = list(inspect.signature(function).parameters.values())
        names = [p.name for p in parameters]
        assert function.__name__.startswith("random_") <= (names[0] == "key"), function
        assert "key" not in names[1:], function
        for parameter in parameters:
            is_option = parameter.default is not parameter.empty and parameter.name != "config"
            assert (parameter.kind is parameter.KEYWORD_ONLY) == is_option, (function, parameter)


@pytest.mark.parametrize(
    "changes",
    [
        {"flip_probability": 1.5},
        {"contrast": (1.5, 0.5)},
        {"hue": -1.0},
        {"crop_scale": (0.0, 1.0)},
        {"crop_scale": (0.5, 1.2)},
        {"expand_max_ratio": 0.5},
        {"crop_trials": 0},
    ],
)
def test_config_rejects_invalid_augmentation_values(changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        validate(Config(augment=Augment(**changes)))


def test_random_crop_window_is_the_first_accepted_patch_of_a_sampler():
    """Compare with a plain loop over the same patches. The last accepted patch would have the same distribution."""
    config = Augment()
    boxes, labels = jnp.array([[0.1, 0.2, 0.5, 0.7]]), jnp.array([1])
    min_overlaps = [*config.crop_min_overlaps, 0.0]
    crop = jax.jit(lambda key: augmentation.random_crop_window(key, boxes, labels, config))
    count = len(min_overlaps) * config.crop_trials
    draw = jax.jit(lambda key: augmentation.random_patches(jax.random.split(key)[0], count, config))
    chosen = set()
    for key in jax.random.split(jax.random.key(3), 30):
        patches = np.asarray(draw(key)).reshape(len(min_overlaps), -1, 4)
        allowed = [np.array([0, 0, 1, 1], np.float32)]
        for sampler, min_overlap in zip(patches, min_overlaps, strict=True):
            accepted = [patch for patch in sampler if reference.box_iou(patch, np.asarray(boxes[0])) >= min_overlap]
            allowed += accepted[:1]
        window = np.asarray(crop(key))
        matches = [index for index, patch in enumerate(allowed) if np.allclose(patch, window, atol=1e-6)]
        assert matches, (window, allowed)
        chosen.add(min(matches) > 0)
    assert chosen == {True, False}
