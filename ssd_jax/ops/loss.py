"""The training objective: localisation and classification over matched boxes and hard negatives.

With N the default boxes matched in the whole batch, t the encoded and p the predicted offsets,
and x the logits (paper equation 1; Caffe's MultiBoxLoss with normalization VALID):

    L = (L_conf + location_weight * L_loc) / max(1, N)
    L_loc  = sum over positives, and over 4 offsets, of smooth_l1(p - t)
    L_conf = sum over positives of  -ln softmax(x)[label]
           + sum over negatives of  -ln softmax(x)[0]
    smooth_l1(d) = d^2 / 2 if |d| < 1 else |d| - 1/2

Not every unmatched box is a negative: each image contributes those whose background loss is highest,
``neg_pos_ratio`` times its positives (paper section 2.2 "Hard negative mining"; Caffe's MAX_NEGATIVE
in src/caffe/util/bbox_util.cpp).

Known differences between implementations: Caffe on several GPUs divides each GPU's loss by its own N;
some ports rank negatives over the whole batch, divide by each image's own N, or by 0 where N is 0.

References:
  Liu et al., "SSD: Single Shot MultiBox Detector", https://arxiv.org/abs/1512.02325, 2016.
  Girshick, "Fast R-CNN", https://arxiv.org/abs/1504.08083, 2015 (smooth L1).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, UInt32

from ssd_jax.config import Loss
from ssd_jax.ops.matching import Targets


def multibox_loss(
    offsets: Float[Array | np.ndarray, "b n 4"],
    logits: Float[Array | np.ndarray, "b n c"],
    targets: Targets,
    config: Loss = Loss(),
    *,
    valid: Bool[Array | np.ndarray, " b"] | None = None,
    normalizer: Int[Array, ""] | int | None = None,
) -> tuple[Float32[Array, ""], dict[str, Array]]:
    """Loss of a batch, and its parts: loc_loss (before location_weight), conf_loss, num_positives (N).

    Computed in float32 whatever the inputs' precision. A batch without any object has loss 0 and
    gradient 0; with ``min_negatives`` its negatives are summed, as N then counts as 1.

    Args:
      offsets: predicted, encoded as ``boxes.encode_boxes`` does.
      logits: class 0 is background.
      targets: of ``matching.match``, with the batch's axis in front.
      valid: False for images that count for nothing, such as those that could not be read.
      neg_pos_ratio: negatives per positive, image by image.
      min_negatives: negatives of an image at least, whether or not it has positives. Caffe has 0,
        by which images without objects teach nothing.
      location_weight: alpha of equation 1.
      normalizer: what to divide by, where this is a part of a batch whose parts' losses are to be
        added up: N of the whole batch, at least 1. By default that of these images.
    """
    offsets, logits = jnp.asarray(offsets, jnp.float32), jnp.asarray(logits, jnp.float32)
    counts = jnp.ones(len(logits), bool) if valid is None else jnp.asarray(valid)
    positive = (targets.labels > 0) & counts[:, None]

    log_total = jax.nn.logsumexp(logits, axis=-1)
    cross_entropy = log_total - jnp.take_along_axis(logits, targets.labels[..., None], axis=-1)[..., 0]
    background_loss = jax.lax.stop_gradient(log_total - logits[..., 0])
    mine = partial(hard_negative_mask, neg_pos_ratio=config.neg_pos_ratio, min_negatives=config.min_negatives)
    negative = jax.vmap(mine)(background_loss, positive) & counts[:, None]

    num_positives = positive.sum()
    normalizer = jnp.maximum(num_positives, 1) if normalizer is None else normalizer
    error = jnp.where(positive[..., None], offsets - targets.offsets, 0)
    loc_loss = smooth_l1(error).sum() / normalizer
    conf_loss = jnp.where(positive | negative, cross_entropy, 0).sum() / normalizer
    parts = {"loc_loss": loc_loss, "conf_loss": conf_loss, "num_positives": num_positives}
    return conf_loss + config.location_weight * loc_loss, parts


def smooth_l1(error: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Quadratic below 1, linear above: Huber's loss with delta 1."""
    size = jnp.abs(error)
    return jnp.where(size < 1, 0.5 * error**2, size - 0.5)


def hard_negative_mask(
    background_loss: Float[Array | np.ndarray, " n"],
    positive: Bool[Array | np.ndarray, " n"],
    neg_pos_ratio: float = 3.0,
    min_negatives: int = 0,
) -> Bool[Array, " n"]:
    """The negatives of one image that enter the loss: those of highest background loss.

    Exactly floor(neg_pos_ratio * positives) of them, or min_negatives if that is more, or all that
    are not positive if those are fewer. Equal losses go to the lower index. NaN ranks above infinity,
    so that a broken prediction shows in the loss.
    """
    eligible = ~jnp.asarray(positive)
    wanted = jnp.maximum(jnp.floor(neg_pos_ratio * (~eligible).sum()), min_negatives)
    count = jnp.minimum(wanted, eligible.sum()).astype(jnp.int32)
    keys = jnp.where(eligible, _ordered_bits(jnp.asarray(background_loss, jnp.float32)), 0)
    threshold = _kth_largest(keys, count)
    above = keys > threshold
    tied = keys == threshold  # never the 0 of the others, as count is at most the number eligible
    return above | (tied & (jnp.cumsum(tied) <= count - above.sum()))


def _ordered_bits(values: Float32[Array, " n"]) -> UInt32[Array, " n"]:
    """Integers in the order of the floats; above 0; equal where the floats are, -0 and NaNs included."""
    values = jnp.where(values == 0, 0, jnp.where(jnp.isnan(values), jnp.nan, values))
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    sign = jnp.uint32(1 << 31)
    return jnp.where(bits < sign, bits | sign, ~bits)


def _kth_largest(keys: UInt32[Array, " n"], k: Int[Array, ""]) -> UInt32[Array, ""]:
    """The largest t such that at least k keys are >= t; all ones for k = 0.

    Found bit by bit from the top, by counting: k is known only at run time, which rules out
    ``lax.top_k``, and a sort takes several times as long on a CPU.
    """

    def add_bit(i: Int[Array, ""], found: UInt32[Array, ""]) -> UInt32[Array, ""]:
        candidate = found | (jnp.uint32(1 << 31) >> i.astype(jnp.uint32))
        return jnp.where((keys >= candidate).sum() >= k, candidate, found)

    return jax.lax.fori_loop(0, 32, add_bit, jnp.uint32(0))
