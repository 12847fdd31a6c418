"""Export of a trained detector: the function behind ``ssd-jax export``."""

import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import msgspec
import numpy as np

from ssd_jax.config import Config
from ssd_jax.data.run_splits import open_split, with_data_root
from ssd_jax.errors import UserError
from ssd_jax.export.formats import WRITERS, Writer, import_writer
from ssd_jax.export.network import ExportOptions, Network, apply_options, make_network
from ssd_jax.export.parity import (
    BOX_TOLERANCE,
    SCORE_TOLERANCE,
    compare_detections,
    format_parity,
    is_within_tolerance,
)
from ssd_jax.export.pictures import CALIBRATION_COUNT, Picture, choose_pictures, place_on_canvases
from ssd_jax.export.quantization import compare_with_float32
from ssd_jax.exported import reading
from ssd_jax.exported.metadata import Metadata, Parity, Source, make_metadata
from ssd_jax.exported.prediction import make_predict
from ssd_jax.files import convert_write_errors, make_safe_file_name, make_user_path
from ssd_jax.inference import program
from ssd_jax.inference.detections import ImageDetections, to_image_detections
from ssd_jax.inference.images import choose_canvas_side
from ssd_jax.inference.stored_program import make_detect_fn
from ssd_jax.model_zoo.model_folder import remove_local_paths
from ssd_jax.model_zoo.opening import open_detector
from ssd_jax.models.parameters import Params
from ssd_jax.runtime import compilation, sharding
from ssd_jax.runtime.progress import show_progress
from ssd_jax.web_page.page import check_page_folder

DEFAULTS = ExportOptions()
_Detect = Callable[[np.ndarray, np.ndarray, np.ndarray], Sequence[Any]]


class ParityError(UserError):
    """Raised if an exported file does not compute the same as the original."""


class ExportedFile(NamedTuple):
    """A file that was written."""

    file: Path
    """The file, or the file with the network in the folder that was written."""
    size: int
    """Size of all written files in bytes."""
    metadata: Metadata
    """Metadata of the file, with its comparison with the original."""
    pictures: str
    """Source of the pictures of the comparison."""


def export_model(
    run: str | Path,
    format_name: str = "stablehlo",
    out: str | Path | None = None,
    options: ExportOptions = DEFAULTS,
    *,
    checkpoint: Literal["best", "last"] = "best",
    data_root: str | None = None,
) -> ExportedFile:
    """Write a trained detector to one file, from pixels to boxes, and compare the file with the original.

    Args:
        run: Run folder, model folder, weight file, name of a model, or address on the Hugging Face Hub.
        format_name: Format of the file, one of `ssd_jax.export.formats.WRITERS`.
        out: File to write, or folder for a web page. None: the name of ``run`` with the ending of the format, in the
            working folder. An existing file or page is replaced, but only if the new one is right.
        options: Options of the content.
        checkpoint: Checkpoint of a run, as for `ssd_jax.load`.
        data_root: Data set to compare on, and to estimate the ranges of int8 on, instead of that of the run.

    Returns:
        The file, its metadata, and the pictures of the comparison.

    Raises:
        ParityError: If the file does not compute the same as the original; it is removed.
        UserError: If the detector cannot be loaded, if an option is out of range, or if the file cannot be written.
    """
    writer = import_writer(format_name)
    _check_options(format_name, options)
    options = _fill_in_defaults(format_name, options)
    model = open_detector(run)
    config = model.config
    if config.model.dtype != "float32" and not WRITERS[format_name].keeps_dtype:
        raise UserError(
            f"{run}: its network computes in {config.model.dtype}, which --format {format_name} does not have. Set "
            "model.dtype to float32 in its config.json, and evaluate it again before the export"
        )
    if data_root is not None:
        config = with_data_root(config, data_root)
        open_split(config, config.data.val_split)  # raises an error if it is not there
    file = _choose_file(format_name, make_safe_file_name(model.short_name), out)
    apply_options(config, options)  # an error about an option should not wait for the parameters
    with show_progress("exporting", stage="loading the network") as task:
        params, step = model.load_params(checkpoint)
        params = sharding.fetch(params)
        calibration, calibration_place = choose_pictures(config, CALIBRATION_COUNT) if options.int8 else ([], "")
        network = make_network(config, params, step, options, calibration)
        source = Source(
            name=model.short_name, step=step, checkpoint=checkpoint if model.folder else "", license=model.license
        )
        metadata = make_metadata(
            _find_file_format(format_name), remove_local_paths(network.config), source,
            nms=options.nms, batch=options.batch, weights=_choose_weights(options), jax_version=jax.__version__,
        )  # fmt: skip
        pictures, place = choose_pictures(config)
        with convert_write_errors(file), _make_temporary_folder(file) as folder:
            written = folder / file.name
            quantizing = f", with int8 calibrated on {len(calibration)} pictures" if options.int8 else ""
            task.start_stage(f"writing the file{quantizing}")
            writer.write(network, metadata, written)
            task.start_stage("comparing the file with the original")
            parity = compare_file(writer, network, params, metadata, written, pictures)
            if not options.int8 and not is_within_tolerance(parity):
                raise ParityError(
                    f"{file}: the file does not compute the same as {run}, and was removed. {format_parity(parity)}. "
                    f"Allowed are {BOX_TOLERANCE} px and {SCORE_TOLERANCE}"
                )
            metadata = msgspec.structs.replace(metadata, parity=parity)
            if options.int8:
                task.start_stage("comparing int8 with float32: time and mAP")
                words = f"{len(calibration)} pictures ({calibration_place})"
                comparison = compare_with_float32(writer, network, metadata, written, pictures, words)
                metadata = msgspec.structs.replace(metadata, quantization=comparison)
            reading.import_reader(metadata.format).replace_metadata(written, metadata)
            parts = list(folder.iterdir())
            size = sum(part.stat().st_size for part in parts)
            for part in parts:
                os.replace(part, file.parent / part.name)
    return ExportedFile(file, size, metadata, place)


@contextmanager
def _make_temporary_folder(file: Path) -> Iterator[Path]:
    """Make a folder beside a file during the ``with`` block. Messages of errors name the file, not the folder."""
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".ssd_jax_") as name:
        folder = Path(name)
        try:
            yield folder
        except UserError as error:
            error.args = tuple(line.replace(str(folder / file.name), str(file)) for line in error.args)
            raise


def compare_file(
    writer: Writer, network: Network, params: Params, metadata: Metadata, file: Path, pictures: Sequence[Picture]
) -> Parity:
    """Compare a written file with the network that it was made from.

    Args:
        writer: Writer of the format.
        network: The network as the writer got it. If its weights are rounded, the file is compared with it, and also
            with the original.
        params: Parameters of the original.
        metadata: Metadata of the file.
        file: The file.
        pictures: Pictures that fit ``data.max_image_size``.
    """
    config = network.config
    side = choose_canvas_side(max(max(p.shape[:2]) for p in pictures), config.data.max_image_size)
    batch = place_on_canvases(pictures, side)
    others = _detect_all(make_predict(reading.read_program(file)), batch, len(pictures))
    unrounded = _detect_all(make_detect_fn(config, params), batch, 1)
    is_rounded = network.options.half
    originals = _detect_all(_make_detect_fn(network), batch, 1) if is_rounded else unrounded
    parity = compare_detections(originals, others, config)
    logits = writer.compute_logits(network, metadata, file, batch)
    if logits is not None:
        expected = _compute_logits(config, *((network.params, True) if is_rounded else (params, False)), batch)
        parity = msgspec.structs.replace(parity, logits=float(np.abs(logits.astype(np.float64) - expected).max()))
    if is_rounded:
        rounding = compare_detections(unrounded, others, config)
        parity = msgspec.structs.replace(
            parity, unrounded_boxes=rounding.boxes, unrounded_scores=rounding.scores, unrounded_alone=rounding.alone
        )
    return parity


def _detect_all(detect: _Detect, batch: Sequence[np.ndarray], batch_size: int) -> list[ImageDetections]:
    """Return the detections in all images of a batch, which are processed ``batch_size`` at a time."""
    detections: list[ImageDetections] = []
    for start in range(0, len(batch[0]), batch_size):
        canvas, height, width = (array[start : start + batch_size] for array in batch)
        outputs = sharding.fetch(detect(canvas, height, width))
        detections += [
            to_image_detections(outputs, slot, int(width[slot]), int(height[slot])) for slot in range(len(canvas))
        ]
    return detections


def _make_detect_fn(network: Network) -> _Detect:
    """Return a function that detects objects with the parameters of a network as they are, by the original program."""
    predict = program.make_predict(network.config, sharding.single_device_mesh(), is_standardized=True)
    jitted = jax.jit(predict, compiler_options=compilation.compiler_options())
    return lambda *batch: jitted(network.params, *batch)


def _compute_logits(config: Config, params: Params, is_standardized: bool, batch: Sequence[np.ndarray]) -> np.ndarray:
    forward = program.make_forward(config, sharding.single_device_mesh(), is_standardized=is_standardized)
    return np.asarray(jax.jit(forward)(params, *batch).logits)


def _choose_weights(options: ExportOptions) -> Literal["float32", "float16", "int8"]:
    if options.int8:
        return "int8"
    return "float16" if options.half else "float32"


def _check_options(format_name: str, options: ExportOptions) -> None:
    for field in dataclasses.fields(options):
        is_given = getattr(options, field.name) != getattr(DEFAULTS, field.name)
        if is_given and field.name not in WRITERS[format_name].options:
            raise UserError(f"--format {format_name} has no option --{field.name.replace('_', '-')}")
    if options.half and options.int8:
        raise UserError("--half and --int8 are both given. Choose one of them")


def _fill_in_defaults(format_name: str, options: ExportOptions) -> ExportOptions:
    """Return the options with the defaults of a format in place of those that were not given."""
    defaults = WRITERS[format_name].defaults.items()
    changes = {name: value for name, value in defaults if getattr(options, name) == getattr(DEFAULTS, name)}
    return dataclasses.replace(options, **changes)


def _find_file_format(format_name: str) -> str:
    """Return the format of the file with the network, one of `ssd_jax.exported.reading.FORMATS`."""
    return WRITERS[format_name].file_format or format_name


def _choose_file(format_name: str, name: str, out: str | Path | None) -> Path:
    """Return the file to write the network to, and create its folder.

    Args:
        format_name: Format.
        name: Name of the network, from which a default is made.
        out: File or folder that the user named.

    Raises:
        UserError: If the user named something that is not to be overwritten, or the folder cannot be created.
    """
    folder_file = WRITERS[format_name].folder_file
    if folder_file:
        folder = make_user_path(f"{name}_{format_name}" if out is None else out)
        check_page_folder(folder)
        file = folder / folder_file
    else:
        ending = reading.FORMATS[format_name].ending
        file = make_user_path(f"{name}{ending}" if out is None else out)
        if file.suffix.lower() != ending:
            raise UserError(f"--out {file}: expected a name with the ending {ending} for --format {format_name}")
        if file.is_dir():
            raise UserError(f"--out {file}: this is a folder. Name a file")
    with convert_write_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    return file
