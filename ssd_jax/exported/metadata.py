"""Information that an exported file contains about itself, as JSON.

In ONNX it is the metadata property ``ssd_jax``; docs/export.md says where the other formats have it.
"""

import json
from pathlib import Path
from typing import Any, Literal

import msgspec

import ssd_jax
from ssd_jax.config import Config
from ssd_jax.errors import UserError
from ssd_jax.exported.checksum import PLACEHOLDER

FORMAT_VERSION = 1
"""Version of the metadata, and of the inputs and outputs of the programs. It is increased by incompatible changes."""
METADATA_KEY = "ssd_jax"
"""Name of the metadata in formats that have named properties."""
REDUCTION = (
    "An image with a side longer than max_image_size is reduced first, keeping its aspect ratio, so that its longer "
    "side is max_image_size: PIL.Image.resize with BILINEAR and reducing_gap=3.0. Boxes are in pixels of the reduced "
    "image, to be multiplied by its reduction. All other resizing is part of the program."
)

Weights = Literal["float32", "float16", "int8"]
"""Type in which a file stores the weights."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Trained network that a file was made from."""

    name: str
    """Name of the run folder, model folder, weight file or model, without the path."""
    step: int
    """Training step of the parameters."""
    checkpoint: str = ""
    """Checkpoint of a run: "best" or "last"."""
    license: str = ""
    """License of the weights, with its owner. Empty if it is not known."""


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """Largest differences between a file and the network that it was made from, in some pictures."""

    pictures: int
    """Number of pictures."""
    detections: int
    """Number of detections of the original in these pictures."""
    boxes: float
    """Largest difference of a coordinate of a detected box, in pixels."""
    scores: float
    """Largest difference of the score of a detection."""
    logits: float | None = None
    """Largest difference of a logit of any default box. None if the file cannot tell its logits."""
    alone: int = 0
    """Number of detections that only the file or only the original has, where the scores leave no doubt."""
    near: int = 0
    """Number of detections that only one of them has because of rounding: two scores, a score and the threshold, or an
    overlap and the threshold of non-maximum suppression, are equal except for it."""
    same_order: bool = True
    """Whether both have the same detections in the same order."""
    unrounded_boxes: float | None = None
    """Largest difference of a coordinate from the network whose weights are not rounded, in pixels. None if the file
    does not round them."""
    unrounded_scores: float | None = None
    """Largest difference of a score from the network whose weights are not rounded."""
    unrounded_alone: int | None = None
    """Value of ``alone`` in a comparison with the network whose weights are not rounded."""


class Quantization(msgspec.Struct, frozen=True, kw_only=True):
    """Comparison of a file that computes with integers of 8 bits with the same file in float32."""

    calibration: str = ""
    """Pictures on which the ranges of the activations were estimated, in words."""
    float32_milliseconds: float
    """Median time of a call in float32."""
    int8_milliseconds: float
    """Median time of a call in int8."""
    annotated_pictures: int
    """Number of pictures from which the mAP was computed; 0 if there were none."""
    float32_map: float | None
    """VOC's mAP by area in float32. None if it was not measured."""
    int8_map: float | None
    """VOC's mAP by area in int8. None if it was not measured."""


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a file says about itself."""

    format_version: int = FORMAT_VERSION
    format: str
    """Format of the file, such as ``stablehlo`` or ``onnx``."""
    class_names: tuple[str, ...]
    """Names of the classes in the order of their labels 1 to C."""
    image_size: int
    """Side of the network's input in pixels, to which the program resizes images."""
    max_image_size: int
    """Longest side in pixels of the images that the program gets, see ``reduction``."""
    reduction: str = REDUCTION
    """How larger images are reduced before."""
    nms: bool = True
    """Whether the program returns detections. If not, it returns the boxes and scores of all default boxes."""
    is_resized: bool = True
    """Whether the program resizes uint8 images of any size itself. If not, it takes float32 images of ``image_size``,
    resized by bilinear interpolation without antialiasing, and returns boxes that are normalised to [0, 1]."""
    batch: int | None = None
    """Number of images of each call. None for any number."""
    weights: Weights = "float32"
    """Type of the stored weights."""
    writer: str
    """Program that wrote the file, and its version."""
    jax_version: str = ""
    """Version of JAX that wrote the file."""
    source: Source
    parity: Parity | None = None
    """Comparison with the original when the file was written. None if there was none."""
    quantization: Quantization | None = None
    """Cost and gain of int8. None for other types of weights."""
    config: dict[str, Any]
    """Whole config, with the thresholds and limits of this file in ``detect``."""


def make_metadata(
    format_name: str,
    config: Config,
    source: Source,
    *,
    nms: bool = True,
    batch: int | None = None,
    weights: Weights = "float32",
    jax_version: str = "",
) -> Metadata:
    """Return the metadata of a new file.

    Args:
        format_name: Format of the file.
        config: Config of the network, with the thresholds and limits of the file. Paths of this machine should be
            removed from it.
        source: Trained network that the file is made from.
        nms: Whether the program returns detections.
        batch: Number of images of each call; None for any number.
        weights: Type of the stored weights.
        jax_version: Version of JAX.
    """
    return Metadata(
        format=format_name,
        class_names=config.model.class_names,
        image_size=config.model.image_size,
        max_image_size=config.data.max_image_size,
        nms=nms,
        is_resized=format_name != "tflite",
        batch=batch,
        weights=weights,
        writer=f"ssd-jax {ssd_jax.__version__}",
        jax_version=jax_version,
        source=source,
        config=json.loads(json.dumps(msgspec.to_builtins(config))),  # tuples become lists, as in a file
    )


def drop_comparisons(metadata: Metadata) -> Metadata:
    """Return metadata without the comparisons that were made when the file was written."""
    return msgspec.structs.replace(metadata, parity=None, quantization=None)


def encode_metadata(metadata: Metadata) -> str:
    r"""Return metadata as JSON, with a place for the checksum at the end.

    Bytes of a name that are not UTF-8 become such as ``\udce9``.
    """
    return json.dumps(msgspec.to_builtins(metadata) | {"checksum": PLACEHOLDER}, indent=1)


def decode_metadata(text: str | bytes, file: Path) -> Metadata:
    """Decode the metadata of a file.

    Args:
        text: JSON from the file.
        file: The file, for messages.

    Raises:
        UserError: If the text is not valid, or was written by another version.
    """
    advice = "Copy or export the file again"
    try:
        tree = json.loads(text)  # not by msgspec, which refuses names that are not UTF-8
    except (ValueError, RecursionError):
        raise UserError(f"{file}: its metadata are damaged. {advice}") from None
    version = tree.get("format_version") if isinstance(tree, dict) else None
    if not isinstance(version, int):
        raise UserError(f"{file}: its metadata are damaged: format_version is missing. {advice}")
    if version != FORMAT_VERSION:
        writer = tree.get("writer", "an unknown program")
        raise UserError(
            f"{file}: format version {version}, written by {writer}, but ssd-jax {ssd_jax.__version__} reads version "
            f"{FORMAT_VERSION}. Export the file again with this version, or install the one that wrote it"
        )
    if "checksum" not in tree:
        raise UserError(f"{file}: its metadata are damaged: the checksum is missing. {advice}")
    try:
        return msgspec.convert(tree, Metadata)
    except msgspec.ValidationError as error:
        raise UserError(f"{file}: its metadata are damaged: {error}. {advice}") from None
