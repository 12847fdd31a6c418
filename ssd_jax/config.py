"""Configuration of a run: frozen dataclasses, each field with its default and the source of that default.

A file in ``configs/`` defines ``get_config()`` and states only what differs from these defaults. The command
line overrides single fields (``--train.steps 100``); fields that hold nested tuples can only be set in a file.
In Python::

    config = ssd_jax.load_config("own_data", {"train.steps": 100})

All classes are hashable, so that a part of the config can be a static argument of a jitted function.

The constructors check only rules that involve several fields. `ssd_jax.runs.config_file.validate` also checks
each value against the type and the bounds of its field. It runs on every config that comes from a file, from
the command line or from a call of `ssd_jax.train`.

"Caffe" below is the authors' code, github.com/weiliu89/caffe, branch ssd; "paper" is arXiv 1512.02325v5.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

from ssd_jax.config_train import Train

from ssd_jax.config_fields import (  # isort: skip
    AspectRatio, Count, Decay, Divisor, Factor, Fraction, KernelSize, NetworkPixels, NonNegativeFloat, NonNegativeInt,
    PixelSize, PositiveFloat, PositiveInt, Probability, Seed, require, section,
)  # fmt: skip


@dataclass(frozen=True)
class DefaultBoxes:
    """Default boxes ("priors" in Caffe, "anchors" elsewhere), with one entry per feature map in each tuple.

    Each cell of feature map k has, in Caffe's order: a square of side ``min_sizes[k]``; if ``max_sizes[k]`` is
    set, a square of side sqrt(min * max); then, for each aspect ratio r, a box of min * sqrt(r) by
    min / sqrt(r), followed by the same box with width and height exchanged.
    """

    image_size: NetworkPixels = 300
    """Side of the network's square input, in pixels."""
    feature_maps: Annotated[tuple[NetworkPixels, ...], Meta(min_length=1)] = (38, 19, 10, 5, 3, 1)
    """Number of cells along a side of each feature map."""
    min_sizes: tuple[PixelSize, ...] = (30, 60, 111, 162, 213, 264)
    """Side of the first square default box of each feature map, in pixels of the network's input."""
    max_sizes: tuple[PixelSize | None, ...] = (60, 111, 162, 213, 264, 315)
    """Upper sizes of the default boxes of each feature map, in pixels. The side of the second square default box is
    sqrt(min_size * max_size). None: there is no second square."""
    aspect_ratios: tuple[tuple[AspectRatio, ...], ...] = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
    """Aspect ratios of the default boxes of each feature map, without 1."""
    steps: tuple[PixelSize, ...] | None = (8, 16, 32, 64, 100, 300)
    """Distance between cell centres, in pixels. None: image size / feature map size, as in the first versions of the
    paper. With Caffe's fixed steps, the last centres of the 38 x 38 map lie on the image border, and those of the
    10 x 10 map lie beyond it; published weights expect this."""
    clip: Literal["none", "sizes", "center_size", "corners"] = "none"
    """Limits of the default boxes. none: no limits (Caffe). sizes: width and height at most 1 (torchvision).
    center_size: centre, width and height in [0, 1] (ssd.pytorch and its forks). corners: xyxy in [0, 1] (Caffe
    before August 2016)."""
    truncate_sizes: bool = False
    """Round min_sizes and max_sizes down to whole pixels, as Caffe's C++ does since June 2016 (SSD512)."""
    variances: tuple[Divisor, Divisor, Divisor, Divisor] = (0.1, 0.1, 0.2, 0.2)
    """Divisors of the four encoded offsets: x, y, log width and log height."""

    def __post_init__(self) -> None:
        maps = len(self.feature_maps)
        for name in ("min_sizes", "max_sizes", "aspect_ratios", "steps"):
            value = getattr(self, name)
            require(
                value is None or len(value) == maps,
                f"default_boxes.{name} has {len(value or ())} entries, expected one for each of the {maps} "
                f"feature_maps {self.feature_maps}",
            )
        for low, high in zip(self.min_sizes, self.max_sizes, strict=True):
            require(
                high is None or high > low, f"default_boxes.max_sizes: {high} is not larger than {low} in min_sizes"
            )
        ratios = [ratio for row in self.aspect_ratios for ratio in row]
        require(1 not in ratios, "default_boxes.aspect_ratios must not contain 1: the squares are always included")
        require(self.count <= 20_000_000, f"default_boxes: {self.count} boxes are too many, at most 20,000,000")

    @property
    def boxes_per_cell(self) -> tuple[int, ...]:
        """Number of default boxes per cell of each feature map."""
        return tuple(
            1 + (high is not None) + 2 * len(ratios)
            for high, ratios in zip(self.max_sizes, self.aspect_ratios, strict=True)
        )

    @property
    def boxes_per_map(self) -> tuple[int, ...]:
        """Number of default boxes of each feature map."""
        return tuple(f * f * k for f, k in zip(self.feature_maps, self.boxes_per_cell, strict=True))

    @property
    def count(self) -> int:
        """Number of default boxes of an image: 8732 for SSD300."""
        return sum(self.boxes_per_map)


SSD300_VOC_BOXES = DefaultBoxes()
SSD300_COCO_BOXES = DefaultBoxes(min_sizes=(21, 45, 99, 153, 207, 261), max_sizes=(45, 99, 153, 207, 261, 315))
SSD512_VOC_BOXES = DefaultBoxes(
    image_size=512,
    feature_maps=(64, 32, 16, 8, 4, 2, 1),
    min_sizes=(35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8),
    max_sizes=(76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.6),
    aspect_ratios=((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)),
    steps=(8, 16, 32, 64, 128, 256, 512),
)
SSD512_COCO_BOXES = dataclasses.replace(
    SSD512_VOC_BOXES,
    min_sizes=(20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8),
    max_sizes=(51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72),
)
# Caffe, examples/ssd/ssd_pascal_500.py of August 2016.
SSD500_VOC_BOXES = DefaultBoxes(
    image_size=500,
    feature_maps=(63, 32, 16, 8, 4, 2, 1),
    min_sizes=(35, 75, 155, 235, 315, 395, 475),
    max_sizes=(None, 155, 235, 315, 395, 475, 555),
    aspect_ratios=((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2, 3), (2, 3)),
    steps=None,
    clip="corners",
)
SMALL_BOXES = DefaultBoxes(  # of configs/own_data_small.py
    image_size=160, feature_maps=(20, 10, 10, 5, 3), min_sizes=(15, 36, 54, 82, 116), max_sizes=(40, 54, 82, 116, 150),
    aspect_ratios=((2,), (2, 3), (2, 3), (2, 3), (2,)), steps=None,
)  # fmt: skip


@dataclass(frozen=True)
class Extra:
    """Two convolutions on top of the backbone: 1x1 to ``bottleneck`` channels, then k x k to ``channels``.

    The output of the second one is a feature map for predictions.
    """

    bottleneck: Count
    channels: Count
    kernel: KernelSize = 3
    stride: KernelSize = 2
    padding: Annotated[int, Meta(ge=0, le=100)] = 1

    def __post_init__(self) -> None:
        require(self.stride > 0, f"model.extras: a stride is {self.stride}, expected at least 1")


# Paper section 3 and figure 2. For 512, Caffe's released models, which have no script.
SSD300_EXTRAS = (
    Extra(256, 512),
    Extra(128, 256),
    Extra(128, 256, stride=1, padding=0),
    Extra(128, 256, stride=1, padding=0),
)
SSD512_EXTRAS = (
    Extra(256, 512),
    Extra(128, 256),
    Extra(128, 256),
    Extra(128, 256),
    Extra(128, 256, kernel=4, stride=1),
)
SSD500_EXTRAS = (Extra(256, 512), Extra(128, 256), Extra(128, 256), Extra(128, 256))


@dataclass(frozen=True)
class Model:
    """Settings of the network. The defaults are those of SSD300 in the paper."""

    class_names: tuple[str, ...] = ()
    """Class names without background. If empty, they are read from the data when a run starts, and stored with it."""
    default_boxes: DefaultBoxes = field(default_factory=DefaultBoxes)
    extras: tuple[Extra, ...] = SSD300_EXTRAS
    """The layers conv6_1 and conv6_2, conv7_1 and conv7_2, ... on top of fc7."""
    global_pool: bool = False
    """Add the spatial average of the last extra layer as a feature map of one cell (Caffe's pool6: SSD500)."""
    width: Annotated[float, Meta(gt=0, le=100)] = 1.0
    """Multiplier for the channels of all layers except the predictors. With 0.25, training is possible on a CPU."""
    norm: Literal["none", "group"] = "none"
    """Normalization. none: no normalization, as in the paper, for pretrained weights. group: for training from scratch,
    with weight standardization and GroupNorm (8 channels per group) in backbone and extras. With group, the initial
    predictors output zero offsets, and class probabilities equal to the class frequencies in the loss."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Data type of the convolutions. Parameters, L2Norm and the loss stay float32."""
    precision: Literal["default", "high", "highest"] = "default"
    """Precision of float32 convolutions. By default, TPUs round the operands to bfloat16 and recent NVIDIA GPUs
    to TF32; highest computes in float32. Boxes and resampling always use the highest precision."""
    remat: bool = False
    """Recompute the activations of the backbone in the backward pass: less memory, more time."""
    mean: tuple[float, float, float] = (123.0, 117.0, 104.0)
    """Mean RGB value, 0-255, that is subtracted from the image (Caffe). It is also the fill colour of zoom-out."""
    std: tuple[Divisor, Divisor, Divisor] = (1.0, 1.0, 1.0)
    """Divisors of the RGB values after the mean is subtracted; 1 in Caffe. For training from scratch use about 64,
    the standard deviation of pixel values: the weights of conv1_1 then have the scale of those of other layers,
    which matters for Adam."""
    l2_norm_scale: float = 20.0
    """Initial scale of the L2Norm on conv4_3 (paper section 3.1)."""

    def __post_init__(self) -> None:
        require(
            len(set(self.class_names)) == len(self.class_names),
            f"model.class_names contains a name twice: {self.class_names}",
        )
        maps = self.feature_map_sizes
        require(
            maps == self.default_boxes.feature_maps,
            f"default_boxes.feature_maps is {self.default_boxes.feature_maps}, but the network computes feature maps "
            f"of {maps} from an image of {self.image_size} px. Set feature_maps to these sizes, or change model.extras",
        )

    @property
    def image_size(self) -> int:
        """Side of the network's square input, in pixels."""
        return self.default_boxes.image_size

    @property
    def num_classes(self) -> int:
        """Number of classes, including background."""
        return len(self.class_names) + 1

    @property
    def feature_map_sizes(self) -> tuple[int, ...]:
        """Side of each feature map that predictions are made from, in cells."""
        size = self.image_size
        sizes = []
        for pool in range(4):  # pool1 to pool4, in ceil mode
            if pool == 3:
                sizes.append(size)  # conv4_3
            size = math.ceil(size / 2)
        sizes.append(size)  # fc7; pool5 and the dilated fc6 keep the size
        for extra in self.extras:
            size = (size + 2 * extra.padding - extra.kernel) // extra.stride + 1
            sizes.append(size)
        return (*sizes, 1) if self.global_pool else tuple(sizes)


@dataclass(frozen=True)
class Shapes:
    """Settings of the generated data set ``shapes``. The seed and the index of an image determine the image."""

    train_images: PositiveInt = 4000
    val_images: PositiveInt = 200
    test_images: PositiveInt = 500
    image_size: Annotated[int, Meta(ge=16, le=8192)] = 128
    """Side of the images, in pixels."""
    seed: Seed = 0


@section
class Data:
    """Settings of the data set and of the batches."""

    root: str = "shapes"
    """Folder of the data set (VOC, COCO, YOLO, CVAT, labelme, CSV, ...), a prepared set of
    tensorflow-datasets (``tfds:voc/2007``), or ``shapes`` for generated images."""
    format: Literal[
        "auto", "voc", "coco", "yolo", "ilsvrc", "labelme", "cvat", "label_studio", "via", "createml", "supervisely",
        "kitti", "dota", "wider_face", "open_images", "csv", "tfds", "shapes",
    ] = "auto"  # fmt: skip
    """Format of the data set. auto: inferred from the folder, or from root."""
    tfds_dir: str = ""
    """Folder of data sets that tensorflow-datasets prepared. Empty: $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    train_split: str = "train"
    """Split to train on."""
    val_split: str = "val"
    """Split to evaluate on during training; the best checkpoint is chosen on it."""
    test_split: str = "test"
    """Split for ``evaluate``. If the data set has no such split, ``evaluate`` uses val_split and prints a note."""
    val_fraction: Annotated[float, Meta(gt=0, lt=1)] = 0.1
    """Fraction of the images that form the val split if the folder has no splits. A hash of the id selects an image."""
    max_image_size: Annotated[int, Meta(gt=0, le=65_535)] = 640
    """Longest side of an image in a batch, in pixels; larger images are reduced on the host."""
    max_objects: Count = 64
    """Maximum number of boxes per image in a batch. Further boxes are not trained on; their number is reported."""
    train_on_difficult: bool = True
    """Train on objects marked as difficult in VOC, as Caffe does; ssd.pytorch leaves them out."""
    strict: bool = False
    """Stop at an unreadable image instead of skipping it and listing it at the end. Short form: ``--strict``."""
    shapes: Shapes = field(default_factory=Shapes)


@dataclass(frozen=True)
class Augment:
    """Settings of the augmentation in the final version of the paper (sections 2.2 and 3.6), with Caffe's numbers
    (examples/ssd/ssd_pascal.py, src/caffe/util/sampler.cpp and im_transforms.cpp)."""

    distort_probability: Probability = 0.5
    """Probability that each of brightness, contrast, saturation and hue is changed, drawn independently."""
    contrast_first_probability: Probability = 0.5
    """Probability that contrast is changed before saturation and hue instead of after them."""
    brightness: Factor = 32.0
    """Largest value that is added to or subtracted from the RGB values, on a scale of 0-255."""
    contrast: tuple[Factor, Factor] = (0.5, 1.5)
    """Range of the factor by which RGB values are multiplied to change the contrast."""
    saturation: tuple[Factor, Factor] = (0.5, 1.5)
    """Range of the factor by which the saturation S in HSV is multiplied."""
    hue: Factor = 18.0
    """Largest value that is added to or subtracted from the hue, on OpenCV's scale of 0-179 (two degrees per unit)."""
    channel_shuffle_probability: Probability = 0.0
    """Probability of a random order of the colour channels."""
    expand_probability: Probability = 0.5
    """Probability that an image is zoomed out."""
    expand_max_ratio: Annotated[float, Meta(ge=1, le=1000)] = 4.0
    """Largest side of the zoom-out canvas relative to the image; the ratio is uniform from 1 to this value."""
    crop: bool = True
    """Crop images with the batch sampler of Caffe."""
    crop_min_overlaps: tuple[Probability, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    """Minimum IoU of each sampler. The whole image and a crop without a minimum are always among the choices."""
    crop_trials: Count = 50
    """Number of random crops that each sampler tries."""
    crop_scale: tuple[Annotated[float, Meta(ge=0.001)], Annotated[float, Meta(le=1)]] = (0.3, 1.0)
    """Range of the scale of a crop: the square root of its area, relative to that of the image. The minimum is 0.1 in
    the text of the paper, and 0.3 in Caffe."""
    crop_aspect_ratio: tuple[AspectRatio, AspectRatio] = (0.5, 2.0)
    """Range of the width / height of a crop, in normalised coordinates."""
    flip_probability: Probability = 0.5
    """Probability of a horizontal flip."""

    def __post_init__(self) -> None:
        for name in ("contrast", "saturation", "crop_scale", "crop_aspect_ratio"):
            low, high = getattr(self, name)
            require(low <= high, f"augment.{name} is {low} to {high}, expected the smaller number first")


@dataclass(frozen=True)
class Match:
    """Settings for matching default boxes to objects (paper section 2.2, "Matching strategy")."""

    iou_threshold: Annotated[float, Meta(gt=0, le=1)] = 0.5
    """A default box is matched to the object that it overlaps most, if their IoU is at least this value. Before
    this step, each object is matched to one default box, even if their IoU is lower."""


@dataclass(frozen=True)
class Loss:
    """Settings of the loss (paper section 2.2, "Training objective" and "Hard negative mining")."""

    neg_pos_ratio: Factor = 3.0
    """Number of negatives per positive in the loss."""
    min_negatives: NonNegativeInt = 0
    """Minimum number of negatives per image, so that images without objects contribute to the loss. Caffe: 0."""
    location_weight: NonNegativeFloat = 1.0
    """Weight of the localization loss (alpha in the paper)."""


@section
class Detect:
    """Settings of decoding and non-maximum suppression (paper section 3.7 and Caffe's DetectionOutput).

    The last four fields exist for networks that are imported from torchvision (models/detection/ssd.py) or from
    mmdetection since 2.17 (mmdet/models/dense_heads/base_dense_head.py).
    """

    score_threshold: Probability = 0.01
    """Boxes with a score of at most this value are not detections."""
    top_k: PositiveInt = 400
    """Number of candidates with the highest scores that enter NMS, per class or per feature map (see top_k_per)."""
    nms_iou_threshold: Probability = 0.45
    """A candidate is suppressed if its IoU with a better candidate of the same class exceeds this value."""
    max_detections: Count = 200
    """Maximum number of detections per image."""
    top_k_per: Literal["class", "map"] = "class"
    """Group of candidates that top_k applies to. class: the candidates of a class (Caffe). map: the candidates of a
    feature map, over all classes (mmdetection: filter_scores_and_topk, nms_pre)."""
    log_scale_bounds: tuple[Annotated[float, Meta(lt=0)] | None, Annotated[float, Meta(gt=0)] | None] = (None, None)
    """Bounds of log(width / default width) and log(height / default height) of a decoded box. None: no bound, as in
    Caffe. torchvision has only the upper bound, ln(1000 / 16) (BoxCoder); mmdetection has both bounds
    (DeltaXYWHBBoxCoder)."""
    clip_before_nms: bool = False
    """Clip boxes to the image before NMS computes overlaps (torchvision, mmdetection)."""
    drop_empty: bool = False
    """Remove candidates without width or height before NMS (mmdetection's min_bbox_size of 0)."""


@section
class Optimizer:
    """Settings of the optimizer and schedule. sgd is Caffe's solver; muon and adamw are for training from scratch."""

    name: Literal["sgd", "adamw", "muon"] = "sgd"
    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate. It is not scaled with the batch size; the default is Caffe's for a batch of 32."""
    schedule: Literal["multistep", "cosine"] = "multistep"
    milestones: tuple[PositiveInt | Fraction, ...] = (80_000, 100_000)
    """Steps at which multistep multiplies the learning rate by gamma. A number below 1 is a fraction of the run."""
    gamma: PositiveFloat = 0.1
    warmup_steps: NonNegativeInt = 0
    """Number of warm-up steps, in which the learning rate rises linearly from near 0 to learning_rate."""
    momentum: Decay = 0.9
    weight_decay: NonNegativeFloat = 5e-4
    """Weight decay. sgd: added to the gradients of all parameters except biases (Caffe includes the scale of L2Norm).
    adamw: decoupled, for kernels only. muon: decoupled, for the parameters that Muon updates."""
    bias_lr_multiplier: PositiveFloat = 2.0
    """Learning rate of biases relative to that of weights. Only sgd uses it."""
    adam_lr_multiplier: PositiveFloat = 0.1
    """Learning rate of the parameters that Adam updates (predictors, biases, norms), relative to that of the parameters
    that Muon updates. Only muon uses it."""
    clip_norm: PositiveFloat | None = None
    """Scale gradients down to this global norm if they exceed it."""
    freeze_blocks: Annotated[int, Meta(ge=0, le=5)] = 0
    """Number of blocks of VGG16, counted from the input, that are not trained. 1: conv1_1 and conv1_2 (torchvision).
    2: conv1_1 to conv2_2 (Caffe's first script). 5: all except fc6 and fc7."""


@dataclass(frozen=True)
class Devices:
    """Settings for distributing a run over all visible devices.

    These fields change results only by rounding errors.
    """

    fsdp: PositiveInt = 1
    """Number of neighbouring devices over which large parameters and their optimizer state are split."""
    virtual_shards: NonNegativeInt = 0
    """Number of parts of the batch over which gradients are summed in a fixed order, so that results are bitwise
    identical on 1, 2, 4, ... devices of the same kind. It must be a power of two, and at least the number of devices.
    0: sum in the fastest order."""
    deterministic: bool = False
    """Use deterministic GPU kernels, which may be slower. Without them, a resumed run is not bitwise identical to
    an uninterrupted run. CPUs and TPUs are always deterministic."""

    def __post_init__(self) -> None:
        parts = self.virtual_shards
        require(parts <= 0 or parts & (parts - 1) == 0, f"devices.virtual_shards is {parts}: expected a power of two")
        require(
            parts == 0 or self.fsdp == 1,
            f"devices.virtual_shards needs all parameters on each device: devices.fsdp is {self.fsdp}, expected 1",
        )


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    name: Annotated[str, Meta(min_length=1)] = "ssd"
    """Name of the config. The default of --workdir is runs/<name>."""
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    match: Match = field(default_factory=Match)
    loss: Loss = field(default_factory=Loss)
    detect: Detect = field(default_factory=Detect)
    optimizer: Optimizer = field(default_factory=Optimizer)
    devices: Devices = field(default_factory=Devices)
    train: Train = field(default_factory=Train)

    def __post_init__(self) -> None:
        parts = self.devices.virtual_shards
        require(
            parts <= 0 or self.train.batch_size % parts == 0,
            f"train.batch_size is {self.train.batch_size}: expected a multiple of devices.virtual_shards, {parts}",
        )
        require(
            parts == 0 or self.train.accumulation_steps == 1,
            "devices.virtual_shards already splits the batch into parts: set train.accumulation_steps to 1",
        )
