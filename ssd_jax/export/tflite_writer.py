"""Write TFLite files, which LiteRT runs. See `ssd_jax.export.formats.Writer`."""

from pathlib import Path
from typing import Any

from ssd_jax.errors import convert_errors
from ssd_jax.export.network import Network
from ssd_jax.export.pictures import Canvases
from ssd_jax.exported.metadata import Metadata
from ssd_jax.exported.tflite_file import save_file
from ssd_jax.optional_packages import import_package
from ssd_jax.runtime.quiet_stderr import suppress_stderr


def write(network: Network, metadata: Metadata, file: Path) -> None:
    """Write a network to a TFLite file."""
    with suppress_stderr(), convert_errors(f"{file}: TensorFlow can't convert the network"):
        program = _convert(network, metadata)
    save_file(file, program, metadata)


def _convert(network: Network, metadata: Metadata) -> bytes:
    tf = import_package("tensorflow", "prepare")
    from ssd_jax.export.tflite_network import compute_boxes_and_scores

    side = network.config.model.image_size

    def detect(images: Any) -> dict[str, Any]:
        boxes, scores = compute_boxes_and_scores(images, network.config, network.params)
        return {"boxes": boxes, "scores": scores}

    images = tf.TensorSpec((metadata.batch, side, side, 3), tf.float32, name="images")
    module = tf.Module()
    module.detect = tf.function(detect, input_signature=[images], autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.detect.get_concrete_function()], module)
    return converter.convert()


def compute_logits(network: Network, metadata: Metadata, file: Path, batch: Canvases) -> None:
    """Return None, because a TFLite file has no other outputs than its own."""
