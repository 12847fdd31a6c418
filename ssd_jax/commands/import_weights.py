"""``ssd-jax import-weights``."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ssd_jax.commands.options import check_new
from ssd_jax.config import Config
from ssd_jax.data.class_names import format_names
from ssd_jax.weights.importing import Imported, import_weights, write_run
from ssd_jax.weights.origins import Scales


@dataclass(frozen=True)
class ImportOptions:
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Weights: .pth, .safetensors, .caffemodel or .h5."""
    out: Path
    """Folder to make; used as that of a run."""
    class_names: tuple[str, ...] = ()
    """Without background, in the order they were trained in; for other classes than VOC's, COCO's, ILSVRC's."""
    scales: Scales | None = None
    """Of the default boxes, where the classes do not tell: coco for VOC weights fine-tuned from COCO."""
    channels: Literal["rgb", "bgr"] | None = None
    """Order that the file's first layer takes, where it is not its project's."""


def import_command(argv: Sequence[str]) -> None:
    """import-weights FILE --out RUN: published weights as the folder of a run, to detect with or to train from."""
    options = tyro.cli(ImportOptions, args=list(argv), prog="import-weights", description=import_command.__doc__)
    check_new(options.out)
    bgr = None if options.channels is None else options.channels == "bgr"
    imported = import_weights(options.file, class_names=options.class_names, scales=options.scales, bgr=bgr)
    write_run(imported, options.out)
    print(f"{options.file}: {imported.layout.title}")
    print("\n".join(described(imported, options.class_names)))
    print(f"Written to {options.out}. {next_step(imported.config, options.out)}")


def described(imported: Imported, given: Sequence[str]) -> list[str]:
    """What was found, and how it is used. given: names of classes that were not found, but said."""
    model, detect = imported.config.model, imported.config.detect
    preprocessing = f"  RGB, minus {model.mean}, over {model.std}"
    if not model.class_names:
        return [f"  layers: {', '.join(imported.params['vgg'])}", preprocessing]
    boxes = model.default_boxes
    found = "" if given else ", by their number; if they are others, --class-names"
    return [
        format_names(f"{len(model.class_names)} classes{found}", model.class_names),
        f"{preprocessing}; warped to {model.image_size} x {model.image_size}",
        f"  {boxes.count} default boxes from {boxes.min_sizes[0]:g} to {boxes.max_sizes[-1]:g} px, clip '{boxes.clip}'",
        f"  scores above {detect.score_threshold}, NMS at {detect.nms_iou_threshold}, at most {detect.max_detections}",
    ]


def next_step(config: Config, out: Path) -> str:
    run = shlex.quote(str(out))
    if not config.model.class_names:
        return f"Train from it: train.py CONFIG --train.pretrained {run}"
    train = f"train.py CONFIG --train.pretrained {run}"
    return f"Next: predict.py {run} IMAGES, evaluate.py {run} --data.root FOLDER, or {train}"
