"""Run SSD in torch with the tensors of a published file. The command `verify` compares these outputs with ours.

torchvision's weights are run with torchvision's own model. For the other projects, this module implements the network
with torch.nn.functional, and the default boxes, decoding and NMS of each project with NumPy.

This module shares no code with the import of weights: it takes only the tensors of the file and the name of the
project. Keys, axes, boxes and thresholds are written here a second time and in another way, so that a mistake in one
place is noticed. torch is imported inside functions because it is not a dependency.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]
Tensors = Mapping[str, np.ndarray]

_BACKBONE = (
    "conv1_1", "conv1_2", "P", "conv2_1", "conv2_2", "P", "conv3_1", "conv3_2", "conv3_3", "P",
    "conv4_1", "conv4_2", "conv4_3", "P", "conv5_1", "conv5_2", "conv5_3",
)  # fmt: skip
# Indices of the convolutions in torch's sequence, which has a ReLU after each convolution.
_INDICES = dict(zip([n for n in _BACKBONE if n != "P"], (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), strict=True))


class ProjectSettings(NamedTuple):
    """Preprocessing and post-processing settings of a project."""

    bgr: bool = False
    """Whether the order of the network's input channels is blue, green, red."""
    mean: tuple[float, float, float] = (123.0, 117.0, 104.0)
    """Mean of red, green, blue, for values from 0 to 255."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Divisors of red, green, blue, for values from 0 to 255."""
    background_last: bool = False
    """Whether background is the last class, not the first."""
    box_clip: str = ""
    """Clipping of default boxes to [0, 1]: "centre" clips cx, cy, w, h; "corner" clips the corners; "": no clipping."""
    truncate_sizes: bool = False
    """Whether sizes of default boxes are truncated to whole pixels."""
    log_limit: float | None = None
    """Maximum absolute value of the decoded log scales. None: no limit."""
    clip_first: bool = False
    """Whether, before NMS, boxes are clipped to the image and boxes without area are dropped."""
    threshold: float = 0.01
    """Boxes with a score above this threshold are candidates for NMS."""
    per_class: int | None = 400
    """Maximum number of candidates per class. None: no limit."""
    per_map: int | None = None
    """Maximum number of candidates per feature map. None: no limit."""
    keep: int | None = 200
    """Maximum number of detections per image. None: no limit."""
    keep_per_class: bool = False
    """Whether detections are limited only per class, so that `keep` is not used."""


PROJECT_SETTINGS = {
    "ssd.pytorch": ProjectSettings(box_clip="centre", per_class=200, keep=200, keep_per_class=True),
    "lufficc": ProjectSettings(box_clip="centre", per_class=None, keep=100),
    "mmdetection": ProjectSettings(
        mean=(123.675, 116.28, 103.53), background_last=True, truncate_sizes=True, log_limit=math.log(62.5),
        clip_first=True, threshold=0.02, per_class=None, per_map=1000,
    ),
    "caffe": ProjectSettings(bgr=True, truncate_sizes=True),
    "ssd_keras": ProjectSettings(bgr=True, per_class=None),
    "vgg16_reducedfc": ProjectSettings(),
    "torchvision_vgg16": ProjectSettings(
        mean=(0.485 * 255, 0.456 * 255, 0.406 * 255), std=(0.229 * 255, 0.224 * 255, 0.225 * 255)
    ),
    "torchvision_features": ProjectSettings(mean=(0.48235 * 255, 0.45882 * 255, 0.40784 * 255)),
    "caffe_vgg16_reduced": ProjectSettings(bgr=True),
    "caffe_vgg16": ProjectSettings(bgr=True, mean=(123.68, 116.779, 103.939)),
    "keras_vgg16": ProjectSettings(bgr=True, mean=(123.68, 116.779, 103.939)),
}  # fmt: skip


class Detection(NamedTuple):
    """A detection with a box as xyxy from 0 to 1. Labels start at 1."""

    label: int
    score: float
    box: tuple[float, float, float, float]


class Reference(NamedTuple):
    """Outputs of the reference for one image. For a backbone, all fields except ``layers`` are empty."""

    layers: Arrays
    """Outputs (h, w, channels) of each convolution before its ReLU, and of conv4_3_norm, by Caffe's layer names."""
    default_boxes: np.ndarray
    """Default boxes (boxes, 4) as cx, cy, w, h, relative to the image side."""
    boxes: np.ndarray
    """Decoded boxes (boxes, 4) as xyxy, relative to the image side. They are clipped if the project clips them."""
    scores: np.ndarray
    """Probabilities (boxes, classes), background first."""
    detections: list[Detection]
    """Final detections by descending score."""


def run_reference(
    project: str,
    tensors: Tensors,
    image: np.ndarray,
    size: int,
    coco_scales: bool,
    priors: Sequence[Any] = (),
    bgr: bool | None = None,
) -> Reference:
    """Run a project's network on one image and return its outputs.

    Args:
        project: Name of the project, as a key of `presets.PRESETS`.
        tensors: Tensors of the file, by key.
        image: RGB image (h, w, 3), uint8.
        size: Side in pixels of the square that the image is resized to.
        coco_scales: Whether the default boxes have COCO's scales.
        priors: Settings of Caffe's PriorBox layers, one per feature map. If given, ``coco_scales`` is ignored.
        bgr: Whether the input channels of conv1_1 are blue, green, red. None: the project's usual order.

    Raises:
        ImportError: If torch or torchvision is not installed.
    """
    if project == "torchvision":
        return _run_torchvision(tensors, image, coco_scales, bool(bgr))
    settings = PROJECT_SETTINGS[project]
    if bgr is not None:
        settings = settings._replace(bgr=bgr)
    x = _preprocess(image, size, settings)
    layers, feature_maps = _forward(project, tensors, x)
    if not feature_maps:
        return Reference(layers, np.zeros((0, 4)), np.zeros((0, 4)), np.zeros((0, 0)), [])
    offsets, logits, shapes = [], [], []
    for name in feature_maps:
        loc, conf = layers[f"{name}_mbox_loc"], layers[f"{name}_mbox_conf"]
        cells = loc.shape[0]
        boxes = loc.shape[2] // 4
        shapes.append((cells, boxes))
        offsets.append(loc.reshape(-1, 4))
        each = conf.reshape(cells * cells * boxes, -1)
        if settings.background_last:
            each = np.concatenate([each[:, -1:], each[:, :-1]], axis=1)
            layers[f"{name}_mbox_conf"] = each.reshape(conf.shape)  # our imported network has background first, too
        logits.append(each)
    box_sizes = _make_box_sizes(size, shapes, settings, coco_scales, priors)
    default_boxes = np.array(list(_generate_default_boxes(size, shapes, box_sizes)), np.float64)
    boxes = _decode(np.concatenate(offsets).astype(np.float64), default_boxes, settings)
    scores = _softmax(np.concatenate(logits))
    return Reference(layers, default_boxes, boxes, scores, _detect(boxes, scores, shapes, settings))


# ---- torchvision ----


def _run_torchvision(tensors: Tensors, image: np.ndarray, coco_scales: bool, bgr: bool) -> Reference:
    """Return the outputs of torchvision's SSD300 for one image."""
    import torch
    from torchvision.models.detection import ssd300_vgg16
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator

    state = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    classes = len(state["head.classification_head.module_list.0.bias"]) // 4
    model = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=classes)
    model.load_state_dict(state)
    model.eval()
    if bgr:
        image = image[:, :, ::-1]
        model.transform.image_mean = model.transform.image_mean[::-1]
    if not coco_scales:
        ratios, steps = [[2], [2, 3], [2, 3], [2, 3], [2], [2]], [8, 16, 32, 64, 100, 300]
        model.anchor_generator = DefaultBoxGenerator(ratios, scales=list(_SCALES[300, False]), steps=steps)
    layers: Arrays = {}
    names = {
        f"backbone.{'features' if index < 23 else 'extra.0'}.{index if index < 23 else index - 23}": name
        for name, index in _INDICES.items()
    }
    names |= {"backbone.extra.0.7.1": "fc6", "backbone.extra.0.7.3": "fc7"}
    names |= {f"backbone.extra.{n - 5}.{2 * i - 2}": f"conv{n}_{i}" for n in range(6, 10) for i in (1, 2)}
    for k, name in enumerate(("conv4_3_norm", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2")):
        names[f"head.regression_head.module_list.{k}"] = f"{name}_mbox_loc"
        names[f"head.classification_head.module_list.{k}"] = f"{name}_mbox_conf"

    def make_hook(name: str) -> Any:
        return lambda module, inputs, output: layers.update({name: _to_hwc(output)})

    for path, module in model.named_modules():
        if path in names:
            module.register_forward_hook(make_hook(names[path]))

    def keep_norm_output(module: Any, inputs: Any, outputs: Any) -> None:
        layers["conv4_3_norm"] = _to_hwc(outputs["0"])

    model.backbone.register_forward_hook(keep_norm_output)
    heads: dict[str, Any] = {}
    model.head.register_forward_hook(lambda module, inputs, output: heads.update(output))
    anchors: list[Any] = []
    model.anchor_generator.register_forward_hook(lambda module, inputs, output: anchors.extend(output))
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 255
    with torch.no_grad():
        (output,) = model([pixels])
        decoded = model.box_coder.decode_single(heads["bbox_regression"][0], anchors[0])
    height, width = image.shape[:2]
    corners = anchors[0].double().numpy() / 300
    default_boxes = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)
    scale = np.array([width, height, width, height])
    detections = [
        Detection(int(label), float(score), tuple((box.numpy() / scale).tolist()))
        for label, score, box in zip(output["labels"], output["scores"], output["boxes"], strict=True)
    ]
    boxes = np.clip(decoded.numpy() / 300, 0, 1)
    scores = _softmax(heads["cls_logits"][0].numpy())
    return Reference(layers, default_boxes, boxes, scores, detections)


def _to_hwc(output: Any) -> np.ndarray:
    """Return a torch batch of one image as a NumPy array (h, w, channels)."""
    return output[0].detach().permute(1, 2, 0).numpy().copy()


# ---- the network ----


def _preprocess(image: np.ndarray, size: int, settings: ProjectSettings) -> Any:
    """Return the resized and normalised image as a tensor (1, 3, size, size)."""
    import torch

    x = torch.from_numpy(image.transpose(2, 0, 1).copy()).float()[None]
    x = torch.nn.functional.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=False)
    mean, std = (torch.tensor(numbers, dtype=torch.float32)[:, None, None] for numbers in (settings.mean, settings.std))
    x = (x - mean) / std
    return x.flip(1) if settings.bgr else x


def _forward(project: str, tensors: Tensors, x: Any) -> tuple[Arrays, list[str]]:
    """Return the outputs by layer name, and the names of the feature maps with predictors (none for a backbone)."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    layers: Arrays = {}
    weight, bias = _choose_key_suffixes(project)
    prefixes = {
        name: prefix for name, prefix in _make_key_prefixes(project, tensors).items() if prefix + weight in tensors
    }

    def load_tensor(key: str, name: str) -> Any:
        return torch.from_numpy(np.ascontiguousarray(_to_oihw(project, tensors[key], name), np.float32))

    def conv(name: str, x: Any, **options: Any) -> Any:
        x = F.conv2d(x, load_tensor(prefixes[name] + weight, name), load_tensor(prefixes[name] + bias, name), **options)
        layers[name] = _to_hwc(x)
        return x

    conv4_3 = x
    for name in _BACKBONE:
        x = F.max_pool2d(x, 2, 2, ceil_mode=True) if name == "P" else F.relu(conv(name, x, padding=1))
        if name == "conv4_3":
            conv4_3 = x
    if "fc6" not in prefixes:
        return layers, []
    x = F.relu(conv("fc6", F.max_pool2d(x, 3, 1, 1), padding=6, dilation=6))
    x = F.relu(conv("fc7", x))
    if "conv4_3_norm" not in prefixes:
        return layers, []
    scale = load_tensor(prefixes["conv4_3_norm"] + weight, "conv4_3_norm")
    normed = scale[:, None, None] * conv4_3 / (conv4_3.square().sum(1, keepdim=True) + 1e-10).sqrt()
    layers["conv4_3_norm"] = _to_hwc(normed)
    maps = {"conv4_3_norm": normed, "fc7": x}
    extras = [n for n in range(6, 11) if f"conv{n}_1" in prefixes]
    pooled = "pool6_mbox_loc" in prefixes
    large = 10 in extras or pooled
    for n in extras:
        x = F.relu(conv(f"conv{n}_1", x))
        # conv10_2 has a kernel of 4 x 4 and stride 1.
        padded: dict[str, int] = {"padding": 1} if n == 10 else {"stride": 2, "padding": 1}
        options = padded if n < 8 or large else {}
        maps[f"conv{n}_2"] = x = F.relu(conv(f"conv{n}_2", x, **options))
    if pooled:
        maps["pool6"] = x.mean((2, 3), keepdim=True)
    for name, feature_map in maps.items():
        conv(f"{name}_mbox_loc", feature_map, padding=1)
        conv(f"{name}_mbox_conf", feature_map, padding=1)
    return layers, list(maps)


_NUMBERED_BLOBS = ("caffe", "ssd_keras", "caffe_vgg16", "caffe_vgg16_reduced", "keras_vgg16")


def _choose_key_suffixes(project: str) -> tuple[str, str]:
    """Return two key suffixes: that of weights and that of biases."""
    return (".0", ".1") if project in _NUMBERED_BLOBS else (".weight", ".bias")


def _make_key_prefixes(project: str, tensors: Tensors) -> dict[str, str]:
    """Return the key prefix of each layer that the project's networks may have, by Caffe's layer name."""
    extras = [f"conv{n}_{i}" for n in range(6, 11) for i in (1, 2)]
    feature_maps = ["conv4_3_norm", "fc7", *extras[1::2]]
    names = [*_INDICES, "fc6", "fc7", "conv4_3_norm", *extras]
    if project in _NUMBERED_BLOBS:
        every = [*names, *(f"{s}_mbox_{kind}" for s in (*feature_maps, "pool6") for kind in ("loc", "conf"))]
        keras = {n: f"block{n[4]}_conv{n[6]}" for n in _INDICES} | {"fc6": "fc1", "fc7": "fc2"}
        return keras if project == "keras_vgg16" else {name: name for name in every}
    if project in ("torchvision_vgg16", "torchvision_features"):
        prefixes = {name: f"features.{index}" for name, index in _INDICES.items()}
        return prefixes | ({"fc6": "classifier.0", "fc7": "classifier.3"} if project == "torchvision_vgg16" else {})
    sequence = {**_INDICES, "fc6": 31, "fc7": 33}
    if project == "vgg16_reducedfc":
        return {name: str(index) for name, index in sequence.items()}
    if project == "ssd.pytorch":
        backbone, norm, extra, box, label = "vgg.{}", "L2Norm", "extras.{}", "loc.{}", "conf.{}"
    elif project == "lufficc" and "l2_norm.weight" in tensors:
        backbone, norm, extra = "vgg.{}", "l2_norm", "extras.{}"
        box, label = "regression_headers.{}", "classification_headers.{}"
    elif project == "lufficc":
        backbone, norm, extra = "backbone.vgg.{}", "backbone.l2_norm", "backbone.extras.{}"
        box, label = "box_head.predictor.reg_headers.{}", "box_head.predictor.cls_headers.{}"
    elif project == "mmdetection" and "neck.l2_norm.weight" in tensors:
        backbone, norm, extra = "backbone.features.{}", "neck.l2_norm", "neck.extra_layers.{0}.{1}.conv"
        box, label = "bbox_head.reg_convs.{}.0", "bbox_head.cls_convs.{}.0"
    else:
        backbone, norm, extra = "backbone.features.{}", "backbone.l2_norm", "backbone.extra.{}"
        box, label = "bbox_head.reg_convs.{}", "bbox_head.cls_convs.{}"
    prefixes = {name: backbone.format(index) for name, index in sequence.items()} | {"conv4_3_norm": norm}
    for number, name in enumerate(extras):
        prefixes[name] = extra.format(*divmod(number, 2)) if "{0}" in extra else extra.format(number)
    for number, name in enumerate(feature_maps):
        prefixes |= {f"{name}_mbox_loc": box.format(number), f"{name}_mbox_conf": label.format(number)}
    return prefixes


def _to_oihw(project: str, array: np.ndarray, name: str) -> np.ndarray:
    """Return a kernel with the axes (out, in, height, width), or a bias.

    If fc6 and fc7 come from a full VGG16 classifier, only every fourth unit is returned, and only rows and columns 0, 3
    and 6 of the 7 x 7 inputs of fc6.
    """
    if project in ("keras_vgg16", "ssd_keras") and array.ndim == 4:
        return np.einsum("hwio->oihw", array)
    if array.ndim == 2:
        is_keras = project == "keras_vgg16"
        units = array.T if is_keras else array
        units = units[[4 * u for u in range(len(units) // 4)]]
        if name == "fc7":
            return units[:, [4 * u for u in range(units.shape[1] // 4)], None, None]
        grid = units.reshape((len(units), 7, 7, -1) if is_keras else (len(units), -1, 7, 7))
        grid = np.einsum("ohwi->oihw", grid) if is_keras else grid
        return grid[:, :, [0, 3, 6]][:, :, :, [0, 3, 6]]
    if array.ndim == 1 and name in ("fc6", "fc7") and project in ("keras_vgg16", "torchvision_vgg16", "caffe_vgg16"):
        return array[[4 * u for u in range(len(array) // 4)]]
    return array


# ---- default boxes ----


class _BoxSizes(NamedTuple):
    """Parameters of the default boxes of one feature map. Lengths are in pixels of the resized image."""

    smallest: float
    """Side of the smaller square box."""
    largest: float | None
    """Size that determines the side of the larger square, sqrt(smallest * largest). None: there is only one square."""
    ratios: tuple[float, ...]
    """Ratios of width to height, without 1 and without the reciprocals, which are added."""
    step: float
    """Distance between neighbouring box centres."""
    clip: str
    """Clipping of the boxes, with the same values as `ProjectSettings.box_clip`."""


# Sizes of default boxes relative to the image side, by the image side in pixels and whether the sizes are COCO's. The
# largest size of a feature map is the smallest size of the next feature map.
_SCALES = {
    (300, False): (0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05),
    (300, True): (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05),
    (512, False): (0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05),
    (512, True): (0.04, 0.1, 0.26, 0.42, 0.58, 0.74, 0.9, 1.06),
}


def _make_box_sizes(
    size: int, shapes: Sequence[tuple[int, int]], settings: ProjectSettings, coco_scales: bool, priors: Sequence[Any]
) -> list[_BoxSizes]:
    """Return the parameters of the default boxes of each feature map.

    For each feature map, ``shapes`` has the number of cells along a side and the number of boxes per cell.
    """
    if priors:
        return [
            _BoxSizes(
                int(p.min_sizes[0]),
                int(p.max_sizes[0]) if p.max_sizes else None,
                p.aspect_ratios,
                p.step or size / cells,
                "corner" if p.clip else "",
            )
            for p, (cells, _) in zip(priors, shapes, strict=True)
        ]
    ratios = [(2.0, 3.0) if boxes == 6 else (2.0,) for _, boxes in shapes]
    # The first versions of SSD have only one square in a cell of the first map, and steps that divide the image evenly.
    if shapes[0][1] == 3:
        smallest = [35, 75, 155, 235, 315, 395, 475, 555] if size == 500 else [30, 60, 114, 168, 222, 276, 330]
        largest: list[float | None] = [None, *smallest[2:]]
        steps = [size / cells for cells, _ in shapes]
        return [_BoxSizes(*row, "corner") for row in zip(smallest, largest, ratios, steps, strict=False)]
    sizes = [round(size * scale, 2) for scale in _SCALES[size, coco_scales]]
    sizes = [float(int(number)) for number in sizes] if settings.truncate_sizes else sizes
    if settings.keep == 100 and size == 512 and not coco_scales:  # only lufficc's config has this size
        sizes[-1] = 537.65
    steps = [8, 16, 32, 64, 100, 300] if size == 300 else [8, 16, 32, 64, 128, 256, 512]
    return [_BoxSizes(*row, settings.box_clip) for row in zip(sizes, sizes[1:], ratios, steps, strict=False)]


def _generate_default_boxes(
    size: int, shapes: Sequence[tuple[int, int]], box_sizes: Sequence[_BoxSizes]
) -> Iterator[list[float]]:
    """Yield cx, cy, w, h of each default box, relative to the image side."""
    for (cells, _), sizes in zip(shapes, box_sizes, strict=True):
        sides = [(sizes.smallest, sizes.smallest)]
        if sizes.largest is not None:
            sides.append((math.sqrt(sizes.smallest * sizes.largest),) * 2)
        for ratio in sizes.ratios:
            sides.append((sizes.smallest * ratio**0.5, sizes.smallest / ratio**0.5))
            sides.append((sizes.smallest / ratio**0.5, sizes.smallest * ratio**0.5))
        for row in range(cells):
            for column in range(cells):
                for width, height in sides:
                    box = [(column + 0.5) * sizes.step, (row + 0.5) * sizes.step, width, height]
                    yield _clip_box([number / size for number in box], sizes.clip)


def _clip_box(box: list[float], clip: str) -> list[float]:
    """Return a box (cx, cy, w, h), clipped as `ProjectSettings.box_clip` describes."""
    if clip == "centre":
        return [min(max(number, 0.0), 1.0) for number in box]
    if clip == "corner":
        x, y, w, h = box
        x1, x2, y1, y2 = (min(max(v, 0.0), 1.0) for v in (x - w / 2, x + w / 2, y - h / 2, y + h / 2))
        return [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
    return box


# ---- conversion of outputs to detections ----


def _decode(offsets: np.ndarray, default_boxes: np.ndarray, settings: ProjectSettings) -> np.ndarray:
    """Return the boxes (boxes, 4) that the offsets describe, as xyxy, relative to the image side."""
    dx, dy, dw, dh = (offsets * [0.1, 0.1, 0.2, 0.2]).T
    x, y, w, h = default_boxes.T
    if settings.log_limit is not None:
        dw, dh = (np.clip(d, -settings.log_limit, settings.log_limit) for d in (dw, dh))
    cx, cy, width, height = x + dx * w, y + dy * h, w * np.exp(dw), h * np.exp(dh)
    boxes = np.stack([cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2], axis=1)
    return np.clip(boxes, 0, 1) if settings.clip_first else boxes


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _detect(
    boxes: np.ndarray, scores: np.ndarray, shapes: Sequence[tuple[int, int]], settings: ProjectSettings
) -> list[Detection]:
    """Return the final detections by descending score, after NMS within each class, one box at a time."""
    allowed = np.ones(scores.shape, bool)
    if settings.per_map is not None:
        allowed[:] = False
        start = 0
        for cells, count in shapes:
            stop = start + cells * cells * count
            ranked = np.argsort(-scores[start:stop, 1:], axis=None, kind="stable")[: settings.per_map]
            rows, columns = np.unravel_index(ranked, (stop - start, scores.shape[1] - 1))
            allowed[start + rows, 1 + columns] = True
            start = stop
    if settings.clip_first:
        allowed &= ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))[:, None]
    detections: list[Detection] = []
    for label in range(1, scores.shape[1]):
        ranked = np.argsort(-scores[:, label], kind="stable")
        eligible = [i for i in ranked if scores[i, label] > settings.threshold and allowed[i, label]]
        remaining = np.array(eligible[: settings.per_class], int)
        kept = []
        while len(remaining):
            best, remaining = remaining[0], remaining[1:]
            kept.append(best)
            remaining = remaining[_compute_iou(boxes[best], boxes[remaining]) <= 0.45]
        detections += [Detection(label, float(scores[i, label]), tuple(np.clip(boxes[i], 0, 1).tolist())) for i in kept]
    detections.sort(key=lambda d: -d.score)
    return detections if settings.keep_per_class else detections[: settings.keep]


def _compute_iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU of a box (4,) with each of ``others`` (n, 4). All boxes are xyxy."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = np.clip(sides, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return common / np.maximum(areas - common, 1e-300)
