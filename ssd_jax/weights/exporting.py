"""Export the parameters of a run with the keys and axes of torchvision or ssd.pytorch."""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from ssd_jax.config import Config, DefaultBoxes, Model
from ssd_jax.errors import UserError
from ssd_jax.files import convert_write_errors
from ssd_jax.inference.restoring import restore_params
from ssd_jax.models.parameters import Params
from ssd_jax.runs import run_folder
from ssd_jax.runtime import sharding
from ssd_jax.weights.formats.safetensors_file import write_safetensors
from ssd_jax.weights.key_mappings import KEY_MAPPINGS, KeyMapping

Project = Literal["torchvision", "ssd.pytorch"]
"""Names of the projects that weights can be exported for."""


class Exported(NamedTuple):
    """Result of exporting the weights of a run."""

    config: Config
    """Config of the run."""
    step: int
    """Training step of the exported checkpoint."""
    mapping: KeyMapping
    """Key mapping of the written file."""


def export_weights(
    run: Path, file: Path, project: Project = "torchvision", checkpoint: Literal["best", "last"] = "best"
) -> Exported:
    """Write the weights of a run to a safetensors file that torchvision or ssd.pytorch can load.

    Args:
        run: Run folder of a full-width network without normalisation layers.
        file: File to write, with the suffix .safetensors.
        project: Project that will load the file.
        checkpoint: Checkpoint to export.

    Returns:
        The config of the run, the step of the checkpoint, and the key mapping of the file.

    Raises:
        UserError: If the project cannot build this network, the file exists already, or it cannot be written.
    """
    if file.exists():
        raise UserError(f"--out {file}: the file exists already. Choose another name")
    if file.suffix != ".safetensors":
        raise UserError(f"--out {file}: the file is written as safetensors, so its name must end in .safetensors")
    config = run_folder.read_config(run)
    run_folder.check_is_detector(config, run)
    mapping = find_export_mapping(config.model, project)
    params, step = restore_params(run, config, checkpoint)
    with convert_write_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(file, to_tensors(sharding.fetch(params), mapping))
    return Exported(config, step, mapping)


def find_export_mapping(model: Model, project: Project) -> KeyMapping:
    """Return the key mapping that a project uses for a network.

    Raises:
        UserError: If the project cannot build this network.
    """
    if model.norm != "none":
        raise UserError(f"model.norm is '{model.norm}': {project} has no such layers. Only norm 'none' can be exported")
    if model.width != 1:
        raise UserError(f"model.width is {model.width}: {project} supports only width 1, the channels of VGG16")
    if model.default_boxes.variances != (0.1, 0.1, 0.2, 0.2):
        variances = model.default_boxes.variances
        raise UserError(f"default_boxes.variances is {variances}: {project} supports only 0.1, 0.1, 0.2, 0.2")
    if project == "torchvision":
        _check_torchvision_boxes(model.default_boxes)
    mappings = [mapping for mapping in KEY_MAPPINGS["torch"] if mapping.project == project and mapping.network]
    for mapping in mappings:
        if _matches_network(mapping, model):
            return mapping
    raise UserError(
        f"the network has feature maps of sizes {model.feature_map_sizes} with {model.default_boxes.boxes_per_cell} "
        f"default boxes per cell. Only {' and '.join(mapping.title for mapping in mappings)} can be exported"
    )


def _matches_network(mapping: KeyMapping, model: Model) -> bool:
    """Return whether a model has the layers of the network that a key mapping belongs to."""
    network = mapping.network
    return network is not None and (
        (network.extras, network.global_pool, network.boxes_per_cell)
        == (model.extras, model.global_pool, model.default_boxes.boxes_per_cell)
    )


def _check_torchvision_boxes(boxes: DefaultBoxes) -> None:
    """Raise UserError if torchvision's DefaultBoxGenerator cannot make these default boxes."""
    if boxes.max_sizes[:-1] != boxes.min_sizes[1:] or boxes.clip not in ("none", "sizes"):
        raise UserError(
            "torchvision uses the smallest size of the next feature map as the largest size of a feature map, and "
            f"clips only width and height. These default boxes have min_sizes {boxes.min_sizes}, max_sizes "
            f"{boxes.max_sizes} and clip '{boxes.clip}'"
        )


def to_tensors(params: Params, mapping: KeyMapping) -> dict[str, np.ndarray]:
    """Convert our parameters to the tensors of a weight file, by key. Importing them gives the same parameters."""
    flat = flatten_dict(params, sep="/")
    tensors = {}
    for path, (key, conversion) in mapping.entries.items():
        if conversion.dump is None:
            raise ValueError(f"{mapping.title} cannot be exported: loading drops a part of its tensor for {path}")
        tensors[key] = np.ascontiguousarray(conversion.dump(np.asarray(flat[path])))
    return tensors


def make_torchvision_code(config: Config, file: str) -> str:
    """Return Python code that loads an exported file with torchvision.

    The code sets the preprocessing, default boxes and thresholds of ``config``. Two things cannot be set in
    torchvision: the upper limit of the decoded log scales, and how candidates are selected before NMS.
    """
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
model.eval()  # expects RGB images with values from 0 to 1"""
