"""``ssd-jax export``: write a trained detector to one file, from pixels to boxes, for other programs."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ssd_jax.commands.options import initialize_jax, parse_options
from ssd_jax.errors import escape_text
from ssd_jax.files import convert_read_errors, make_user_path
from ssd_jax.plurals import format_count
from ssd_jax.portability import quote_argument
from ssd_jax.runtime.progress import hide_progress

if TYPE_CHECKING:
    from ssd_jax.exported.metadata import Metadata


@dataclass(frozen=True)
class ExportOptions:
    """Write a trained detector to one file that other programs run: pixels in, boxes out; or write a web page with it.
    The file is compared with the original on eight pictures, and removed if it does not compute the same; the exit code
    is 1 then."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, model folder, weight file, name that `ssd-jax models` lists, or hf://USER/NAME. With
    --accept-changes, an exported file."""
    format: Literal["stablehlo", "onnx", "openvino", "tflite", "web"] = "stablehlo"
    """stablehlo: for JAX and XLA, on CPUs, GPUs and TPUs. onnx: for ONNX Runtime and many others (extra onnx).
    openvino: for Intel's CPUs and GPUs (extra openvino). tflite: for LiteRT on phones (extra prepare). web: a page
    that detects objects in the browser, for any server of files (extra onnx)."""
    out: Path | None = None
    """File to write, or folder for web. Default: the name of RUN with the ending of the format, or with _web."""
    nms: bool = True
    """Whether the file contains non-maximum suppression. With --no-nms, it returns the boxes and scores of all default
    boxes."""
    batch: int | None = None
    """Number of images of each call. Default: any number."""
    score_threshold: float | None = None
    """Boxes with a score of at most this value are not detections. Default: as in the run (0.01)."""
    max_detections: int | None = None
    """Maximum number of detections per image. Default: as in the run (200)."""
    half: bool = False
    """Store the weights as float16, which halves the size."""
    int8: bool = False
    """Compute with integers of 8 bits, only for openvino. The loss of accuracy is measured and printed."""
    runtime: Path | None = None
    """For --format web on a machine without a network: the npm package onnxruntime-web as a file."""
    checkpoint: Literal["best", "last"] = "best"
    """Checkpoint to load. best: the one with the highest mAP (area) on the val split. last: the latest one."""
    data_root: Annotated[str | None, tyro.conf.arg(name="data.root")] = None
    """Folder of a data set whose val split is used for the comparison, and for int8. Default: that of the run."""
    accept_changes: bool = False
    """Give an exported file that another program changed, such as a quantizer, a new checksum, so that it can be used.
    """
    quiet: bool = False
    """Show no progress: print only results, warnings and errors."""


def run(argv: Sequence[str]) -> int:
    """Run ``ssd-jax export`` with the arguments ``argv``, and return the exit code."""
    options = parse_options(ExportOptions, "export", argv)
    initialize_jax()
    if options.accept_changes:
        accept_changes(options.run)
        return 0
    from ssd_jax.export import network
    from ssd_jax.export.run import ParityError, export_model

    content = network.ExportOptions(
        options.nms,
        options.batch,
        options.score_threshold,
        options.max_detections,
        options.half,
        options.int8,
        options.runtime,
    )
    try:
        with hide_progress(options.quiet):
            written = export_model(
                options.run,
                options.format,
                options.out,
                content,
                checkpoint=options.checkpoint,
                data_root=options.data_root,
            )
    except ParityError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    is_page = options.format == "web"
    place = written.file.parent if is_page else written.file
    megabytes = written.size / 1e6
    print(f"{place}: {options.format} of {options.run}, {megabytes:.1f} MB, {describe_program(written.metadata)}")
    print_parity(written.metadata, written.pictures)
    name = quote_argument(str(place))
    if is_page:
        print(f"Next: python -m http.server --bind 127.0.0.1 --directory {name}, then open http://127.0.0.1:8000")
    else:
        print(f"Next: ssd-jax predict {name} IMAGES, or ssd-jax evaluate {name} --data.root FOLDER")
    return 0


def accept_changes(name: str) -> None:
    """Give an exported file a new checksum, and print what to do next."""
    from ssd_jax.exported import reading

    file = make_user_path(name)
    with convert_read_errors(file):
        file.stat()
    reading.accept_changes(file)
    print(
        f"{file}: has a new checksum, and no comparison with the original any more. Measure its accuracy: ssd-jax "
        f"evaluate {quote_argument(str(file))} --data.root FOLDER"
    )


def describe_program(metadata: "Metadata") -> str:
    """Return in a few words what goes into a file's program and what comes out."""
    images = "any number of images" if metadata.batch is None else format_count(metadata.batch, "images at a time")
    outputs = "detections" if metadata.nms else "boxes and scores of all default boxes"
    return f"weights in {metadata.weights}; {images}, {outputs}"


def print_parity(metadata: "Metadata", pictures: str) -> None:
    """Print the comparison of a file with the original."""
    from ssd_jax.export.parity import format_parity

    parity = metadata.parity
    assert parity is not None
    original = "the original with weights rounded to float16" if metadata.weights == "float16" else "the original"
    comparison = format_parity(parity, is_int8=metadata.weights == "int8")
    print(f"Compared with {original}: {comparison} ({escape_text(pictures)}).")
    if parity.unrounded_boxes is not None:
        print(
            "The rounding itself changes the detections of the original: largest differences: boxes "
            f"{parity.unrounded_boxes:.2g} px, scores {parity.unrounded_scores:.2g}; {parity.unrounded_alone} "
            "detections of only one of them. Evaluate the file to see what this does to the mAP."
        )
    if metadata.quantization is not None:
        from ssd_jax.export.quantization import format_quantization

        print(f"int8: {format_quantization(metadata.quantization)}.")
