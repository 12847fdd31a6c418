"""What a run is made of: frozen dataclasses, each field with its default and its source.

A file in ``configs/`` has ``get_config()`` and states only its differences from these defaults.
The command line overrides single fields (``--train.steps 100``); nested tuples are set in files.
All classes are hashable, so a part of the config can be a static argument of a jitted function.

"Caffe" is the authors' code, github.com/weiliu89/caffe, branch ssd; "paper" is arXiv 1512.02325v5.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec
import tyro

from ssd_jax.errors import UserError

RENAMED_OPTIONS = {
    "data.canvas": "data.max_image_size",
    "detect.candidates": "detect.top_k_per",
    "optimizer.adam_rate": "optimizer.adam_lr_multiplier",
    "optimizer.bias_rate": "optimizer.bias_lr_multiplier",
    "train.start_from": "train.pretrained",
    "train.trunk_only": "train.backbone_only",
}
"""Former names of options, which older run folders and command lines may contain."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(f"config: {message}")


def _require_finite(part: Any, path: str = "") -> None:
    """JSON has no infinity: such a config.json could not be read back."""
    for f in dataclasses.fields(part):
        value = getattr(part, f.name)
        if dataclasses.is_dataclass(value):
            _require_finite(value, f"{path}{f.name}.")
        elif isinstance(value, float):
            _require(math.isfinite(value), f"{path}{f.name} is {value}, must be a finite number")


@dataclass(frozen=True)
class DefaultBoxes:
    """Default boxes (called priors in Caffe, anchors elsewhere), one row of settings per feature map.

    Each cell of map k carries, in Caffe's order: a square of ``min_sizes[k]``; where
    ``max_sizes[k]`` is set, a square of sqrt(min * max); then for each aspect ratio r a box of
    min * sqrt(r) by min / sqrt(r), followed by its upright twin.
    """

    image_size: int = 300
    """Side of the network's square input, pixels."""
    feature_maps: Annotated[tuple[int, ...], tyro.conf.Fixed] = (38, 19, 10, 5, 3, 1)
    """Cells along a side of each map."""
    min_sizes: Annotated[tuple[float, ...], tyro.conf.Fixed] = (30, 60, 111, 162, 213, 264)
    """Pixels of the network's input."""
    max_sizes: Annotated[tuple[float | None, ...], tyro.conf.Fixed] = (60, 111, 162, 213, 264, 315)
    """Pixels of the network's input; None: the map has no second square."""
    aspect_ratios: Annotated[tuple[tuple[float, ...], ...], tyro.conf.Fixed] = (
        (2,), (2, 3), (2, 3), (2, 3), (2,), (2,),
    )  # fmt: skip
    steps: Annotated[tuple[float, ...] | None, tyro.conf.Fixed] = (8, 16, 32, 64, 100, 300)
    """Pixels between cell centres. None: image over map, as in the first versions. Caffe's fixed
    steps put the last centres of the 38 and 10 maps on and beyond the border; weights expect that."""
    clip: Literal["none", "sizes", "center_size", "corners"] = "none"
    """none: Caffe. sizes: width and height to at most 1 (torchvision). center_size: all four numbers
    to [0, 1] (ssd.pytorch and its heirs). corners: xyxy to [0, 1] (Caffe before August 2016)."""
    truncate_sizes: bool = False
    """Drop the fraction of min_sizes and max_sizes, as Caffe's C++ does since June 2016 (SSD512)."""
    variances: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    """Divisors of the encoded offsets: x, y, log width, log height."""

    def __post_init__(self) -> None:
        maps = len(self.feature_maps)
        _require(maps > 0, "default_boxes.feature_maps is empty: name at least one map")
        _require(self.image_size > 0, f"default_boxes.image_size is {self.image_size}, must be positive")
        for name in ("min_sizes", "max_sizes", "aspect_ratios", "steps"):
            value = getattr(self, name)
            _require(
                value is None or len(value) == maps,
                f"default_boxes.{name} has {len(value or ())} entries, one for each of the "
                f"{maps} feature_maps {self.feature_maps} is needed",
            )
        for low, high in zip(self.min_sizes, self.max_sizes, strict=True):
            _require(low > 0, f"default_boxes.min_sizes holds {low}, sizes are positive pixels")
            _require(high is None or high > low, f"default_boxes: max size {high} is not above min size {low}")
        _require(all(f > 0 for f in self.feature_maps), "default_boxes.feature_maps must be positive")
        _require(all(s > 0 for s in self.steps or ()), "default_boxes.steps must be positive")
        _require(all(v > 0 for v in self.variances), "default_boxes.variances must be positive")
        ratios = [r for row in self.aspect_ratios for r in row]
        _require(
            all(r > 0 and r != 1 for r in ratios),
            "default_boxes.aspect_ratios must be positive and not 1 (the squares are always there)",
        )

    @property
    def boxes_per_cell(self) -> tuple[int, ...]:
        return tuple(
            1 + (high is not None) + 2 * len(ratios)
            for high, ratios in zip(self.max_sizes, self.aspect_ratios, strict=True)
        )

    @property
    def boxes_per_map(self) -> tuple[int, ...]:
        """Default boxes of each feature map."""
        return tuple(f * f * k for f, k in zip(self.feature_maps, self.boxes_per_cell, strict=True))

    @property
    def count(self) -> int:
        """n, the number of default boxes of an image: 8732 for SSD300."""
        return sum(self.boxes_per_map)


SSD300_VOC_BOXES = DefaultBoxes()
SSD300_COCO_BOXES = DefaultBoxes(
    min_sizes=(21, 45, 99, 153, 207, 261),
    max_sizes=(45, 99, 153, 207, 261, 315),
)
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


@dataclass(frozen=True)
class Extra:
    """Two convolutions on top of the trunk: 1x1 to ``bottleneck``, then k x k to ``channels``.

    The second one's output is a source of predictions.
    """

    bottleneck: int
    channels: int
    kernel: int = 3
    stride: int = 2
    padding: int = 1


# Paper section 3 and figure 2; for 512 Caffe's released models, which have no script.
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
    """The network. Defaults: SSD300 of the paper."""

    class_names: tuple[str, ...] = ()
    """Without background. Empty: taken from the data when a run starts, and kept with the run."""
    default_boxes: DefaultBoxes = field(default_factory=DefaultBoxes)
    extras: Annotated[tuple[Extra, ...], tyro.conf.Fixed] = SSD300_EXTRAS
    """conv6_1 and conv6_2, conv7_1 and conv7_2, ... on top of fc7."""
    global_pool: bool = False
    """Average the last extra's map to one cell as a further source (Caffe's pool6: SSD500)."""
    width: float = 1.0
    """Multiplies the channels of every layer but the predictors; 0.25 trains from scratch on a CPU."""
    norm: Literal["none", "group"] = "none"
    """none: as in the paper, for pretrained weights. group: for training from scratch. Weight
    standardization and GroupNorm, in groups of 8 channels, in trunk and extras; predictors start at
    no offset and at the classes' shares of the loss."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the convolutions. Parameters, L2Norm and loss are always float32."""
    precision: Literal["default", "high", "highest"] = "default"
    """Of float32 convolutions. By default a TPU rounds their factors to bfloat16 and recent NVIDIA GPUs to
    TF32; highest: float32 throughout. Boxes and resampling always have the highest."""
    remat: bool = False
    """Compute the trunk's activations anew in the backward pass, rather than keep them: less memory, more time."""
    mean: tuple[float, float, float] = (123.0, 117.0, 104.0)
    """Subtracted from RGB 0-255 (Caffe); also the fill of zoom-out."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Divides what is left; 1 in Caffe. From scratch take about 64, the spread of pixels: conv1_1's
    weights are then of the size of the others', which Adam's steps of equal length depend on."""
    l2_norm_scale: float = 20.0
    """Initial scale of the L2Norm on conv4_3 (paper section 3.1)."""

    def __post_init__(self) -> None:
        _require(all(s > 0 for s in self.std), f"model.std is {self.std}, must be positive")
        _require(self.width > 0, f"model.width is {self.width}, must be positive")
        _require(
            len(set(self.class_names)) == len(self.class_names),
            f"model.class_names holds a name twice: {self.class_names}",
        )
        maps = self.feature_map_sizes
        _require(
            maps == self.default_boxes.feature_maps,
            f"default_boxes.feature_maps is {self.default_boxes.feature_maps}, but the network makes maps "
            f"of {maps} from an image of {self.image_size} px: write those down, or change model.extras",
        )

    @property
    def image_size(self) -> int:
        return self.default_boxes.image_size

    @property
    def num_classes(self) -> int:
        """c, with background."""
        return len(self.class_names) + 1

    @property
    def feature_map_sizes(self) -> tuple[int, ...]:
        """Side of each map that predictions are made from."""
        size = self.image_size
        sizes = []
        for pool in range(4):  # pool1 to pool4, ceil mode
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
    """The generated data set ``shapes``: deterministic by seed and index."""

    train_images: int = 4000
    val_images: int = 200
    test_images: int = 500
    image_size: int = 128
    """Side, pixels."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("train_images", "val_images", "test_images"):
            _require(getattr(self, name) > 0, f"data.shapes.{name} is {getattr(self, name)}, must be positive")
        _require(self.image_size >= 16, f"data.shapes.image_size is {self.image_size}, must be 16 or more")
        _require(self.seed >= 0, f"data.shapes.seed is {self.seed}, must not be negative")


@dataclass(frozen=True)
class Data:
    """Where images and boxes come from, and how they are laid into a batch."""

    root: str = "shapes"
    """A folder (VOC layout, COCO JSON, YOLO text files or their .yaml, ILSVRC DET), a set that
    tensorflow-datasets has prepared (``tfds:voc/2007``), or the word ``shapes`` for generated pictures."""
    format: Literal["auto", "voc", "coco", "yolo", "ilsvrc", "tfds", "shapes"] = "auto"
    """auto: found by looking at the folder, or the word."""
    tfds_dir: str = ""
    """Folder of prepared tfds sets. Empty: $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    train_split: str = "train"
    val_split: str = "val"
    """Measured while training; the best checkpoint is chosen on it."""
    test_split: str = "test"
    """Measured by evaluate.py; where the data has none, evaluate.py uses val_split and says so."""
    val_fraction: float = 0.1
    """Share of the images that go to val where the folder names no splits, by a hash of the image id."""
    max_image_size: int = 640
    """Longest side of an image in a batch, pixels; larger ones are reduced on the host."""
    max_objects: int = 64
    """Ground-truth boxes are padded to this number; an image with more is cut and counted."""
    train_on_difficult: bool = True
    """Caffe trains with VOC's difficult objects; ssd.pytorch leaves them out."""
    strict: Annotated[bool, tyro.conf.arg(aliases=["--strict"])] = False
    """Stop at an image that can't be read, rather than go on without it and name it at the end."""
    shapes: Shapes = field(default_factory=Shapes)

    def __post_init__(self) -> None:
        _require(self.max_image_size > 0, f"data.max_image_size is {self.max_image_size}, must be positive")
        _require(self.max_objects > 0, f"data.max_objects is {self.max_objects}, must be positive")
        _require(0 < self.val_fraction < 1, f"data.val_fraction is {self.val_fraction}, must lie between 0 and 1")


@dataclass(frozen=True)
class Augment:
    """Augmentation of the paper's final version (section 2.2 and 3.6), with Caffe's numbers
    (examples/ssd/ssd_pascal.py, src/caffe/util/sampler.cpp and im_transforms.cpp)."""

    distort_probability: float = 0.5
    """Of brightness, contrast, saturation and hue, each on its own."""
    contrast_first_probability: float = 0.5
    """Order brightness contrast saturation hue; otherwise brightness saturation hue contrast."""
    brightness: float = 32.0
    """Added: uniform in +- this, of 0-255."""
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    """Of HSV's S."""
    hue: float = 18.0
    """Added: uniform in +- this, of OpenCV's 0-179 (two degrees a unit)."""
    channel_shuffle_probability: float = 0.0
    expand_probability: float = 0.5
    """Zoom-out."""
    expand_max_ratio: float = 4.0
    """Side of the canvas over side of the image: uniform in 1 to this."""
    crop: bool = True
    """The batch sampler."""
    crop_min_overlaps: Annotated[tuple[float, ...], tyro.conf.Fixed] = (0.1, 0.3, 0.5, 0.7, 0.9)
    """One sampler for each; beside them the whole image and a patch without a bound on its overlap."""
    crop_trials: int = 50
    crop_scale: tuple[float, float] = (0.3, 1.0)
    """Square root of the patch's area over the image's. The paper's text says 0.1; the code has 0.3."""
    crop_aspect_ratio: tuple[float, float] = (0.5, 2.0)
    """Width over height, in normalised coordinates."""
    flip_probability: float = 0.5

    def __post_init__(self) -> None:
        for name in (f.name for f in dataclasses.fields(self) if f.name.endswith("_probability")):
            _require(0 <= getattr(self, name) <= 1, f"augment.{name} is {getattr(self, name)}, must lie in [0, 1]")
        for name in ("contrast", "saturation", "crop_scale", "crop_aspect_ratio"):
            low, high = getattr(self, name)
            _require(0 <= low <= high, f"augment.{name} is {low} to {high}, must be a range of numbers from 0 up")
        _require(self.brightness >= 0 and self.hue >= 0, "augment.brightness and augment.hue must not be negative")
        _require(self.expand_max_ratio >= 1, f"augment.expand_max_ratio is {self.expand_max_ratio}, must be 1 or more")
        _require(
            self.crop_scale[0] > 0 and self.crop_scale[1] <= 1 and self.crop_aspect_ratio[0] > 0,
            "augment.crop_scale must lie in (0, 1], augment.crop_aspect_ratio above 0",
        )
        _require(self.crop_trials > 0, f"augment.crop_trials is {self.crop_trials}, must be positive")


@dataclass(frozen=True)
class Match:
    """Paper section 2.2, "Matching strategy"."""

    iou_threshold: float = 0.5

    def __post_init__(self) -> None:
        _require(0 < self.iou_threshold <= 1, f"match.iou_threshold is {self.iou_threshold}, must lie in (0, 1]")


@dataclass(frozen=True)
class Loss:
    """Paper section 2.2, "Training objective" and "Hard negative mining"."""

    neg_pos_ratio: float = 3.0
    min_negatives: int = 0
    """Negatives that an image contributes at least, so that images without objects count too; Caffe: 0."""
    location_weight: float = 1.0
    """alpha."""

    def __post_init__(self) -> None:
        for name in ("neg_pos_ratio", "min_negatives", "location_weight"):
            _require(getattr(self, name) >= 0, f"loss.{name} is {getattr(self, name)}, must not be negative")


@dataclass(frozen=True)
class Detect:
    """Paper section 3.7 and Caffe's DetectionOutput; the last four fields are habits of libraries whose
    networks can be imported. torchvision: models/detection/ssd.py. mmdetection: since 2.17,
    mmdet/models/dense_heads/base_dense_head.py."""

    score_threshold: float = 0.01
    """Lower scores, and this one, are not detections."""
    top_k: int = 400
    """Candidates that enter NMS."""
    nms_iou_threshold: float = 0.45
    max_detections: int = 200
    """Per image."""
    top_k_per: Literal["class", "map"] = "class"
    """Of what they are the top_k best. class: of each class (Caffe). map: of each feature map, over its
    classes (mmdetection: filter_scores_and_topk, nms_pre)."""
    log_scale_bounds: tuple[float | None, float | None] = (None, None)
    """Of the logarithm of a box's width over its default box's, and of its height's. None: as in Caffe.
    torchvision bounds it above, at ln(1000 / 16) (BoxCoder); mmdetection below too (DeltaXYWHBBoxCoder)."""
    clip_before_nms: bool = False
    """Overlaps are those of the boxes' parts in the image (torchvision, mmdetection)."""
    drop_empty: bool = False
    """A candidate without width or height takes no part in NMS (mmdetection's min_bbox_size of 0)."""

    def __post_init__(self) -> None:
        for name in ("score_threshold", "nms_iou_threshold"):
            _require(0 <= getattr(self, name) <= 1, f"detect.{name} is {getattr(self, name)}, must lie in [0, 1]")
        for name in ("top_k", "max_detections"):
            _require(getattr(self, name) > 0, f"detect.{name} is {getattr(self, name)}, must be positive")
        low, high = self.log_scale_bounds
        _require(
            (low is None or low < 0) and (high is None or high > 0),
            f"detect.log_scale_bounds is {low} to {high}, must let a box be of its default box's size: 0 lies between",
        )


@dataclass(frozen=True)
class Optimizer:
    """sgd: Caffe's solver. muon, adamw: training from scratch."""

    name: Literal["sgd", "adamw", "muon"] = "sgd"
    learning_rate: float = 1e-3
    """The highest of the schedule; not scaled with the batch. The default is Caffe's, for a batch of 32."""
    schedule: Literal["multistep", "cosine"] = "multistep"
    milestones: tuple[int, ...] = (80_000, 100_000)
    """Steps at which multistep multiplies the rate by gamma."""
    gamma: float = 0.1
    warmup_steps: int = 0
    """Steps over which the rate rises linearly from near 0."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    """sgd: added to the gradient, of every parameter but biases (Caffe decays L2Norm's scale too).
    adamw: decoupled, of kernels only. muon: decoupled, of what Muon updates."""
    bias_lr_multiplier: float = 2.0
    """sgd: the rate of biases over that of weights."""
    adam_lr_multiplier: float = 0.1
    """muon: the rate of what Adam updates (predictors, biases, norms) over that of the kernels."""
    clip_norm: float | None = None
    """Scale the whole gradient down to this norm where it is longer."""
    freeze_blocks: int = 0
    """First blocks of VGG16 that stay as they are: 2 is conv1_1 to conv2_2 (Caffe's first script), 1 what
    torchvision freezes, 5 all but fc6 and fc7."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "gamma", "bias_lr_multiplier", "adam_lr_multiplier"):
            _require(getattr(self, name) > 0, f"optimizer.{name} is {getattr(self, name)}, must be positive")
        for name in ("warmup_steps", "weight_decay"):
            _require(getattr(self, name) >= 0, f"optimizer.{name} is {getattr(self, name)}, must not be negative")
        _require(0 <= self.momentum < 1, f"optimizer.momentum is {self.momentum}, must lie in [0, 1)")
        _require(self.clip_norm is None or self.clip_norm > 0, "optimizer.clip_norm must be positive, or None")
        _require(0 <= self.freeze_blocks <= 5, f"optimizer.freeze_blocks is {self.freeze_blocks}, must lie in 0 to 5")


@dataclass(frozen=True)
class Devices:
    """How a run lies on its devices, of which it takes all that there are. Only virtual_shards changes results,
    in their last bits."""

    fsdp: int = 1
    """Devices in a row that share the large parameters and their optimizer's state, each a slice."""
    virtual_shards: int = 0
    """Sum gradients in a fixed order, over this many parts of the batch: the same bits on 1, 2, 4, ... devices
    of a kind. A power of two, the most devices that the run may have; 0: in whatever order is fastest."""
    deterministic: bool = False
    """Of a GPU's operations take those that give the same bits each time, which can be slower. Without them a
    run that goes on from a checkpoint is not bit for bit the one that was never stopped. A CPU and a TPU have no
    others."""

    def __post_init__(self) -> None:
        _require(self.fsdp > 0, f"devices.fsdp is {self.fsdp}, must be positive")
        parts = self.virtual_shards
        _require(
            parts >= 0 and parts & (parts - 1) == 0, f"devices.virtual_shards is {parts}, must be 0 or a power of two"
        )
        _require(
            not parts or self.fsdp == 1, "devices.virtual_shards needs whole parameters on each device: devices.fsdp 1"
        )


@dataclass(frozen=True)
class Train:
    steps: int = 120_000
    batch_size: int = 32
    """Of the whole step, over all devices and all of accumulation_steps."""
    accumulation_steps: int = 1
    """Parts of the batch that go through the network one after another, for less memory; the loss and its N stay
    those of the whole batch."""
    seed: int = 0
    log_every: int = 50
    eval_every: int = 5_000
    """Steps between measurements on data.val_split; 0: never."""
    checkpoint_every: int = 1_000
    ema_decay: float = 0.0
    """Exponential moving average of the parameters, which is then evaluated and used; 0: none."""
    pretrained: Annotated[str, tyro.conf.arg(aliases=["--train.start-from"])] = ""
    """What the run starts from, with an optimizer of its own: the folder of a run (its best checkpoint, their
    average if there is one), or a weight file that import-weights reads, of a detector or of VGG16 alone."""
    backbone_only: bool = False
    """Of a detector take conv1_1 to fc7 alone."""
    transfer: bool = False
    """Start from a detector of other classes: predictors of classes are carried over by name."""
    transfer_names: Annotated[tuple[tuple[str, str], ...], tyro.conf.Fixed] = ()
    """Classes that the detector to start from calls otherwise: (name here, name there)."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation_steps", "log_every", "checkpoint_every"):
            _require(getattr(self, name) > 0, f"train.{name} is {getattr(self, name)}, must be positive")
        for name in ("eval_every", "seed"):
            _require(getattr(self, name) >= 0, f"train.{name} is {getattr(self, name)}, must not be negative")
        _require(0 <= self.ema_decay < 1, f"train.ema_decay is {self.ema_decay}, must lie in [0, 1)")
        _require(self.transfer or not self.transfer_names, "train.transfer_names needs train.transfer")
        _require(not (self.transfer and self.backbone_only), "train.backbone_only takes no predictors to transfer")
        _require(
            len(dict(self.transfer_names)) == len(self.transfer_names),
            f"train.transfer_names names a class twice: {self.transfer_names}",
        )


@dataclass(frozen=True)
class Config:
    name: Annotated[str, tyro.conf.Fixed] = "ssd"
    """Default of --workdir is runs/<name>."""
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
        _require_finite(self)
        parts = self.devices.virtual_shards
        _require(
            not parts or self.train.batch_size % parts == 0,
            f"train.batch_size is {self.train.batch_size}, must be a multiple of devices.virtual_shards, {parts}",
        )
        _require(
            not parts or self.train.accumulation_steps == 1,
            "devices.virtual_shards go one after another already: leave train.accumulation_steps at 1",
        )


def decode_config(data: bytes) -> Config:
    """Decode the JSON of a config.json, including options under their former names.

    Raises:
        msgspec.MsgspecError: The data is not JSON, or a value has the wrong type.
        UserError: A value is outside its allowed range.
    """
    tree = msgspec.json.decode(data)
    if isinstance(tree, dict):
        for old, new in RENAMED_OPTIONS.items():
            section, old_name = old.split(".")
            part = tree.get(section)
            if isinstance(part, dict) and old_name in part:
                part.setdefault(new.split(".")[1], part.pop(old_name))
    return msgspec.convert(tree, Config)
