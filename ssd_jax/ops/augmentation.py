"""Data augmentation as in the final version of the paper (sections 2.2 and 3.6), in JAX, for one image per call.

Conventions of this module:

- Images are RGB, 0 to 255. Subtracting the mean is left to the network.
- Boxes are (g, 4) xyxy, normalised; labels are (g,), 0 for padding. A box that is dropped becomes padding in its place,
  so that other arrays with an axis g (such as `difficult`) stay aligned.
- A window is a box in the normalised coordinates of the image that it is cut from (see `ssd_jax.ops.resample`). The
  window (0, 0, 1, 1) is the whole image.
- Apart from `augment`, only the functions called `random_...` take a key. The same key gives the same result. These
  functions draw their numbers in as few calls as possible, because every further use of a key adds a third of a second
  of compilation on a CPU.

The steps are those of Caffe (DistortImage and ExpandImage, src/caffe/layers/annotated_data_layer.cpp;
src/caffe/util/sampler.cpp and im_transforms.cpp, branch ssd of github.com/weiliu89/caffe): distort the colours, expand,
crop, resize, mirror. This module differs from Caffe in these points:

- There is no JPEG encoding and decoding between the steps.
- Expanding, cropping, mirroring and resizing are combined into one window, which is sampled once, bilinearly. Caffe
  rounds canvas and crop to whole pixels, and chooses the interpolation for each resizing at random from five methods.
- The colours are distorted after sampling, when there are fewer pixels. As in Caffe, the area outside the image has
  exactly the mean colour.
- Values are clipped to [0, 255] after each operation as in Caffe, but not rounded.
- The image and the mean colour around it are not blended at their border.

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
    """Return a randomly augmented image with its boxes and labels.

    Args:
        key: Random key. The same key gives the same result.
        image: Canvas, RGB, 0 to 255. Its top left `height` x `width` pixels are the content, the image itself.
        size: Side of the result, pixels. Static under `jax.jit`.
        boxes: Boxes, xyxy, normalised to the content.
        labels: Labels of the boxes; 0 for padding.
        config: Ranges and probabilities. Static under `jax.jit`.
        height: Height of the content, pixels; defaults to that of the canvas.
        width: Width of the content, pixels; defaults to that of the canvas.
        fill: Colour of the result outside the content, RGB, 0 to 255. Training uses `mean` of `ssd_jax.config.Model`.

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
    """Return a random window for zoom-out (paper, section 3.6): a larger canvas around the image.

    Returns:
        A window, xyxy, normalised to the image. With a probability of `expand_probability`, the window is 1 to
        `expand_max_ratio` times as wide and as high as the image, which has a random position in the window. Otherwise,
        the window is the whole image.
    """
    apply, ratio, x, y = jax.random.uniform(key, (4,))
    ratio = jnp.where(apply < config.expand_probability, _interpolate(1, config.expand_max_ratio, ratio), 1)
    corner = -jnp.stack([x, y]) * (ratio - 1)
    return jnp.concatenate([corner, corner + ratio])


def random_crop_window(key: PRNGKeyArray, boxes: Boxes, labels: Labels, config: Augment) -> Float[Array, "4"]:
    """Return a random window for cropping, chosen as by Caffe's batch sampler.

    There is one sampler for each minimum overlap in `crop_min_overlaps`, and one without a minimum. Each sampler draws
    `crop_trials` random patches and takes the first patch whose IoU with any box is large enough. The result is chosen
    from these patches and the whole image, all with the same probability. In the paper's text, the sampler is chosen
    first; here, as in Caffe, a sampler that finds no valid patch takes no part in the choice.

    Padding is ignored. The sampler without a minimum also needs a box: Caffe requires an IoU of "at most 1" with some
    box. So the result for an image without boxes is the whole image (GenerateBatchSamples and
    SatisfySampleConstraint). It is also the whole image if `config.crop` is False.
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
    """Return `count` random windows inside the image, drawn as by Caffe's SampleBBox.

    The scale s and the aspect ratio r are drawn uniformly from `crop_scale` and `crop_aspect_ratio`; then r is clipped
    to [s^2, 1 / s^2]. The width is s sqrt(r) and the height s / sqrt(r), both normalised. The position is uniform
    within the image.
    """
    scale, ratio, x, y = jax.random.uniform(key, (4, count))
    scale = _interpolate(*config.crop_scale, scale)
    ratio = jnp.clip(_interpolate(*config.crop_aspect_ratio, ratio), scale**2, 1 / scale**2)
    # The limits of the ratio keep the sides at 1 or below, except for rounding.
    extent = jnp.minimum(jnp.stack([scale * jnp.sqrt(ratio), scale / jnp.sqrt(ratio)], axis=1), 1)
    corner = jnp.stack([x, y], axis=1) * (1 - extent)
    return jnp.concatenate([corner, corner + extent], axis=1)


def project_boxes(boxes: Boxes, window: Window) -> Float[Array, "g 4"]:
    """Convert boxes from the coordinates of an image to those of a window, in which the window is (0, 0, 1, 1)."""
    corner, extent = jnp.tile(window[:2], 2), jnp.tile(window[2:] - window[:2], 2)
    return (jnp.asarray(boxes) - corner) / extent


def unproject_boxes(boxes: Boxes, window: Window) -> Float[Array, "g 4"]:
    """Convert boxes from the coordinates of a window to those of the image: the inverse of `project_boxes`."""
    corner, extent = jnp.tile(window[:2], 2), jnp.tile(window[2:] - window[:2], 2)
    return corner + boxes * extent


def crop_boxes(boxes: Boxes, labels: Labels, window: Window) -> tuple[Float[Array, "g 4"], Int[Array, " g"]]:
    """Return boxes and labels cropped to a window, with boxes in the coordinates of the window.

    Boxes are kept if their centre lies in the window or on its border. All other boxes, and boxes that have no area
    after cropping, become padding. (Caffe: MeetEmitConstraint with CENTER and ProjectBBox,
    src/caffe/util/bbox_util.cpp.)
    """
    boxes, labels = jnp.asarray(boxes), jnp.asarray(labels)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    is_inside = ((centers >= window[:2]) & (centers <= window[2:])).all(axis=1)
    cropped = jnp.clip(project_boxes(boxes, window), 0, 1)
    keep = (labels > 0) & is_inside & (cropped[:, 2:] > cropped[:, :2]).all(axis=1)
    return jnp.where(keep[:, None], cropped, 0), jnp.where(keep, labels, 0)


def flip_boxes(boxes: Boxes, labels: Labels) -> Float[Array, "g 4"]:
    """Return the boxes of an image after mirroring it left to right. Rows of padding are set to zero."""
    x1, y1, x2, y2 = jnp.asarray(boxes).T
    return jnp.where(jnp.asarray(labels)[:, None] > 0, jnp.stack([1 - x2, y1, 1 - x1, y2], axis=1), 0)


def flip_window(window: Window) -> Float[Array, "4"]:
    """Return a window with its left and right sides swapped, so that it is sampled from right to left."""
    return jnp.asarray(window)[jnp.array([2, 1, 0, 3])]


class Distortion(NamedTuple):
    """Parameters of `distort`.

    Brightness 0, contrast 1, saturation 1, hue 0 and channel order (0, 1, 2) leave an image unchanged.
    """

    brightness: Float[Array | np.ndarray, ""]
    """Number added to each channel, on the scale 0 to 255."""
    contrast: Float[Array | np.ndarray, ""]
    """Factor that the values of each channel are multiplied by."""
    saturation: Float[Array | np.ndarray, ""]
    """Factor that the saturation S of HSV is multiplied by."""
    hue: Float[Array | np.ndarray, ""]
    """Number added to the hue H of HSV, in OpenCV's units of two degrees."""
    contrast_first: Bool[Array | np.ndarray, ""]
    """True to apply contrast before saturation and hue, False to apply it after them."""
    channel_order: Int[Array | np.ndarray, "3"]
    """For each output channel, the index of the input channel that it is copied from."""


def random_distortion(key: PRNGKeyArray, config: Augment) -> Distortion:
    """Return random parameters for `distort`.

    Brightness, contrast, saturation and hue are each drawn uniformly from their range with a probability of
    `distort_probability`; otherwise they leave the image unchanged.
    """
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
    """Return an image with changed brightness, contrast, saturation and hue, and then reordered channels.

    Contrast is applied after hue if `contrast_first` is False. Values are clipped to [0, 255] after each operation, as
    in Caffe's ApplyDistort, which works on uint8.

    Args:
        image: RGB, 0 to 255.
        distortion: Parameters, for example those that `random_distortion` returns.

    Returns:
        The distorted image, RGB, 0 to 255.
    """
    contrast, first = distortion.contrast, distortion.contrast_first
    planes = jnp.moveaxis(jnp.asarray(image), -1, 0)  # with one plane per colour, this vectorises twice as well
    planes = jnp.clip(planes + distortion.brightness, 0, 255)
    planes = jnp.clip(planes * jnp.where(first, contrast, 1), 0, 255)
    planes = _adjust_hsv(planes, distortion.saturation, distortion.hue)
    planes = jnp.clip(planes * jnp.where(first, 1, contrast), 0, 255)
    return jnp.moveaxis(planes[distortion.channel_order], 0, -1)


def _adjust_hsv(
    planes: Float[Array, "3 h w"], saturation: Float[Array | np.ndarray, ""], hue: Float[Array | np.ndarray, ""]
) -> Float[Array, "3 h w"]:
    """Return the colour planes after S of HSV is multiplied by `saturation` and `hue` is added to H.

    H is in units of two degrees. As in Caffe, which stores H as uint8, a negative H becomes 0, and an H above 180 wraps
    around. S is limited to 1. The computation uses the chroma, V * S, instead of S.
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

    def compute_channel(offset: int) -> Float[Array, "h w"]:
        # https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative
        k = hue_sixths + offset
        k = k - 6 * jnp.floor(k / 6)
        return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return jnp.stack([compute_channel(5), compute_channel(3), compute_channel(1)])


def _interpolate(low: Number, high: Number, weight: Float[Array, "*n"]) -> Float[Array, "*n"]:
    return low + (high - low) * weight
