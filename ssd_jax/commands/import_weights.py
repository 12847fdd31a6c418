"""``ssd-jax import-weights``: convert published weights to a run folder."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ssd_jax.commands.options import check_new_folder, parse_options
from ssd_jax.config import Config
from ssd_jax.errors import UserError
from ssd_jax.files import make_user_path
from ssd_jax.portability import quote_argument


@dataclass(frozen=True)
class ImportOptions:
    """Convert published weights to a run folder, for prediction, evaluation and training."""

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Weight file: .pth, .safetensors, .caffemodel or .h5. Or a model folder, or the name of a model (`ssd-jax models`
    lists them)."""
    out: Path
    """New run folder to write."""
    class_names: tuple[str, ...] = ()
    """Class names without background, in the order of training. They are not needed for the classes of VOC, COCO or
    ILSVRC."""
    scales: Literal["voc", "coco"] | None = None
    """Scales of the default boxes. Default: inferred from the number of classes. Use coco for VOC weights that were
    fine-tuned from COCO."""
    channels: Literal["rgb", "bgr"] | None = None
    """Channel order of the file's first layer. Default: that of the project that published the file."""


def run(argv: Sequence[str]) -> None:
    """Run ``ssd-jax import-weights`` with the arguments ``argv``."""
    options = parse_options(ImportOptions, "import-weights", argv)
    check_new_folder(options.out)
    from ssd_jax.model_zoo import hub
    from ssd_jax.model_zoo.opening import find_model, provide_weight_file

    path, is_address = make_user_path(options.file), hub.is_address(options.file)
    model = None if is_address else find_model(options.file)
    if is_address or path.is_dir() if model is None else model.is_bundled:
        config = _write_model_folder_as_run(options)
    else:
        with provide_weight_file(model) if model else nullcontext(path) as file:
            config = _write_weight_file_as_run(file, options)
    print(f"Written to {options.out}. {format_next_step(config, options.out)}")


def _write_weight_file_as_run(file: Path, options: ImportOptions) -> Config:
    from ssd_jax.weights.importing import import_weights, write_run

    bgr = None if options.channels is None else options.channels == "bgr"
    imported = import_weights(file, class_names=options.class_names, scales=options.scales, bgr=bgr)
    write_run(imported, options.out)
    print(f"{options.file}: {imported.mapping.title}")
    print("\n".join(describe_import(imported, options.class_names)))
    return imported.config


def _write_model_folder_as_run(options: ImportOptions) -> Config:
    """Write a model folder, whose config has all settings, to a run folder, and return the config."""
    from ssd_jax.data.class_names import format_names
    from ssd_jax.model_zoo.opening import open_detector
    from ssd_jax.runtime import sharding
    from ssd_jax.weights.importing import write_params_as_run

    for option, value in (
        ("class-names", options.class_names), ("scales", options.scales), ("channels", options.channels),
    ):  # fmt: skip
        if value:
            raise UserError(f"--{option} is only for weight files of other projects; {options.file} is a model folder")
    model = open_detector(options.file)
    params, step = model.load_params()
    write_params_as_run(model.config, sharding.fetch(params), step, options.out)
    names = model.config.model.class_names
    print(format_names(f"{options.file}: step {step}, {len(names)} classes", names))
    return model.config


def describe_import(imported: Any, class_names: Sequence[str]) -> list[str]:
    """Return lines that describe the classes, preprocessing and postprocessing of imported weights.

    Args:
        imported: The result of ``import_weights``.
        class_names: The class names that the user gave. Empty if they were inferred.
    """
    from ssd_jax.data.class_names import format_names

    model, detect = imported.config.model, imported.config.detect
    preprocessing = f"  preprocessing: RGB minus {model.mean}, divided by {model.std}"
    if not model.class_names:
        return [f"  layers: {', '.join(imported.params['vgg'])}", preprocessing]
    boxes = model.default_boxes
    inferred = "" if class_names else ", inferred from their number; name others with --class-names"
    return [
        format_names(f"{len(model.class_names)} classes{inferred}", model.class_names),
        f"{preprocessing}; resized to {model.image_size} x {model.image_size}",
        f"  {boxes.count} default boxes from {boxes.min_sizes[0]:g} to {boxes.max_sizes[-1]:g} px, clip '{boxes.clip}'",
        f"  score threshold {detect.score_threshold}, NMS IoU threshold {detect.nms_iou_threshold}, at most "
        f"{detect.max_detections} detections",
    ]


def format_next_step(config: Config, out: Path) -> str:
    """Return a sentence that names the commands to use next."""
    run = quote_argument(str(out))
    train = f"ssd-jax train CONFIG --train.pretrained {run}"
    if not config.model.class_names:
        return f"Train from it: {train}"
    return f"Next: ssd-jax predict {run} IMAGES, ssd-jax evaluate {run} --data.root FOLDER, or {train}"
