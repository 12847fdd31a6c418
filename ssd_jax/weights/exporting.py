"""Our parameters in the layouts of torch projects, so that nobody is locked in."""

import numpy as np
from flax.traverse_util import flatten_dict

from ssd_jax.config import Config, DefaultBoxes, Model
from ssd_jax.errors import UserError
from ssd_jax.models.ssd import Params
from ssd_jax.weights.key_mappings import LAYOUTS, Layout


def export_layout(model: Model, project: str) -> Layout:
    """The layout of that project that the network fits. Raises UserError where there is none."""
    if model.norm != "none":
        raise UserError(f"model.norm is '{model.norm}': {project} has no such layers. Only norm 'none' can be exported")
    if model.width != 1:
        raise UserError(f"model.width is {model.width}: {project} has VGG16's channels, width 1")
    if model.default_boxes.variances != (0.1, 0.1, 0.2, 0.2):
        raise UserError(f"default_boxes.variances is {model.default_boxes.variances}: {project} has 0.1, 0.1, 0.2, 0.2")
    fitting = [layout for layout in LAYOUTS["torch"] if layout.project == project and _fits(layout, model)]
    if not fitting:
        titles = " and ".join(layout.title for layout in LAYOUTS["torch"] if layout.project == project)
        raise UserError(
            f"the network has maps of {model.feature_map_sizes} with {model.default_boxes.boxes_per_cell} default "
            f"boxes in a cell. What can be exported is {titles}"
        )
    return fitting[0]


def _fits(layout: Layout, model: Model) -> bool:
    network = layout.network
    return network is not None and (
        (network.extras, network.global_pool, network.boxes_per_cell)
        == (model.extras, model.global_pool, model.default_boxes.boxes_per_cell)
    )


def to_layout(params: Params, layout: Layout) -> dict[str, np.ndarray]:
    """Every parameter under the layout's key, in its order of axes: the inverse of importing, bit for bit."""
    flat = flatten_dict(params, sep="/")
    tensors = {}
    for path, entry in layout.entries.items():
        if entry.dump is None:
            raise ValueError(f"{layout.title} holds more than {path}")
        tensors[entry.key] = np.ascontiguousarray(entry.dump(np.asarray(flat[path])))
    return tensors


def torchvision_code(config: Config, file: str) -> str:
    """Lines of Python with which torchvision takes the file, with preprocessing, default boxes and thresholds of this
    config. Its bound on the growth of boxes, and its cut before suppression, stay its own."""
    model, detect = config.model, config.detect
    boxes = model.default_boxes
    scales = [float(size) / boxes.image_size for size in (*boxes.min_sizes, boxes.max_sizes[-1] or 0)]
    ratios = [[int(r) if r == int(r) else r for r in row] for row in boxes.aspect_ratios]
    steps = [int(step) if step == int(step) else step for step in boxes.steps or ()]
    mean, std = ([number / 255 for number in numbers] for numbers in (model.mean, model.std))
    return f"""\
from safetensors.torch import load_file
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator

model = ssd300_vgg16(
    weights=None, weights_backbone=None, num_classes={model.num_classes}, image_mean={mean}, image_std={std},
    score_thresh={detect.score_threshold}, nms_thresh={detect.nms_iou_threshold},
    topk_candidates={detect.top_k}, detections_per_img={detect.max_detections},
)
model.anchor_generator = DefaultBoxGenerator(
    {ratios}, scales={scales}, steps={steps or None}, clip={boxes.clip == "sizes"}
)
model.load_state_dict(load_file({file!r}))
model.eval()  # takes RGB from 0 to 1"""


def check_boxes_for_torchvision(boxes: DefaultBoxes) -> None:
    """Raises UserError where its generator of default boxes can't make these."""
    if boxes.max_sizes[:-1] != boxes.min_sizes[1:] or boxes.clip not in ("none", "sizes"):
        raise UserError(
            "torchvision's default boxes have the next map's smallest size as the largest, and only width and height "
            f"are clipped. These have sizes {boxes.min_sizes} to {boxes.max_sizes} and clip '{boxes.clip}'"
        )
