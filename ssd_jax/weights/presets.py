"""Published networks, and the settings that each project uses with its weights.

A `Network` is an architecture that weights were published for. A `Preset` has the settings that a project uses with
its networks: preprocessing, default boxes and post-processing. The detections depend on these settings, so
`import-weights` stores them with the weights. Comments beside the numbers name the sources.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

from ssd_jax import config
from ssd_jax.config import Config, Data, DefaultBoxes, Detect, Extra, Model
from ssd_jax.data.class_names import COCO_CLASSES, VOC_CLASSES
from ssd_jax.data.formats.ilsvrc import SYNSETS
from ssd_jax.errors import UserError
from ssd_jax.models.parameters import BLOCKS, BOX_PREDICTOR, CLASS_PREDICTOR

Triple = tuple[float, float, float]
Scales = Literal["voc", "coco"]

BACKBONE_CONVS = tuple(f"vgg/{name}" for block in BLOCKS for name, _ in block)
"""Paths of conv1_1 to conv5_3."""


# ---- networks ----


class Network(NamedTuple):
    """A published architecture: the layers on top of VGG16, and the default boxes for each data set."""

    title: str
    """Name for messages and tables, such as SSD300."""
    extras: tuple[Extra, ...]
    """Pairs of convolutions after fc7."""
    default_boxes: Mapping[str, DefaultBoxes]
    """Default boxes for ``voc`` and, if COCO has other scales, for ``coco``. The two may differ only in the scales."""
    global_pool: bool = False
    """Whether the last feature map, pool6, is the mean over the cells of the feature map before it."""

    @property
    def feature_maps(self) -> tuple[str, ...]:
        """Caffe's names of the feature maps that have predictors."""
        extras = tuple(f"conv{number}_2" for number, _ in enumerate(self.extras, start=6))
        return ("conv4_3_norm", "fc7", *extras, *(("pool6",) if self.global_pool else ()))

    @property
    def boxes_per_cell(self) -> tuple[int, ...]:
        """Number of default boxes per cell of each feature map."""
        return self.default_boxes["voc"].boxes_per_cell

    @property
    def extra_convs(self) -> tuple[str, ...]:
        """Names of the convolutions after fc7: conv6_1, conv6_2, conv7_1 and so on."""
        return tuple(f"conv{number}_{i}" for number, _ in enumerate(self.extras, start=6) for i in (1, 2))

    def layer_paths(self) -> tuple[str, ...]:
        """Return the paths of all layers with parameters in the order of the forward pass, with the predictors last."""
        predictors = [name + kind for name in self.feature_maps for kind in (BOX_PREDICTOR, CLASS_PREDICTOR)]
        return (*BACKBONE_CONVS, "vgg/fc6", "vgg/fc7", "conv4_3_norm", *self.extra_convs, *predictors)

    def make_model(self, default_boxes: DefaultBoxes, class_names: tuple[str, ...] = (), width: float = 1.0) -> Model:
        """Return the model config of this network with the given default boxes, class names and width."""
        return Model(
            class_names=class_names,
            default_boxes=default_boxes,
            extras=self.extras,
            global_pool=self.global_pool,
            width=width,
        )


SSD300 = Network("SSD300", config.SSD300_EXTRAS, {"voc": config.SSD300_VOC_BOXES, "coco": config.SSD300_COCO_BOXES})
SSD512 = Network("SSD512", config.SSD512_EXTRAS, {"voc": config.SSD512_VOC_BOXES, "coco": config.SSD512_COCO_BOXES})
SSD500 = Network("SSD500", config.SSD500_EXTRAS, {"voc": config.SSD500_VOC_BOXES}, global_pool=True)
# Source: Caffe, examples/ssd/ssd_pascal.py before August 2016.
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


# ---- settings of the projects ----

CAFFE_MEAN = (123.0, 117.0, 104.0)
# RGB mean that the authors of VGG16 used; they give it as BGR 103.939, 116.779, 123.68.
VGG_MEAN = (123.68, 116.779, 103.939)
# torchvision and the torch mode of Keras have these numbers for pixels from 0 to 1: mean (0.485, 0.456, 0.406), std
# (0.229, 0.224, 0.225).
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# torchvision/models/detection/ssd.py has Caffe's mean rounded, for pixels from 0 to 1: (0.48235, 0.45882, 0.40784).
TORCHVISION_MEAN = (122.99925, 116.9991, 103.9992)
# More than the number of default boxes of any network, so that no candidate is dropped.
NO_TOP_K = 1_000_000
LOG_SCALE_BOUND = math.log(1000 / 16)  # limit of decoded log scales in torchvision and MMDetection
# lufficc's configs/vgg_ssd512_voc0712.yaml has the size 537.65 where all other projects have 537.6.
LUFFICC_SSD512_VOC_BOXES = dataclasses.replace(
    config.SSD512_VOC_BOXES, max_sizes=(*config.SSD512_VOC_BOXES.max_sizes[:-1], 537.65)
)
# Maximum image side in pixels. Larger images are first reduced with averaging, which no project does, so the limit is
# high.
MAX_IMAGE_SIZE = 4096


class Preset(NamedTuple):
    """Settings that another SSD implementation uses with its published weights."""

    mean: Triple = CAFFE_MEAN
    """Mean of red, green and blue, for values from 0 to 255. The order is RGB also for projects that use BGR,
    because importing reverses the channels of the weights."""
    std: Triple = (1.0, 1.0, 1.0)
    """Divisors of red, green and blue, for values from 0 to 255."""
    clip: Literal["none", "sizes", "center_size"] = "none"
    """Clipping of default boxes, as described for `DefaultBoxes.clip`."""
    truncate_sizes: bool = False
    """Whether the sizes of default boxes are truncated to whole pixels."""
    detect: Detect = Detect()
    """Settings of the post-processing."""
    detections_per_class: int | None = None
    """Maximum number of detections per class and image, if the project limits each class."""
    coco_scales: bool = False
    """Whether default boxes have COCO's scales for any number of classes."""
    own_boxes: Mapping[tuple[str, Scales], DefaultBoxes] = MappingProxyType({})
    """Default boxes that replace `Network.default_boxes` for these weights, by the network's title and the scales."""


# The settings are taken from the source code of each project. docs/weights.md has them as a table.
PRESETS: Mapping[str, Preset] = MappingProxyType({
    "torchvision": Preset(
        mean=TORCHVISION_MEAN,
        clip="sizes",
        coco_scales=True,
        detect=Detect(clip_before_nms=True, log_scale_bounds=(None, LOG_SCALE_BOUND)),
    ),
    "ssd.pytorch": Preset(clip="center_size", detect=Detect(top_k=200), detections_per_class=200),
    "lufficc": Preset(
        clip="center_size",
        detect=Detect(top_k=NO_TOP_K, max_detections=100),
        own_boxes=MappingProxyType({("SSD512", "voc"): LUFFICC_SSD512_VOC_BOXES}),
    ),
    "mmdetection": Preset(
        mean=IMAGENET_MEAN,
        truncate_sizes=True,
        detect=Detect(
            score_threshold=0.02,
            top_k=1000,
            top_k_per="map",
            clip_before_nms=True,
            log_scale_bounds=(-LOG_SCALE_BOUND, LOG_SCALE_BOUND),
            drop_empty=True,
        ),
    ),
    "caffe": Preset(truncate_sizes=True),
    "ssd_keras": Preset(detect=Detect(top_k=NO_TOP_K)),
    "vgg16_reducedfc": Preset(),
    "torchvision_vgg16": Preset(mean=IMAGENET_MEAN, std=IMAGENET_STD),
    "torchvision_features": Preset(mean=TORCHVISION_MEAN),
    "caffe_vgg16_reduced": Preset(),
    "caffe_vgg16": Preset(mean=VGG_MEAN),
    "keras_vgg16": Preset(mean=VGG_MEAN),
})  # fmt: skip


def choose_default_boxes(preset: Preset, network: Network, classes: int, scales: Scales | None) -> DefaultBoxes:
    """Return the default boxes that a project uses with a network.

    Args:
        preset: Settings of the project.
        network: Network of the project.
        classes: Number of classes without background. It determines the scales if ``scales`` is None, unless the
            project uses COCO's scales for any number of classes.
        scales: Data set whose scales are used, for weights that were trained on COCO first and then on VOC. None: the
            scales follow from ``classes``.

    Raises:
        UserError: If the network was not published with these scales.
    """
    if scales is None:
        is_coco = preset.coco_scales or classes in (len(COCO_CLASSES), len(COCO_NAMES_BY_ID))
        scales = "coco" if is_coco and "coco" in network.default_boxes else "voc"
    if scales not in network.default_boxes:
        known = ", ".join(network.default_boxes)
        raise UserError(f"--scales {scales}: {network.title} was published with the scales of {known} only")
    boxes = preset.own_boxes.get((network.title, scales), network.default_boxes[scales])
    clip = boxes.clip if preset.clip == "none" else preset.clip
    return dataclasses.replace(boxes, clip=clip, truncate_sizes=preset.truncate_sizes)


def make_config(name: str, model: Model, preset: Preset) -> Config:
    """Return a config with a model and the settings that its project uses."""
    model = dataclasses.replace(model, mean=preset.mean, std=preset.std)
    detect = preset.detect
    if preset.detections_per_class is not None:
        limit = preset.detections_per_class * max(1, len(model.class_names))
        detect = dataclasses.replace(detect, max_detections=limit)
    return Config(name=name, model=model, data=Data(root="", max_image_size=MAX_IMAGE_SIZE), detect=detect)


# ---- class names ----


def _make_coco_names_by_category_id() -> tuple[str, ...]:
    """Return 90 class names in the order of COCO's category ids. Unused ids have names such as "n/a 12".

    A network with 91 outputs has a channel for background and for each of the 90 ids.
    """
    unused = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
    names = iter(COCO_CLASSES)
    return tuple(f"n/a {number}" if number in unused else next(names) for number in range(1, 91))


COCO_NAMES_BY_ID = _make_coco_names_by_category_id()
_CLASS_LISTS = (VOC_CLASSES, COCO_CLASSES, COCO_NAMES_BY_ID, tuple(SYNSETS.values()))
PUBLISHED_CLASSES = {len(names): names for names in _CLASS_LISTS}
"""Class names of VOC, COCO and ILSVRC by the number of classes."""


def make_numbered_classes(count: int) -> tuple[str, ...]:
    """Return the names "1", "2", ... for ``count`` classes whose names do not matter."""
    return tuple(str(number) for number in range(1, count + 1))


def choose_class_names(file: object, count: int, requested: Sequence[str] | None) -> tuple[str, ...]:
    """Return the class names of a weight file, without background.

    Args:
        file: Name of the file, for messages.
        count: Number of classes in the file, without background.
        requested: Names from the user. Empty: the published names for this count are used. None: the classes are named
            by numbers.

    Raises:
        UserError: If ``requested`` has a wrong number of names or includes background, or if it is empty and no
            published data set has ``count`` classes.
    """
    if requested is None:
        return make_numbered_classes(count)
    if requested:
        invalid = [name for name in requested if not name.strip() or name.lower() in ("background", "__background__")]
        if invalid:
            raise UserError(
                f"--class-names: {invalid[0]!r} is not a class name. Leave out background, which is label 0"
            )
        if len(requested) != count:
            raise UserError(f"--class-names: {len(requested)} names, but {file} has {count} classes besides background")
        return tuple(requested)
    if count not in PUBLISHED_CLASSES:
        raise UserError(
            f"{file}: has {count} classes besides background, and no published data set has this number. Name them in "
            f"the order of training: ssd-jax import-weights {file} --out RUN --class-names A B ..."
        )
    return PUBLISHED_CLASSES[count]
