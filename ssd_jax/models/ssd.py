"""The network: trunk, extra layers, and two predictors for each map (SSD paper, section 2.1, figure 2).

SSD300, SSD512 and SSD500 are one module with three configs.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Float32

from ssd_jax.config import Model
from ssd_jax.models.layers.weight_standardization import centred_conv
from ssd_jax.models.vgg import CAFFE_XAVIER, PIXEL_SPREAD, VGG16, L2Norm, conv_relu, scaled

Params = dict[str, Any]
"""Parameters of the network, as ``SSD.init`` nests them."""


class Predictions(NamedTuple):
    """Raw outputs, in the order of the default boxes: map, row, column, box."""

    offsets: Float32[Array, "b n 4"]
    """To the default boxes, divided by the variances: x, y, log width, log height."""
    logits: Float32[Array, "b n c"]
    """Class 0 is background."""


# Background over objects among the boxes that the loss looks at: hard negative mining's 3:1.
PRIOR_RATIO = 3.0

# What the names of a map's two predictors end in, as Caffe's.
BOX_PREDICTOR, CLASS_PREDICTOR = "_mbox_loc", "_mbox_conf"


def predict(
    source: Float[Array, "b h w d"], name: str, boxes: int, numbers: int, dtype: jnp.dtype, first: Array | None = None
) -> Float32[Array, "b n {numbers}"]:
    """3x3 convolution to ``numbers`` for each of ``boxes`` per cell; channel = box * numbers + number.

    Called within a compact module, which owns the parameters. With ``first``, these are the numbers
    that it predicts before any training; without, it starts as in the paper.
    """
    start: dict[str, Any] = {"kernel_init": CAFFE_XAVIER}
    if first is not None:
        constant = nn.initializers.constant(jnp.tile(first, boxes))
        start = {"kernel_init": nn.initializers.zeros, "bias_init": constant, "conv_general_dilated": centred_conv}
    out = nn.Conv(boxes * numbers, (3, 3), padding=1, dtype=dtype, name=name, **start)(source)
    return out.reshape(out.shape[0], -1, numbers).astype(jnp.float32)


class SSD(nn.Module):
    """``SSD(config).apply({"params": params}, images)``.

    ``images`` are RGB, 0-255, of ``config.image_size``; mean and std are applied here, so that no
    caller can forget them or do it twice. Parameters are float32; convolutions run in ``config.dtype``.
    """

    config: Model

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"]) -> Predictions:
        with jax.default_matmul_precision(self.config.precision):
            return self.predictions(images)

    def predictions(self, images: Float[Array, "b h w 3"]) -> Predictions:
        dtype = jnp.dtype(self.config.dtype)
        mean, std = (jnp.asarray(numbers, jnp.float32) for numbers in (self.config.mean, self.config.std))
        x = ((images - mean) / std).astype(dtype)
        sources = self.feature_maps(x, dtype)
        per_cell = self.config.default_boxes.boxes_per_cell
        first_offsets, first_logits = self.first_predictions()
        offsets, logits = [], []
        for (name, source), boxes in zip(sources, per_cell, strict=True):
            offsets.append(predict(source, name + BOX_PREDICTOR, boxes, 4, dtype, first_offsets))
            logits.append(predict(source, name + CLASS_PREDICTOR, boxes, self.config.num_classes, dtype, first_logits))
        return Predictions(jnp.concatenate(offsets, axis=1), jnp.concatenate(logits, axis=1))

    def first_predictions(self) -> tuple[Array, Array] | tuple[None, None]:
        """From scratch: no offset, and the classes' shares of the loss. Random ones are the paper's, and cost
        a network without pretrained features many steps to be rid of.

        Lin et al., Focal Loss for Dense Object Detection, 2017 (arXiv 1708.02002), section 4.1, starts likewise.
        """
        if self.config.norm == "none":
            return None, None
        objects = self.config.num_classes - 1
        return jnp.zeros(4), jnp.zeros(1 + objects).at[0].set(jnp.log(PRIOR_RATIO * max(1, objects)))

    def feature_maps(self, x: Float[Array, "b h w 3"], dtype: jnp.dtype) -> list[tuple[str, Array]]:
        """The sources by Caffe's names: conv4_3_norm, fc7, conv6_2, conv7_2, ..."""
        config = self.config
        conv4_3, x = VGG16(config.width, config.norm, PIXEL_SPREAD / max(config.std), dtype, config.remat, name="vgg")(
            x
        )
        normed = L2Norm(config.l2_norm_scale, name="conv4_3_norm")(conv4_3).astype(dtype)
        sources = [("conv4_3_norm", normed), ("fc7", x)]
        for number, extra in enumerate(config.extras, start=6):
            # The paper draws the new layers with Caffe's xavier; a norm makes their scale immaterial.
            options: dict[str, Any] = {"norm": config.norm, "dtype": dtype, "kernel_init": CAFFE_XAVIER}
            bottleneck = scaled(extra.bottleneck, config.width)
            x = conv_relu(x, f"conv{number}_1", bottleneck, kernel=1, padding=0, **options)
            x = conv_relu(
                x,
                f"conv{number}_2",
                scaled(extra.channels, config.width),
                kernel=extra.kernel,
                stride=extra.stride,
                padding=extra.padding,
                **options,
            )
            sources.append((f"conv{number}_2", x))
        if config.global_pool:
            sources.append(("pool6", jnp.mean(x, axis=(1, 2), keepdims=True)))
        return sources
