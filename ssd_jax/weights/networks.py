"""The networks that weights were published for, each with the default boxes of the data sets it was trained on.

`Model`s of these, of any width and number of classes, are what `import-weights` makes.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from ssd_jax import config
from ssd_jax.config import DefaultBoxes, Extra, Model
from ssd_jax.models.ssd import BOX_PREDICTOR, CLASS_PREDICTOR, SSD
from ssd_jax.models.vgg import BLOCKS

Shape = tuple[int, ...]


class Network(NamedTuple):
    """Layers on top of the trunk, and default boxes by data set."""

    title: str
    extras: tuple[Extra, ...]
    default_boxes: Mapping[str, DefaultBoxes]
    """``voc`` and, where its scales are others, ``coco``. They differ in scales alone."""
    global_pool: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """The maps that predictions are made from, by Caffe's names."""
        extras = tuple(f"conv{number}_2" for number, _ in enumerate(self.extras, start=6))
        return ("conv4_3_norm", "fc7", *extras, *(("pool6",) if self.global_pool else ()))

    @property
    def boxes_per_cell(self) -> tuple[int, ...]:
        return self.default_boxes["voc"].boxes_per_cell

    def layers(self) -> tuple[str, ...]:
        """Paths of everything that has parameters, in the order of the forward pass, predictors last."""
        extras = [f"conv{number}_{i}" for number, _ in enumerate(self.extras, start=6) for i in (1, 2)]
        predictors = [source + kind for source in self.sources for kind in (BOX_PREDICTOR, CLASS_PREDICTOR)]
        return (*TRUNK, "vgg/fc6", "vgg/fc7", "conv4_3_norm", *extras, *predictors)

    def model(self, default_boxes: DefaultBoxes, class_names: tuple[str, ...] = (), width: float = 1.0) -> Model:
        return Model(
            class_names=class_names,
            default_boxes=default_boxes,
            extras=self.extras,
            global_pool=self.global_pool,
            width=width,
        )


TRUNK = tuple(f"vgg/{name}" for block in BLOCKS for name, _ in block)
"""conv1_1 to conv5_3."""

SSD300 = Network("SSD300", config.SSD300_EXTRAS, {"voc": config.SSD300_VOC_BOXES, "coco": config.SSD300_COCO_BOXES})
SSD512 = Network("SSD512", config.SSD512_EXTRAS, {"voc": config.SSD512_VOC_BOXES, "coco": config.SSD512_COCO_BOXES})
SSD500 = Network("SSD500", config.SSD500_EXTRAS, {"voc": config.SSD500_VOC_BOXES}, global_pool=True)
# Caffe, examples/ssd/ssd_pascal.py before August 2016.
SSD300_POOL6 = Network(
    "the first SSD300, with pool6",
    (Extra(256, 512), Extra(128, 256), Extra(128, 256)),
    {
        "voc": DefaultBoxes(
            min_sizes=(30, 60, 114, 168, 222, 276),
            max_sizes=(None, 114, 168, 222, 276, 330),
            aspect_ratios=((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2, 3)),
            steps=None,
            clip="corners",
        )
    },
    global_pool=True,
)


def parameter_shapes(model: Model) -> dict[str, Shape]:
    """Of every parameter, by its path: ``vgg/conv1_1/kernel`` is (3, 3, 3, 64), and so on."""
    images = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), jnp.float32)
    tree = jax.eval_shape(SSD(model).init, jax.random.key(0), images)["params"]
    return {path: tuple(leaf.shape) for path, leaf in flatten_dict(tree, sep="/").items()}


def numbered(classes: int) -> tuple[str, ...]:
    """Names for classes whose names do not matter."""
    return tuple(str(number) for number in range(1, classes + 1))
