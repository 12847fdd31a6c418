"""Augmentation of the paper's final version (sections 2.2 and 3.6), on the device, one image a call.

Data contract of this module:

- images are RGB, 0 to 255; the mean is subtracted by whoever runs the network;
- boxes are (g, 4) xyxy, normalised, labels (g,) with 0 for padding; a box that is dropped becomes
  padding in its place, so arrays beside them (``difficult``) stay aligned;
- a window is a box in the coordinates of the picture it is cut from (see resample.py); the whole
  picture is (0, 0, 1, 1);
- ``random_x`` draws, from its key alone, the parameters of something deterministic; the same key gives
  the same picture. Each draws its numbers at once: a further use of a key is a third of a second of
  compilation on a CPU.

The steps are those of Caffe (DistortImage and ExpandImage, src/caffe/layers/annotated_data_layer.cpp;
src/caffe/util/sampler.cpp and im_transforms.cpp, branch ssd of github.com/weiliu89/caffe): distort the
colours, expand, crop, resize, mirror. Departures, besides the absent JPEG re-encoding in between:

- expand, crop, mirror and resize are one window, sampled once and bilinearly; Caffe rounds canvas and
  crop to whole pixels, and draws the interpolation of the resize from five kinds;
- the colours change after the sampling, on fewer pixels; the fill keeps the mean all the same;
- values are clipped to [0, 255] after each operation as in Caffe, but not rounded;
- at the border of image and fill there is no blending.

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

_WHOLE = (0.0, 0.0, 1.0, 1.0)


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
    """A random picture of size x size made from the image, with the boxes that are seen in it.

    The content of ``image`` is its top left ``height`` x ``width`` pixels (default: all of it); boxes
    are normalised to the content, and those returned to the new picture. ``fill``, the mean of
    config.Model, shows where the picture reaches outside the image.
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
    """Zoom-out (paper section 3.6): a canvas around the image, 1 to ``expand_max_ratio`` times its
    width and its height, with the image anywhere on it. As a window of the image."""
    apply, ratio, x, y = jax.random.uniform(key, (4,))
    ratio = jnp.where(apply < config.expand_probability, _mix(1, config.expand_max_ratio, ratio), 1)
    corner = -jnp.stack([x, y]) * (ratio - 1)
    return jnp.concatenate([corner, corner + ratio])


def random_crop_window(key: PRNGKeyArray, boxes: Boxes, labels: Labels, config: Augment) -> Float[Array, "4"]:
    """The batch sampler: a patch of the picture, or all of it.

    There is a sampler for each least overlap in ``crop_min_overlaps``, and one without a bound. Each
    tries ``crop_trials`` random patches, and offers the first whose IoU with any box is large enough;
    one of the offers and the whole picture is taken, all equally likely. So a sampler that seldom
    succeeds is seldom seen; the paper's text draws the sampler first. Padding never counts. The patch
    without a bound asks for a box too (Caffe bounds it by "at most 1", which some box must meet), so
    without boxes the whole picture is taken (GenerateBatchSamples and SatisfySampleConstraint).
    """
    if not config.crop:
        return jnp.array(_WHOLE)
    patch_key, choice_key = jax.random.split(key)
    min_overlaps = np.array([*config.crop_min_overlaps, 0.0], np.float32)
    samplers = len(min_overlaps)
    patches = random_patches(patch_key, samplers * config.crop_trials, config)
    overlaps = jnp.where(jnp.asarray(labels) > 0, pairwise_iou(patches, boxes), -1).max(axis=1, initial=-1)
    accepted = overlaps.reshape(samplers, -1) >= min_overlaps[:, None]
    first = jnp.argmax(accepted, axis=1)
    offers = patches.reshape(samplers, -1, 4)[jnp.arange(samplers), first]
    windows = jnp.concatenate([jnp.array([_WHOLE]), offers])
    offered = jnp.concatenate([jnp.array([True]), accepted.any(axis=1)])
    place = jnp.cumsum(offered)  # 1, 2, ... of each offer among the offers
    return windows[jnp.argmax(place > jax.random.uniform(choice_key) * place[-1])]


def random_patches(key: PRNGKeyArray, count: int, config: Augment) -> Float[Array, "{count} 4"]:
    """Windows inside the picture: scale s and aspect ratio r are uniform, r limited to [s^2, 1 / s^2],
    width s sqrt(r), height s / sqrt(r), the place uniform (SampleBBox)."""
    scale, ratio, x, y = jax.random.uniform(key, (4, count))
    scale = _mix(*config.crop_scale, scale)
    ratio = jnp.clip(_mix(*config.crop_aspect_ratio, ratio), scale**2, 1 / scale**2)
    # At most 1 by the limits of the ratio, but for rounding.
    extent = jnp.minimum(jnp.stack([scale * jnp.sqrt(ratio), scale / jnp.sqrt(ratio)], axis=1), 1)
    corner = jnp.stack([x, y], axis=1) * (1 - extent)
    return jnp.concatenate([corner, corner + extent], axis=1)


def project_boxes(boxes: Boxes, window: Window) -> Float[Array, "g 4"]:
    """Boxes in the coordinates of the window, that is with the window as (0, 0, 1, 1)."""
    corner, extent = jnp.tile(window[:2], 2), jnp.tile(window[2:] - window[:2], 2)
    return (jnp.asarray(boxes) - corner) / extent


def unproject_boxes(boxes: Boxes, window: Window) -> Float[Array, "g 4"]:
    """The inverse of project_boxes: boxes given in the window's coordinates, in those around it."""
    corner, extent = jnp.tile(window[:2], 2), jnp.tile(window[2:] - window[:2], 2)
    return corner + boxes * extent


def crop_boxes(boxes: Boxes, labels: Labels, window: Window) -> tuple[Float[Array, "g 4"], Int[Array, " g"]]:
    """Boxes and labels as seen in the window: those whose centre lies in it, its border included, cut
    to it and in its coordinates. The others, and boxes left without area, become padding.

    Caffe: MeetEmitConstraint with CENTER and ProjectBBox, src/caffe/util/bbox_util.cpp.
    """
    boxes, labels = jnp.asarray(boxes), jnp.asarray(labels)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    seen = ((centers >= window[:2]) & (centers <= window[2:])).all(axis=1)
    cut = jnp.clip(project_boxes(boxes, window), 0, 1)
    keep = (labels > 0) & seen & (cut[:, 2:] > cut[:, :2]).all(axis=1)
    return jnp.where(keep[:, None], cut, 0), jnp.where(keep, labels, 0)


def flip_boxes(boxes: Boxes, labels: Labels) -> Float[Array, "g 4"]:
    """Boxes of the picture mirrored left to right; padding stays zero."""
    x1, y1, x2, y2 = jnp.asarray(boxes).T
    return jnp.where(jnp.asarray(labels)[:, None] > 0, jnp.stack([1 - x2, y1, 1 - x1, y2], axis=1), 0)


def flip_window(window: Window) -> Float[Array, "4"]:
    """The window that is read from right to left."""
    return jnp.asarray(window)[jnp.array([2, 1, 0, 3])]


class Distortion(NamedTuple):
    """What distort does. The neutral values are 0, 1, 1, 0, either, (0, 1, 2)."""

    brightness: Float[Array | np.ndarray, ""]
    """Added."""
    contrast: Float[Array | np.ndarray, ""]
    """Multiplies."""
    saturation: Float[Array | np.ndarray, ""]
    """Multiplies HSV's S."""
    hue: Float[Array | np.ndarray, ""]
    """Added to HSV's H, in OpenCV's units of two degrees."""
    contrast_first: Bool[Array | np.ndarray, ""]
    """Contrast before saturation and hue, or after them."""
    channel_order: Int[Array | np.ndarray, "3"]


def random_distortion(key: PRNGKeyArray, config: Augment) -> Distortion:
    """Each of the four operations is neutral, or with ``distort_probability`` uniform in its range."""
    apply, amount, (first, shuffle), order = jnp.split(jax.random.uniform(key, (13,)), [4, 8, 10])
    shift, turn = config.brightness, config.hue
    low, high = jnp.array([(-shift, shift), config.contrast, config.saturation, (-turn, turn)]).T
    brightness, contrast, saturation, hue = jnp.where(
        apply < config.distort_probability, _mix(low, high, amount), jnp.array([0.0, 1.0, 1.0, 0.0])
    )
    contrast_first = first < config.contrast_first_probability
    channel_order = jnp.where(shuffle < config.channel_shuffle_probability, jnp.argsort(order), jnp.arange(3))
    return Distortion(brightness, contrast, saturation, hue, contrast_first, channel_order)


def distort(image: Float[Array | np.ndarray, "h w 3"], distortion: Distortion) -> Float[Array, "h w 3"]:
    """Brightness, contrast, saturation, hue; or contrast last; then the order of the channels.

    Values are clipped to [0, 255] after each (Caffe: ApplyDistort, on uint8).
    """
    contrast, first = distortion.contrast, distortion.contrast_first
    planes = jnp.moveaxis(jnp.asarray(image), -1, 0)  # colours as whole planes vectorise twice as well
    planes = jnp.clip(planes + distortion.brightness, 0, 255)
    planes = jnp.clip(planes * jnp.where(first, contrast, 1), 0, 255)
    planes = _adjust_hsv(planes, distortion.saturation, distortion.hue)
    planes = jnp.clip(planes * jnp.where(first, 1, contrast), 0, 255)
    return jnp.moveaxis(planes[distortion.channel_order], 0, -1)


def _adjust_hsv(
    planes: Float[Array, "3 h w"], saturation: Float[Array | np.ndarray, ""], hue: Float[Array | np.ndarray, ""]
) -> Float[Array, "3 h w"]:
    """Multiply S, then add to H, in one conversion to HSV and back.

    As in Caffe, whose H is a uint8 of two degrees a unit: below 0 it stays at 0, beyond 180 it goes
    round. S is at most 1. Instead of S this works with the chroma, V * S.
    """
    red, green, blue = planes
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    # H in sixths of the circle; grey has none, and any will do.
    divisor = jnp.where(chroma > 0, chroma, 1)
    turn = jnp.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    turn = jnp.where(value == red, (green - blue) / divisor, turn)
    turn = jnp.where(turn < 0, turn + 6, turn)
    turn = jnp.maximum(turn + hue / 30, 0)
    chroma = jnp.minimum(chroma * saturation, value)

    def channel(offset: int) -> Float[Array, "h w"]:
        # https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative
        k = turn + offset
        k = k - 6 * jnp.floor(k / 6)
        return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return jnp.stack([channel(5), channel(3), channel(1)])


def _mix(low: Number, high: Number, weight: Float[Array, "*n"]) -> Float[Array, "*n"]:
    return low + (high - low) * weight
