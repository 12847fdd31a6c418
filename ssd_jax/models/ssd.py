"""The SSD network: backbone, extra layers, and two predictors for each feature map.

See the paper, section 2.1 and figure 2. SSD300, SSD512 and SSD500 are one module with three configs.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Float32

from ssd_jax.config import Model
from ssd_jax.models.layers.weight_standardization import centered_conv, predictor_conv
from ssd_jax.models.parameters import BOX_PREDICTOR, CLASS_PREDICTOR, scale_channels
from ssd_jax.models.vgg import CAFFE_XAVIER, PIXEL_SPREAD, VGG16, L2Norm, conv_norm_relu


class Predictions(NamedTuple):
    """Raw outputs of the network, in the order of the default boxes: feature map, row, column, box."""

    offsets: Float32[Array, "b n 4"]
    """Offsets relative to the default boxes as `encode_boxes` defines them: x, y, log width, log height."""
    logits: Float32[Array, "b n c"]
    """Logits of c classes; class 0 is background."""


# Ratio of negatives to positives in the loss after hard negative mining, as in the paper.
NEG_POS_RATIO = 3.0


def apply_prediction_head(
    feature_map: Float[Array, "b h w d"],
    name: str,
    boxes_per_cell: int,
    outputs_per_box: int,
    dtype: jnp.dtype,
    prior: Array | None = None,
) -> Float32[Array, "b n {outputs_per_box}"]:
    """Return predictions for each default box of a feature map, computed by a 3x3 convolution.

    Call this function within a compact module, which then owns the parameters.

    Args:
        feature_map: Input of the convolution.
        name: Name of the convolution.
        boxes_per_cell: Number of default boxes in each cell.
        outputs_per_box: Number of outputs for each default box. Output i of box k of a cell is channel
            k * outputs_per_box + i of the convolution.
        dtype: Type that the convolution computes in.
        prior: Outputs (outputs_per_box,) before training. If given, the bias starts at these values, the kernel starts
            at zero, and the convolution subtracts the mean of the kernel. If None, the kernel starts as in the paper,
            and its mean is not subtracted.

    Returns:
        The predictions in the order row, column, box; n is h * w * boxes_per_cell.
    """
    options: dict[str, Any] = {"kernel_init": CAFFE_XAVIER, "conv_general_dilated": predictor_conv}
    if prior is not None:
        constant = nn.initializers.constant(jnp.tile(prior, boxes_per_cell))
        options = {"kernel_init": nn.initializers.zeros, "bias_init": constant, "conv_general_dilated": centered_conv}
    out = nn.Conv(boxes_per_cell * outputs_per_box, (3, 3), padding=1, dtype=dtype, name=name, **options)(feature_map)
    return out.reshape(out.shape[0], -1, outputs_per_box).astype(jnp.float32)


class SSD(nn.Module):
    """The SSD network.

    `SSD(config).apply({"params": params}, images)` returns `Predictions`.

    `images` are RGB, 0 to 255, of shape (b, size, size, 3), where size is `config.image_size`. The network subtracts
    `config.mean` and divides by `config.std`, so callers must not. Parameters are float32; convolutions compute in
    `config.dtype`.
    """

    config: Model
    """Architecture, classes and normalisation of the images."""
    is_standardized: bool = False
    """True if the parameters are those that `ssd_jax.models.parameters.standardize_kernels` returns."""

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"]) -> Predictions:
        with jax.default_matmul_precision(self.config.precision):
            return self.predictions(images)

    def predictions(self, images: Float[Array, "b h w 3"]) -> Predictions:
        """Return the predictions for a batch of images."""
        dtype = jnp.dtype(self.config.dtype)
        mean, std = (jnp.asarray(values, jnp.float32) for values in (self.config.mean, self.config.std))
        x = ((images - mean) / std).astype(dtype)
        prior_offsets, prior_logits = self.prior_predictions()
        offsets, logits = [], []
        boxes_per_cell = self.config.default_boxes.boxes_per_cell
        for (name, feature_map), boxes in zip(self.feature_maps(x, dtype), boxes_per_cell, strict=True):
            offsets.append(apply_prediction_head(feature_map, name + BOX_PREDICTOR, boxes, 4, dtype, prior_offsets))
            logits.append(
                apply_prediction_head(
                    feature_map, name + CLASS_PREDICTOR, boxes, self.config.num_classes, dtype, prior_logits
                )
            )
        return Predictions(jnp.concatenate(offsets, axis=1), jnp.concatenate(logits, axis=1))

    def prior_predictions(self) -> tuple[Array, Array] | tuple[None, None]:
        """Return the offsets and logits that the untrained network predicts, or (None, None) to start as in the paper.

        The offsets are zero. The logits give background a probability of 3/4 and each object class an equal share of
        the rest, as in the loss after hard negative mining. In the paper, the first predictions are random, and a
        network without pretrained features takes many steps to unlearn them. Lin et al., Focal Loss for Dense Object
        Detection, 2017 (arXiv 1708.02002), section 4.1, initialise their network similarly.
        """
        if self.config.norm == "none" or self.is_standardized:
            return None, None
        objects = self.config.num_classes - 1
        return jnp.zeros(4), jnp.zeros(1 + objects).at[0].set(jnp.log(NEG_POS_RATIO * max(1, objects)))

    def feature_maps(self, x: Float[Array, "b h w 3"], dtype: jnp.dtype) -> list[tuple[str, Array]]:
        """Return the feature maps, each with its name in Caffe: conv4_3_norm, fc7, conv6_2, conv7_2, ..."""
        config = self.config
        spread = PIXEL_SPREAD / max(config.std)
        backbone = VGG16(
            config.width, config.norm, spread, dtype, config.remat, is_standardized=self.is_standardized, name="vgg"
        )
        conv4_3, x = backbone(x)
        normalised = L2Norm(config.l2_norm_scale, name="conv4_3_norm")(conv4_3).astype(dtype)
        feature_maps = [("conv4_3_norm", normalised), ("fc7", x)]
        for number, extra in enumerate(config.extras, start=6):
            # The extra layers start with Caffe's xavier, as in the paper. With a norm, their scale has no effect.
            options: dict[str, Any] = {
                "norm": config.norm, "dtype": dtype, "kernel_init": CAFFE_XAVIER,
                "is_standardized": self.is_standardized,
            }  # fmt: skip
            bottleneck = scale_channels(extra.bottleneck, config.width)
            x = conv_norm_relu(x, f"conv{number}_1", bottleneck, kernel=1, padding=0, **options)
            x = conv_norm_relu(
                x,
                f"conv{number}_2",
                scale_channels(extra.channels, config.width),
                kernel=extra.kernel,
                stride=extra.stride,
                padding=extra.padding,
                **options,
            )
            feature_maps.append((f"conv{number}_2", x))
        if config.global_pool:
            feature_maps.append(("pool6", jnp.mean(x, axis=(1, 2), keepdims=True)))
        return feature_maps
