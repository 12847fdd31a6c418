"""SSD in torch, from the tensors of a published file: what `verify` compares with.

Of torchvision's weights torchvision's own model is run. Of the others the network is written out in
torch.nn.functional, with default boxes, decoding and suppression as each project has them.

Nothing of the importing side is used here but the file's tensors and which project they are of: keys, orders of
axes, boxes and thresholds are written a second time, in other ways, so that a mistake can't be on both sides. torch
is imported where it is used: it is no dependency.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]
Tensors = Mapping[str, np.ndarray]

_TRUNK = (
    "conv1_1", "conv1_2", "P", "conv2_1", "conv2_2", "P", "conv3_1", "conv3_2", "conv3_3", "P",
    "conv4_1", "conv4_2", "conv4_3", "P", "conv5_1", "conv5_2", "conv5_3",
)  # fmt: skip
# Places in torch's sequence, where each convolution is followed by a ReLU.
_PLACES = dict(zip([n for n in _TRUNK if n != "P"], (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), strict=True))


class Recipe(NamedTuple):
    """How a project goes from a picture to detections."""

    bgr: bool = False
    mean: tuple[float, float, float] = (123.0, 117.0, 104.0)
    """Of red, green, blue."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    background_last: bool = False
    box_clip: str = ""
    """Of default boxes: centre (cx, cy, w, h to [0, 1]) or corner."""
    whole_sizes: bool = False
    """Their sizes are integers of pixels."""
    log_limit: float | None = None
    """Of decoded log scales, on either side."""
    clip_first: bool = False
    """Boxes are cut to the image before suppression, and those without area dropped."""
    threshold: float = 0.01
    per_class: int | None = 400
    """Candidates."""
    per_map: int | None = None
    keep: int | None = 200
    keep_per_class: bool = False


RECIPES = {
    "ssd.pytorch": Recipe(box_clip="centre", per_class=200, keep=200, keep_per_class=True),
    "lufficc": Recipe(box_clip="centre", per_class=None, keep=100),
    "mmdetection": Recipe(
        mean=(123.675, 116.28, 103.53), background_last=True, whole_sizes=True, log_limit=math.log(62.5),
        clip_first=True, threshold=0.02, per_class=None, per_map=1000,
    ),
    "caffe": Recipe(bgr=True, whole_sizes=True),
    "ssd_keras": Recipe(bgr=True, per_class=None),
    "vgg16_reducedfc": Recipe(),
    "torchvision_vgg16": Recipe(
        mean=(0.485 * 255, 0.456 * 255, 0.406 * 255), std=(0.229 * 255, 0.224 * 255, 0.225 * 255)
    ),
    "torchvision_features": Recipe(mean=(0.48235 * 255, 0.45882 * 255, 0.40784 * 255)),
    "caffe_vgg16_reduced": Recipe(bgr=True),
    "caffe_vgg16": Recipe(bgr=True, mean=(123.68, 116.779, 103.939)),
    "keras_vgg16": Recipe(bgr=True, mean=(123.68, 116.779, 103.939)),
}  # fmt: skip


class Found(NamedTuple):
    """One detection: xyxy from 0 to 1, label from 1."""

    label: int
    score: float
    box: tuple[float, float, float, float]


class Reference(NamedTuple):
    layers: Arrays
    """Output of each convolution before its ReLU, and of conv4_3_norm; (h, w, channels), by Caffe's names."""
    default_boxes: np.ndarray
    """cx, cy, w, h from 0 to 1; empty for a trunk, as all that follows."""
    boxes: np.ndarray
    """Decoded: xyxy from 0 to 1, not clipped but where the project does."""
    scores: np.ndarray
    """Background first."""
    detections: list[Found]
    """By descending score."""


def run_reference(
    project: str,
    tensors: Tensors,
    picture: np.ndarray,
    size: int,
    coco_scales: bool,
    priors: Sequence[Any] = (),
    bgr: bool | None = None,
) -> Reference:
    """What the project makes of a picture (h, w, 3), uint8, RGB, warped to ``size``.

    coco_scales: of the default boxes; priors: of Caffe's layers, by source, which then decide; bgr: whether the first
    layer takes blue, green, red, where it is not as the project has it.

    Raises ImportError where torch or torchvision is not installed.
    """
    if project == "torchvision":
        return _run_torchvision(tensors, picture, coco_scales, bool(bgr))
    recipe = RECIPES[project]
    if bgr is not None:
        recipe = recipe._replace(bgr=bgr)
    x = _preprocess(picture, size, recipe)
    layers, sources = _forward(project, tensors, x)
    if not sources:
        return Reference(layers, np.zeros((0, 4)), np.zeros((0, 4)), np.zeros((0, 0)), [])
    offsets, logits, shapes = [], [], []
    for source in sources:
        loc, conf = layers[f"{source}_mbox_loc"], layers[f"{source}_mbox_conf"]
        cells = loc.shape[0]
        boxes = loc.shape[2] // 4
        shapes.append((cells, boxes))
        offsets.append(loc.reshape(-1, 4))
        each = conf.reshape(cells * cells * boxes, -1)
        if recipe.background_last:
            each = np.concatenate([each[:, -1:], each[:, :-1]], axis=1)
            layers[f"{source}_mbox_conf"] = each.reshape(conf.shape)  # as ours, to be compared
        logits.append(each)
    layout = _layout(size, shapes, recipe, coco_scales, priors)
    default_boxes = np.array(list(_default_boxes(size, shapes, layout)), np.float64)
    boxes = _decode(np.concatenate(offsets).astype(np.float64), default_boxes, recipe)
    scores = _softmax(np.concatenate(logits))
    return Reference(layers, default_boxes, boxes, scores, _detect(boxes, scores, shapes, recipe))


# ---- torchvision ----


def _run_torchvision(tensors: Tensors, picture: np.ndarray, coco_scales: bool, bgr: bool) -> Reference:
    import torch
    from torchvision.models.detection import ssd300_vgg16
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator

    state = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    classes = len(state["head.classification_head.module_list.0.bias"]) // 4
    model = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=classes)
    model.load_state_dict(state)
    model.eval()
    if bgr:
        picture = picture[:, :, ::-1]
        model.transform.image_mean = model.transform.image_mean[::-1]
    if not coco_scales:
        ratios, steps = [[2], [2, 3], [2, 3], [2, 3], [2], [2]], [8, 16, 32, 64, 100, 300]
        model.anchor_generator = DefaultBoxGenerator(ratios, scales=list(_SCALES[300, False]), steps=steps)
    layers: Arrays = {}
    names = {
        f"backbone.{'features' if place < 23 else 'extra.0'}.{place if place < 23 else place - 23}": name
        for name, place in _PLACES.items()
    }
    names |= {"backbone.extra.0.7.1": "fc6", "backbone.extra.0.7.3": "fc7"}
    names |= {f"backbone.extra.{n - 5}.{2 * i - 2}": f"conv{n}_{i}" for n in range(6, 10) for i in (1, 2)}
    for k, source in enumerate(("conv4_3_norm", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2")):
        names[f"head.regression_head.module_list.{k}"] = f"{source}_mbox_loc"
        names[f"head.classification_head.module_list.{k}"] = f"{source}_mbox_conf"

    def keep(name: str) -> Any:
        return lambda module, inputs, output: layers.update({name: _hwc(output)})

    for path, module in model.named_modules():
        if path in names:
            module.register_forward_hook(keep(names[path]))

    def keep_norm(module: Any, inputs: Any, outputs: Any) -> None:
        layers["conv4_3_norm"] = _hwc(outputs["0"])

    model.backbone.register_forward_hook(keep_norm)
    heads: dict[str, Any] = {}
    model.head.register_forward_hook(lambda module, inputs, output: heads.update(output))
    anchors: list[Any] = []
    model.anchor_generator.register_forward_hook(lambda module, inputs, output: anchors.extend(output))
    image = torch.from_numpy(picture.transpose(2, 0, 1).copy()).float() / 255
    with torch.no_grad():
        (found,) = model([image])
        decoded = model.box_coder.decode_single(heads["bbox_regression"][0], anchors[0])
    height, width = picture.shape[:2]
    corners = anchors[0].double().numpy() / 300
    default_boxes = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)
    scale = np.array([width, height, width, height])
    detections = [
        Found(int(label), float(score), tuple((box.numpy() / scale).tolist()))
        for label, score, box in zip(found["labels"], found["scores"], found["boxes"], strict=True)
    ]
    boxes = np.clip(decoded.numpy() / 300, 0, 1)
    scores = _softmax(heads["cls_logits"][0].numpy())
    return Reference(layers, default_boxes, boxes, scores, detections)


def _hwc(output: Any) -> np.ndarray:
    return output[0].detach().permute(1, 2, 0).numpy().copy()


# ---- the network ----


def _preprocess(picture: np.ndarray, size: int, recipe: Recipe) -> Any:
    import torch

    x = torch.from_numpy(picture.transpose(2, 0, 1).copy()).float()[None]
    x = torch.nn.functional.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=False)
    mean, std = (torch.tensor(numbers, dtype=torch.float32)[:, None, None] for numbers in (recipe.mean, recipe.std))
    x = (x - mean) / std
    return x.flip(1) if recipe.bgr else x


def _forward(project: str, tensors: Tensors, x: Any) -> tuple[Arrays, list[str]]:
    """Outputs by layer, and the sources of predictions; none for a trunk."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    layers: Arrays = {}
    weight, bias = _suffixes(project)
    stems = {name: stem for name, stem in _stems(project, tensors).items() if stem + weight in tensors}

    def tensor(key: str, name: str) -> Any:
        return torch.from_numpy(np.ascontiguousarray(_in_torchs_order(project, tensors[key], name), np.float32))

    def conv(name: str, x: Any, **options: Any) -> Any:
        x = F.conv2d(x, tensor(stems[name] + weight, name), tensor(stems[name] + bias, name), **options)
        layers[name] = _hwc(x)
        return x

    conv4_3 = x
    for name in _TRUNK:
        x = F.max_pool2d(x, 2, 2, ceil_mode=True) if name == "P" else F.relu(conv(name, x, padding=1))
        if name == "conv4_3":
            conv4_3 = x
    if "fc6" not in stems:
        return layers, []
    x = F.relu(conv("fc6", F.max_pool2d(x, 3, 1, 1), padding=6, dilation=6))
    x = F.relu(conv("fc7", x))
    if "conv4_3_norm" not in stems:
        return layers, []
    scale = tensor(stems["conv4_3_norm"] + weight, "conv4_3_norm")
    normed = scale[:, None, None] * conv4_3 / (conv4_3.square().sum(1, keepdim=True) + 1e-10).sqrt()
    layers["conv4_3_norm"] = _hwc(normed)
    maps = {"conv4_3_norm": normed, "fc7": x}
    extras = [n for n in range(6, 11) if f"conv{n}_1" in stems]
    pooled = "pool6_mbox_loc" in stems
    large = 10 in extras or pooled
    for n in extras:
        x = F.relu(conv(f"conv{n}_1", x))
        padded: dict[str, int] = {"padding": 1} if n == 10 else {"stride": 2, "padding": 1}  # conv10_2 is 4 x 4
        options = padded if n < 8 or large else {}
        maps[f"conv{n}_2"] = x = F.relu(conv(f"conv{n}_2", x, **options))
    if pooled:
        maps["pool6"] = x.mean((2, 3), keepdim=True)
    for name, source in maps.items():
        conv(f"{name}_mbox_loc", source, padding=1)
        conv(f"{name}_mbox_conf", source, padding=1)
    return layers, list(maps)


_WITH_LAYER_NAMES = ("caffe", "ssd_keras", "caffe_vgg16", "caffe_vgg16_reduced", "keras_vgg16")


def _suffixes(project: str) -> tuple[str, str]:
    """Of the keys of a layer's weight and bias."""
    return (".0", ".1") if project in _WITH_LAYER_NAMES else (".weight", ".bias")


def _stems(project: str, tensors: Tensors) -> dict[str, str]:
    """What the keys of each layer that there may be begin with, by Caffe's names."""
    extras = [f"conv{n}_{i}" for n in range(6, 11) for i in (1, 2)]
    sources = ["conv4_3_norm", "fc7", *extras[1::2]]
    names = [*_PLACES, "fc6", "fc7", "conv4_3_norm", *extras]
    if project in _WITH_LAYER_NAMES:
        every = [*names, *(f"{s}_mbox_{kind}" for s in (*sources, "pool6") for kind in ("loc", "conf"))]
        keras = {n: f"block{n[4]}_conv{n[6]}" for n in _PLACES} | {"fc6": "fc1", "fc7": "fc2"}
        return keras if project == "keras_vgg16" else {name: name for name in every}
    if project in ("torchvision_vgg16", "torchvision_features"):
        stems = {name: f"features.{place}" for name, place in _PLACES.items()}
        return stems | ({"fc6": "classifier.0", "fc7": "classifier.3"} if project == "torchvision_vgg16" else {})
    sequence = {**_PLACES, "fc6": 31, "fc7": 33}
    if project == "vgg16_reducedfc":
        return {name: str(place) for name, place in sequence.items()}
    if project == "ssd.pytorch":
        trunk, norm, extra, box, label = "vgg.{}", "L2Norm", "extras.{}", "loc.{}", "conf.{}"
    elif project == "lufficc" and "l2_norm.weight" in tensors:
        trunk, norm, extra = "vgg.{}", "l2_norm", "extras.{}"
        box, label = "regression_headers.{}", "classification_headers.{}"
    elif project == "lufficc":
        trunk, norm, extra = "backbone.vgg.{}", "backbone.l2_norm", "backbone.extras.{}"
        box, label = "box_head.predictor.reg_headers.{}", "box_head.predictor.cls_headers.{}"
    elif project == "mmdetection" and "neck.l2_norm.weight" in tensors:
        trunk, norm, extra = "backbone.features.{}", "neck.l2_norm", "neck.extra_layers.{0}.{1}.conv"
        box, label = "bbox_head.reg_convs.{}.0", "bbox_head.cls_convs.{}.0"
    else:
        trunk, norm, extra = "backbone.features.{}", "backbone.l2_norm", "backbone.extra.{}"
        box, label = "bbox_head.reg_convs.{}", "bbox_head.cls_convs.{}"
    stems = {name: trunk.format(place) for name, place in sequence.items()} | {"conv4_3_norm": norm}
    for number, name in enumerate(extras):
        stems[name] = extra.format(*divmod(number, 2)) if "{0}" in extra else extra.format(number)
    for number, source in enumerate(sources):
        stems |= {f"{source}_mbox_loc": box.format(number), f"{source}_mbox_conf": label.format(number)}
    return stems


def _in_torchs_order(project: str, array: np.ndarray, name: str) -> np.ndarray:
    """A kernel as (out, in, height, width); of a full classifier every fourth unit, of fc6 rows and columns 0, 3, 6."""
    if project in ("keras_vgg16", "ssd_keras") and array.ndim == 4:
        return np.einsum("hwio->oihw", array)
    if array.ndim == 2:
        of_keras = project == "keras_vgg16"
        units = array.T if of_keras else array
        units = units[[4 * u for u in range(len(units) // 4)]]
        if name == "fc7":
            return units[:, [4 * u for u in range(units.shape[1] // 4)], None, None]
        grid = units.reshape((len(units), 7, 7, -1) if of_keras else (len(units), -1, 7, 7))
        grid = np.einsum("ohwi->oihw", grid) if of_keras else grid
        return grid[:, :, [0, 3, 6]][:, :, :, [0, 3, 6]]
    if array.ndim == 1 and name in ("fc6", "fc7") and project in ("keras_vgg16", "torchvision_vgg16", "caffe_vgg16"):
        return array[[4 * u for u in range(len(array) // 4)]]
    return array


# ---- default boxes ----


class _Map(NamedTuple):
    """Lengths in pixels."""

    least: float
    greatest: float | None
    ratios: tuple[float, ...]
    step: float
    clip: str


# Of the side; every map's greatest size is the next one's least.
_SCALES = {
    (300, False): (0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05),
    (300, True): (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05),
    (512, False): (0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05),
    (512, True): (0.04, 0.1, 0.26, 0.42, 0.58, 0.74, 0.9, 1.06),
}


def _layout(
    size: int, shapes: Sequence[tuple[int, int]], recipe: Recipe, coco_scales: bool, priors: Sequence[Any]
) -> list[_Map]:
    """Of each map, from its cells along a side and boxes in a cell."""
    if priors:
        return [
            _Map(
                int(p.min_sizes[0]),
                int(p.max_sizes[0]) if p.max_sizes else None,
                p.aspect_ratios,
                p.step or size / cells,
                "corner" if p.clip else "",
            )
            for p, (cells, _) in zip(priors, shapes, strict=True)
        ]
    ratios = [(2.0, 3.0) if boxes == 6 else (2.0,) for _, boxes in shapes]
    if shapes[0][1] == 3:  # the first versions: no second square on the first map, cells of the map's size
        least = [35, 75, 155, 235, 315, 395, 475, 555] if size == 500 else [30, 60, 114, 168, 222, 276, 330]
        greatest: list[float | None] = [None, *least[2:]]
        steps = [size / cells for cells, _ in shapes]
        return [_Map(*row, "corner") for row in zip(least, greatest, ratios, steps, strict=False)]
    sizes = [round(size * scale, 2) for scale in _SCALES[size, coco_scales]]
    sizes = [float(int(number)) for number in sizes] if recipe.whole_sizes else sizes
    if recipe.keep == 100 and size == 512 and not coco_scales:  # a slip in lufficc's config
        sizes[-1] = 537.65
    steps = [8, 16, 32, 64, 100, 300] if size == 300 else [8, 16, 32, 64, 128, 256, 512]
    return [_Map(*row, recipe.box_clip) for row in zip(sizes, sizes[1:], ratios, steps, strict=False)]


def _default_boxes(size: int, shapes: Sequence[tuple[int, int]], layout: Sequence[_Map]) -> Iterator[list[float]]:
    for (cells, _), of_map in zip(shapes, layout, strict=True):
        sides = [(of_map.least, of_map.least)]
        if of_map.greatest is not None:
            sides.append((math.sqrt(of_map.least * of_map.greatest),) * 2)
        for ratio in of_map.ratios:
            sides.append((of_map.least * ratio**0.5, of_map.least / ratio**0.5))
            sides.append((of_map.least / ratio**0.5, of_map.least * ratio**0.5))
        for row in range(cells):
            for column in range(cells):
                for width, height in sides:
                    box = [(column + 0.5) * of_map.step, (row + 0.5) * of_map.step, width, height]
                    yield _clipped([number / size for number in box], of_map.clip)


def _clipped(box: list[float], clip: str) -> list[float]:
    if clip == "centre":
        return [min(max(number, 0.0), 1.0) for number in box]
    if clip == "corner":
        x, y, w, h = box
        x1, x2, y1, y2 = (min(max(v, 0.0), 1.0) for v in (x - w / 2, x + w / 2, y - h / 2, y + h / 2))
        return [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
    return box


# ---- from outputs to detections ----


def _decode(offsets: np.ndarray, default_boxes: np.ndarray, recipe: Recipe) -> np.ndarray:
    dx, dy, dw, dh = (offsets * [0.1, 0.1, 0.2, 0.2]).T
    x, y, w, h = default_boxes.T
    if recipe.log_limit is not None:
        dw, dh = (np.clip(d, -recipe.log_limit, recipe.log_limit) for d in (dw, dh))
    cx, cy, width, height = x + dx * w, y + dy * h, w * np.exp(dw), h * np.exp(dh)
    boxes = np.stack([cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2], axis=1)
    return np.clip(boxes, 0, 1) if recipe.clip_first else boxes


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _detect(boxes: np.ndarray, scores: np.ndarray, shapes: Sequence[tuple[int, int]], recipe: Recipe) -> list[Found]:
    """Suppression class by class, a box at a time; clipped at the end."""
    allowed = np.ones(scores.shape, bool)
    if recipe.per_map is not None:
        allowed[:] = False
        start = 0
        for cells, count in shapes:
            stop = start + cells * cells * count
            ranked = np.argsort(-scores[start:stop, 1:], axis=None, kind="stable")[: recipe.per_map]
            rows, columns = np.unravel_index(ranked, (stop - start, scores.shape[1] - 1))
            allowed[start + rows, 1 + columns] = True
            start = stop
    if recipe.clip_first:
        allowed &= ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))[:, None]
    found: list[Found] = []
    for label in range(1, scores.shape[1]):
        ranked = np.argsort(-scores[:, label], kind="stable")
        eligible = [i for i in ranked if scores[i, label] > recipe.threshold and allowed[i, label]]
        remaining = np.array(eligible[: recipe.per_class], int)
        kept = []
        while len(remaining):
            best, remaining = remaining[0], remaining[1:]
            kept.append(best)
            remaining = remaining[_overlap(boxes[best], boxes[remaining]) <= 0.45]
        found += [Found(label, float(scores[i, label]), tuple(np.clip(boxes[i], 0, 1).tolist())) for i in kept]
    found.sort(key=lambda f: -f.score)
    return found if recipe.keep_per_class else found[: recipe.keep]


def _overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = np.clip(sides, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return common / np.maximum(areas - common, 1e-300)
