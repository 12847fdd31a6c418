"""Augmentation as in the paper's final version (sections 2.2 and 3.6), one image per call, on the device.

Conventions of this module:

- Images are RGB, 0 to 255. The network subtracts the mean.
- Boxes are (g, 4) xyxy, normalised; labels are (g,), 0 for padding. A box that is dropped becomes padding in its place,
  so that other arrays with an axis g (such as `difficult`) stay aligned.
- A window is a box in the coordinates of the image that it is cut from (see `ssd_jax.ops.resample`). The whole image is
  (0, 0, 1, 1).
- Apart from `augment`, only the functions called `random_...` take a key. They draw the parameters of a deterministic
  function, so the same key gives the same result. Each of them draws all its numbers at once, because every further
  use of a key adds a third of a second of compilation on a CPU.

The steps are those of Caffe (DistortImage and ExpandImage, src/caffe/layers/annotated_data_layer.cpp;
src/caffe/util/sampler.cpp and im_transforms.cpp, branch ssd of github.com/weiliu89/caffe): distort the colours, expand,
crop, resize, mirror. It differs from Caffe in these points:

- There is no JPEG encoding and decoding between the steps.
- Expanding, cropping, mirroring and resizing are one window, sampled once and bilinearly. Caffe rounds canvas and crop
  to whole pixels, and draws the interpolation of the resizing from five kinds.
- The colours change after sampling, when there are fewer pixels. The fill keeps the mean as in Caffe.
- Values are clipped to [0, 255] after each operation as in Caffe, but not rounded.
- Image and fill are not blended at their border.

Reference: Liu et al., "SSD: Single Shot MultiBox Detector", https://arxiv.org/abs/1512.02325, 2016.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from ssd_jax.config import Augment
from ssd_jax.ops.boxes import pairwise_iou
from ssd_jax.ops.resample import sample_window

Boxes = Float[Array | np.ndarray, "g 4"]
Labels = Int[Array | np.ndarray, " g"]
Window = Float[Array | np.ndarray, "4"]
RGB = tuple[float, float, float]
Number = float | Float[Array, "*n"]

_WHOLE_IMAGE = (0.0, 0.0, 1.0, 1.0)


def augment(
    key: PRNGKeyArray,
    image: UInt8[Array | np.ndarray, "h w 3"],
    size: int,
    boxes: Boxes,
    labels: Labels,
    config: Augment = Augment(),
    *,
    height: int | Int[Array | np.ndarray, ""] | None = None,
    width: int | Int[Array | np.ndarray, ""] | None = None,
    fill: RGB = (123.0, 117.0, 104.0),
) -> tuple[Float[Array, "{size} {size} 3"], Float[Array, "g 4"], Int[Array, " g"]]:
    """Augment an image and its boxes at random.

    Args:
        key: Random key. The same key gives the same result.
        image: Canvas, RGB. Its top left `height` x `width` pixels are the content.
        size: Side of the result, pixels. Static under `jax.jit`.
        boxes: Boxes, xyxy, normalised to the content.
        labels: Labels of the boxes; 0 for padding.
        config: Ranges and probabilities. Static under `jax.jit`.
        height: Height of the content, pixels; defaults to that of the canvas.
        width: Width of the content, pixels; defaults to that of the canvas.
        fill: Colour of the result outside the content: `mean` of `ssd_jax.config.Model`.

    Returns:
        The augmented image, RGB, 0 to 255; its boxes, normalised to it; and their labels. Boxes whose centre is not in
        the augmented image are replaced by padding.
    """
    expand_key, crop_key, flip_key, distort_key = jax.random.split(key, 4)
    canvas = random_expand_window(expand_key, config)
    boxes = project_boxes(boxes, canvas)
    crop = random_crop_window(crop_key, boxes, labels, config)
    boxes, labels = crop_boxes(boxes, labels, crop)
    window = unproject_boxes(crop[None], canvas)[0]
    flip = jax.random.uniform(flip_key) < config.flip_probability
    boxes = jnp.where(flip, flip_boxes(boxes, labels), boxes)
    window = jnp.where(flip, flip_window(window), window)

    pixels, inside = sample_window(image, window, size, height=height, width=width)
    pixels = distort(pixels, random_distortion(distort_key, config))
    return jnp.where(inside[..., None], pixels, jnp.array(fill, jnp.float32)), boxes, labels


def random_expand_window(key: PRNGKeyArray, config: Augment) -> Float[Array, "4"]:
    """Draw the window of zoom-out (paper, section 3.6).

    Returns:
        A canvas of 1 to `expand_max_ratio` times the width and height of the image, with the image anywhere on it, as a
        window of the image.
    """
    apply, ratio, x, y = jax.random.uniform(key, (4,))
    ratio = jnp.where(apply < config.expand_probability, _interpolate(1, config.expand_max_ratio, ratio), 1)
    corner = -jnp.stack([x, y]) * (ratio - 1)
    return jnp.concatenate([corner, corner + ratio])


def random_crop_window(key: PRNGKeyArray, boxes: Boxes, labels: Labels, config: Augment) -> Float[Array, "4"]:
    """Draw the window of a random crop, as Caffe's batch sampler does.

    There is one sampler for each minimum overlap in `crop_min_overlaps`, and one without a minimum. Each draws
    `crop_trials` random patches and takes the first whose IoU with any box is large enough. One is then chosen from
    these patches and the whole image, all equally likely. Unlike in the paper's text, samplers that find no valid patch
    are excluded before one is chosen.

    Padding never counts. The sampler without a minimum needs a box, too: Caffe bounds its overlap by "at most 1", which
    some box must meet. So without boxes the result is the whole image (GenerateBatchSamples and
    SatisfySampleConstraint).
    """
    if not config.crop:
        return jnp.array(_WHOLE_IMAGE)
    patch_key, choice_key = jax.random.split(key)
    min_overlaps = np.array([*config.crop_min_overlaps, 0.0], np.float32)
    samplers = len(min_overlaps)
    patches = random_patches(patch_key, samplers * config.crop_trials, config)
    overlaps = jnp.where(jnp.asarray(labels) > 0, pairwise_iou(patches, boxes), -1).max(axis=1, initial=-1)
    accepted = overlaps.reshape(samplers, -1) >= min_overlaps[:, None]
    first_accepted = jnp.argmax(accepted, axis=1)
    candidates = patches.reshape(samplers, -1, 4)[jnp.arange(samplers), first_accepted]
    windows = jnp.concatenate([jnp.array([_WHOLE_IMAGE]), candidates])
    available = jnp.concatenate([jnp.array([True]), accepted.any(axis=1)])
    rank = jnp.cumsum(available)  # 1, 2, ... among the available windows
    return windows[jnp.argmax(rank > jax.random.uniform(choice_key) * rank[-1])]


def random_patches(key: PRNGKeyArray, count: int, config: Augment) -> Float[Array, "{count} 4"]:
    """Draw windows inside the image, as Caffe's SampleBBox does.

    Scale s and aspect ratio r are uniform, and r is limited to [s^2, 1 / s^2]. The width is s sqrt(r), the height
    s / sqrt(r), and the position is uniform.
    """
    scale, ratio, x, y = jax.random.uniform(key, (4, count))
    scale = _interpolate(*config.crop_scale, scale)
    ratio = jnp.clip(_interpolate(*config.crop_aspect_ratio, ratio), scale**2, 1 / scale**2)
    # The limits of the ratio keep the sides at 1 or below, except for rounding.
    extent = jnp.minimum(jnp.stack([scale * jnp.sqrt(ratio), scale / jnp.sqrt(ratio)], axis=1), 1)
    corner = jnp.stack([x, y], axis=1) * (1 - extent)
    return jnp.concatenate([corner, corner + extent], axis=1)


def project_boxes(boxes: Boxes, window: Window) -> Float[Array, "g 4"]:
    """Convert boxes to the coordinates of the window, in which the window is (0, 0, 1, 1)."""
    corner, extent = jnp.tile(window[:2], 2), jnp.tile(window[2:] - window[:2], 2)
    return (jnp.asarray(boxes) - corner) / extent


def unproject_boxes(boxes: Boxes, window: Window) -> Float[Array, "g 4"]:
    """Convert boxes from the coordinates of the window: the inverse of `project_boxes`."""
    corner, extent = jnp.tile(window[:2], 2), jnp.tile(window[2:] - window[:2], 2)
    return corner + boxes * extent


def crop_boxes(boxes: Boxes, labels: Labels, window: Window) -> tuple[Float[Array, "g 4"], Int[Array, " g"]]:
    """Crop boxes to the window and convert them to its coordinates.

    Boxes are kept if their centre lies in the window or on its border. The others, and boxes left without area, become
    padding. (Caffe: MeetEmitConstraint with CENTER and ProjectBBox, src/caffe/util/bbox_util.cpp.)
    """
    boxes, labels = jnp.asarray(boxes), jnp.asarray(labels)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    is_inside = ((centers >= window[:2]) & (centers <= window[2:])).all(axis=1)
    cropped = jnp.clip(project_boxes(boxes, window), 0, 1)
    keep = (labels > 0) & is_inside & (cropped[:, 2:] > cropped[:, :2]).all(axis=1)
    return jnp.where(keep[:, None], cropped, 0), jnp.where(keep, labels, 0)


def flip_boxes(boxes: Boxes, labels: Labels) -> Float[Array, "g 4"]:
    """Mirror boxes left to right. Padding is set to zero."""
    x1, y1, x2, y2 = jnp.asarray(boxes).T
    return jnp.where(jnp.asarray(labels)[:, None] > 0, jnp.stack([1 - x2, y1, 1 - x1, y2], axis=1), 0)


def flip_window(window: Window) -> Float[Array, "4"]:
    """Mirror a window, so that it is read from right to left."""
    return jnp.asarray(window)[jnp.array([2, 1, 0, 3])]


class Distortion(NamedTuple):
    """Parameters of `distort`. The neutral values are 0, 1, 1, 0, either, (0, 1, 2)."""

    brightness: Float[Array | np.ndarray, ""]
    """Added to each channel."""
    contrast: Float[Array | np.ndarray, ""]
    """Factor of each channel."""
    saturation: Float[Array | np.ndarray, ""]
    """Factor of S in HSV."""
    hue: Float[Array | np.ndarray, ""]
    """Added to H in HSV, in OpenCV's units of two degrees."""
    contrast_first: Bool[Array | np.ndarray, ""]
    """Whether contrast is applied before saturation and hue, or after them."""
    channel_order: Int[Array | np.ndarray, "3"]
    """Index of the input channel of each output channel."""


def random_distortion(key: PRNGKeyArray, config: Augment) -> Distortion:
    """Draw the parameters of `distort`: each is uniform in its range with `distort_probability`, or else neutral."""
    apply, amount, (first, shuffle), order = jnp.split(jax.random.uniform(key, (13,)), [4, 8, 10])
    max_brightness, max_hue = config.brightness, config.hue
    low, high = jnp.array(
        [(-max_brightness, max_brightness), config.contrast, config.saturation, (-max_hue, max_hue)]
    ).T
    brightness, contrast, saturation, hue = jnp.where(
        apply < config.distort_probability, _interpolate(low, high, amount), jnp.array([0.0, 1.0, 1.0, 0.0])
    )
    contrast_first = first < config.contrast_first_probability
    channel_order = jnp.where(shuffle < config.channel_shuffle_probability, jnp.argsort(order), jnp.arange(3))
    return Distortion(brightness, contrast, saturation, hue, contrast_first, channel_order)


def distort(image: Float[Array | np.ndarray, "h w 3"], distortion: Distortion) -> Float[Array, "h w 3"]:
    """Distort the colours of an image: brightness, contrast, saturation and hue, then the order of the channels.

    Contrast is applied after hue if `contrast_first` is False. Values are clipped to [0, 255] after each operation
    (Caffe's ApplyDistort, on uint8).

    Args:
        image: RGB, 0 to 255.
        distortion: The parameters.

    Returns:
        The distorted image, RGB, 0 to 255.
    """
    contrast, first = distortion.contrast, distortion.contrast_first
    planes = jnp.moveaxis(jnp.asarray(image), -1, 0)  # vectorises twice as well with a plane per colour
    planes = jnp.clip(planes + distortion.brightness, 0, 255)
    planes = jnp.clip(planes * jnp.where(first, contrast, 1), 0, 255)
    planes = _adjust_hsv(planes, distortion.saturation, distortion.hue)
    planes = jnp.clip(planes * jnp.where(first, 1, contrast), 0, 255)
    return jnp.moveaxis(planes[distortion.channel_order], 0, -1)


def _adjust_hsv(
    planes: Float[Array, "3 h w"], saturation: Float[Array | np.ndarray, ""], hue: Float[Array | np.ndarray, ""]
) -> Float[Array, "3 h w"]:
    """Multiply S and add to H in one conversion to HSV and back.

    As in Caffe, whose H is a uint8 in units of two degrees, H saturates at 0 and wraps around above 180. S is at most
    1. The computation uses the chroma, V * S, instead of S.
    """
    red, green, blue = planes
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    # H in sixths of the circle. It is undefined for grey, where any value will do.
    divisor = jnp.where(chroma > 0, chroma, 1)
    hue_sixths = jnp.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    hue_sixths = jnp.where(value == red, (green - blue) / divisor, hue_sixths)
    hue_sixths = jnp.where(hue_sixths < 0, hue_sixths + 6, hue_sixths)
    hue_sixths = jnp.maximum(hue_sixths + hue / 30, 0)
    chroma = jnp.minimum(chroma * saturation, value)

    def channel(offset: int) -> Float[Array, "h w"]:
        # https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative
        k = hue_sixths + offset
        k = k - 6 * jnp.floor(k / 6)
        return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return jnp.stack([channel(5), channel(3), channel(1)])


def _interpolate(low: Number, high: Number, weight: Float[Array, "*n"]) -> Float[Array, "*n"]:
    return low + (high - low) * weight
