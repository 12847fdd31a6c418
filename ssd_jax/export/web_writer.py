"""Write pages that run an ONNX file in the browser. See `ssd_jax.export.formats.Writer`."""

from pathlib import Path

from ssd_jax.export import onnx_writer, web_runtime
from ssd_jax.export.network import Network
from ssd_jax.exported.metadata import Metadata
from ssd_jax.files import write_bytes
from ssd_jax.web_page.page import CONFIG_NAME, PageConfig, encode_page_config, read_page_files

compute_logits = onnx_writer.compute_logits


def write(network: Network, metadata: Metadata, file: Path) -> None:
    """Write a network to an ONNX file, and the page that runs it into the same folder."""
    archive = web_runtime.provide_archive(network.options.runtime)
    onnx_writer.write(network, metadata, file)
    config = PageConfig(
        backend="onnx",
        name=metadata.source.name,
        class_names=metadata.class_names,
        score_threshold=network.config.detect.score_threshold,
        license=metadata.source.license,
        about=f"Step {metadata.source.step}, exported by {metadata.writer}.",
        model=file.name,
        max_image_size=metadata.max_image_size,
    )
    contents = web_runtime.read_runtime_files(archive) | read_page_files()
    contents[CONFIG_NAME] = encode_page_config(config)
    for name, content in contents.items():
        write_bytes(file.with_name(name), content)
