"""What goes with the weights of each project: preprocessing, default boxes, post-processing, classes.

Weights are detections only together with these. Sources are named beside the numbers.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

from ssd_jax.config import SSD512_VOC_BOXES, Config, Data, DefaultBoxes, Detect, Model
from ssd_jax.data.class_names import COCO_CLASSES, VOC_CLASSES
from ssd_jax.data.formats.ilsvrc import SYNSETS
from ssd_jax.errors import UserError
from ssd_jax.weights.networks import Network, numbered

Triple = tuple[float, float, float]
Scales = Literal["voc", "coco"]

CAFFE_MEAN = (123.0, 117.0, 104.0)
# Of the authors of VGG16 (BGR 103.939, 116.779, 123.68).
VGG_MEAN = (123.68, 116.779, 103.939)
# Of pixels from 0 to 1, as torchvision and Keras' torch mode write them: (0.485, 0.456, 0.406), (0.229, 0.224, 0.225).
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# torchvision/models/detection/ssd.py writes them rounded, (0.48235, 0.45882, 0.40784), of pixels from 0 to 1.
TORCHVISION_MEAN = (122.99925, 116.9991, 103.9992)
EVERY_BOX = 1_000_000
LOG_SCALE_BOUND = math.log(1000 / 16)
# configs/vgg_ssd512_voc0712.yaml has 537.65 where all others have 537.6.
LUFFICC_SSD512_VOC_BOXES = dataclasses.replace(SSD512_VOC_BOXES, max_sizes=(*SSD512_VOC_BOXES.max_sizes[:-1], 537.65))
# No project averages pixels when it reduces a photograph.
LARGEST_CANVAS = 4096


class Origin(NamedTuple):
    """How a project uses its weights."""

    mean: Triple = CAFFE_MEAN
    """Subtracted from RGB 0-255, whatever the project's own order: importing turns BGR into RGB."""
    std: Triple = (1.0, 1.0, 1.0)
    clip: Literal["none", "sizes", "center_size"] = "none"
    """Of default boxes."""
    truncate_sizes: bool = False
    detect: Detect = Detect()
    detections_per_class: int | None = None
    """Of an image, where the project keeps as many of each class."""
    coco_scales: bool = False
    """Default boxes are of COCO's scales whatever the classes."""
    own_boxes: Mapping[tuple[str, Scales], DefaultBoxes] = MappingProxyType({})
    """Where they are not those of the network, by its title and the scales."""


# Read in the sources of these projects; docs/weights.md has the same as a table.
ORIGINS: Mapping[str, Origin] = MappingProxyType({
    "torchvision": Origin(
        mean=TORCHVISION_MEAN,
        clip="sizes",
        coco_scales=True,
        detect=Detect(clip_before_nms=True, log_scale_bounds=(None, LOG_SCALE_BOUND)),
    ),
    "ssd.pytorch": Origin(clip="center_size", detect=Detect(top_k=200), detections_per_class=200),
    "lufficc": Origin(
        clip="center_size",
        detect=Detect(top_k=EVERY_BOX, max_detections=100),
        own_boxes=MappingProxyType({("SSD512", "voc"): LUFFICC_SSD512_VOC_BOXES}),
    ),
    "mmdetection": Origin(
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
    "caffe": Origin(truncate_sizes=True),
    "ssd_keras": Origin(detect=Detect(top_k=EVERY_BOX)),
    "vgg16_reducedfc": Origin(),
    "torchvision_vgg16": Origin(mean=IMAGENET_MEAN, std=IMAGENET_STD),
    "torchvision_features": Origin(mean=TORCHVISION_MEAN),
    "caffe_vgg16_reduced": Origin(),
    "caffe_vgg16": Origin(mean=VGG_MEAN),
    "keras_vgg16": Origin(mean=VGG_MEAN),
})  # fmt: skip


def _coco_names_by_category_id() -> tuple[str, ...]:
    """COCO's category ids run to 90 and leave out ten. A network of 91 outputs has a channel for each of them."""
    gaps = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
    names = iter(COCO_CLASSES)
    return tuple(f"n/a {number}" if number in gaps else next(names) for number in range(1, 91))


COCO_NAMES_BY_ID = _coco_names_by_category_id()
_CLASS_LISTS = (VOC_CLASSES, COCO_CLASSES, COCO_NAMES_BY_ID, tuple(SYNSETS.values()))
PUBLISHED_CLASSES = {len(names): names for names in _CLASS_LISTS}
"""By their number."""


def class_names(file: object, count: int, given: Sequence[str] | None) -> tuple[str, ...]:
    """Those given, or the published ones of that number; None: numbers will do. Raises UserError where neither fits."""
    if given is None:
        return numbered(count)
    if given:
        odd = [name for name in given if not name.strip() or name.lower() in ("background", "__background__")]
        if odd:
            raise UserError(f"--class-names: {odd[0]!r} is no class. Background, label 0, is not named")
        if len(given) != count:
            raise UserError(f"--class-names: {len(given)} names, but {file} has {count} classes besides background")
        return tuple(given)
    if count not in PUBLISHED_CLASSES:
        raise UserError(
            f"{file}: {count} classes besides background, which is no published set. Name them, in the order that they "
            f"were trained in: ssd-jax import-weights {file} --out RUN --class-names A B ..."
        )
    return PUBLISHED_CLASSES[count]


def default_boxes(origin: Origin, network: Network, classes: int, scales: Scales | None) -> DefaultBoxes:
    """Of a network of that many classes; scales: where the weights are of others than their classes tell, as
    after training on COCO and then on VOC."""
    if scales is None:
        is_coco = origin.coco_scales or classes in (len(COCO_CLASSES), len(COCO_NAMES_BY_ID))
        scales = "coco" if is_coco and "coco" in network.default_boxes else "voc"
    if scales not in network.default_boxes:
        known = ", ".join(network.default_boxes)
        raise UserError(f"--scales {scales}: {network.title} was published with those of {known} only")
    boxes = origin.own_boxes.get((network.title, scales), network.default_boxes[scales])
    clip = boxes.clip if origin.clip == "none" else origin.clip
    return dataclasses.replace(boxes, clip=clip, truncate_sizes=origin.truncate_sizes)


def make_config(name: str, model: Model, origin: Origin) -> Config:
    """The config with which the program does with the weights what their project does."""
    model = dataclasses.replace(model, mean=origin.mean, std=origin.std)
    detect = origin.detect
    if origin.detections_per_class is not None:
        most = origin.detections_per_class * max(1, len(model.class_names))
        detect = dataclasses.replace(detect, max_detections=most)
    return Config(name=name, model=model, data=Data(root="", max_image_size=LARGEST_CANVAS), detect=detect)
