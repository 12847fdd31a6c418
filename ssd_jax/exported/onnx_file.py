"""Read and run ONNX files with onnxruntime, of the extra ``onnx``. JAX is not imported."""

from pathlib import Path
from typing import Any

from ssd_jax.errors import UserError, convert_errors
from ssd_jax.exported.checksum import check_content, insert_checksum
from ssd_jax.exported.metadata import METADATA_KEY, Metadata, decode_metadata, encode_metadata
from ssd_jax.exported.program import Images, Outputs, Program, RawOutputs
from ssd_jax.files import convert_read_errors, write_bytes
from ssd_jax.optional_packages import import_package


class OnnxProgram(Program):
    """A program that onnxruntime runs."""

    def __init__(self, session: Any, metadata: Metadata) -> None:
        """Create a program from an ``onnxruntime.InferenceSession``."""
        self.metadata = metadata
        self._session = session

    def run(self, images: Images) -> Outputs | RawOutputs:
        kind = Outputs if self.metadata.nms else RawOutputs
        return kind(*self._session.run(list(kind._fields), {"images": images}))


def read_program(file: Path, *, is_checked: bool = True) -> OnnxProgram:
    """Read an ONNX file that ``ssd-jax export`` wrote.

    Args:
        file: The file.
        is_checked: Whether to compare the content with its checksum.

    Raises:
        UserError: If the file cannot be read, was changed, was not written by ``ssd-jax export``, or if onnxruntime is
            missing.
    """
    import_package("onnxruntime", "onnx")
    with convert_read_errors(file):
        content = file.read_bytes()
    if is_checked:
        check_content(file, content)
    with convert_errors(f"{file}: the file is damaged", "Copy or export it again."):
        session = create_session(content)
        # Texts of the metadata are decoded here, which fails if they are damaged.
        metadata = session.get_modelmeta().custom_metadata_map
    text = metadata.get(METADATA_KEY)
    if text is None:
        raise UserError(f"{file}: was not written by `ssd-jax export`, because it has no metadata named {METADATA_KEY}")
    return OnnxProgram(session, decode_metadata(text, file))


def create_session(content: bytes) -> Any:
    """Return an ``onnxruntime.InferenceSession``, on a GPU if the installed onnxruntime can use one.

    Args:
        content: Content of an ONNX file.
    """
    onnxruntime = import_package("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, too
    # TF32 changes scores by about 1e-3.
    providers = [("CUDAExecutionProvider", {"use_tf32": 0}), ("CPUExecutionProvider", {})]
    available = onnxruntime.get_available_providers()
    return onnxruntime.InferenceSession(
        content, options, providers=[provider for provider in providers if provider[0] in available]
    )


def save_model(model: Any, file: Path, metadata: Metadata) -> None:
    """Write an ``onnx.ModelProto`` with metadata.

    Raises:
        UserError: If the file cannot be written.
    """
    onnx = import_package("onnx", "onnx")
    onnx.helper.set_model_props(model, {METADATA_KEY: encode_metadata(metadata)})
    write_bytes(file, insert_checksum(model.SerializeToString()))


def replace_metadata(file: Path, metadata: Metadata) -> None:
    """Replace the metadata of an ONNX file.

    Raises:
        UserError: If the file cannot be read or written.
    """
    onnx = import_package("onnx", "onnx")
    with convert_read_errors(file):
        model = onnx.load_model_from_string(file.read_bytes())
    save_model(model, file, metadata)
