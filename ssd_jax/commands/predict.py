"""``ssd-jax predict``: detect objects in images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ssd_jax import files
from ssd_jax.commands.options import OUT_ADVICE, check_out_folder, initialize_jax, make_out_folder, parse_options
from ssd_jax.errors import UserError, call_all, escape_text
from ssd_jax.plurals import format_count
from ssd_jax.runtime.progress import hide_progress, show_progress

PREDICTIONS = "predictions.json"


@dataclass(frozen=True)
class PredictOptions:
    """Detect objects in images. Write the images with their boxes, and predictions.json."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, model folder, weight file, exported file, name that `ssd-jax models` lists, or hf://USER/NAME."""
    images: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES", help_behavior_hint="(required)")
    ]
    """Image files, or folders of images."""
    out: Path = Path("predictions")
    """Output folder: a new or empty folder, or the output folder of earlier predictions."""
    score: float = 0.5
    """Minimum score of the detections."""
    checkpoint: Literal["best", "last"] = "best"
    """Checkpoint to load. best: the one with the highest mAP (area) on the val split. last: the latest one."""
    quiet: bool = False
    """Show no progress: print only results, warnings and errors."""


def run(argv: Sequence[str]) -> None:
    """Run ``ssd-jax predict`` with the arguments ``argv``."""
    options = parse_options(PredictOptions, "predict", argv)
    if not options.images:
        raise UserError("predict RUN IMAGES: name at least one image or folder of images")
    if not 0 <= options.score <= 1:
        raise UserError(f"--score is {options.score}: expected a number from 0 to 1")
    initialize_jax()
    with hide_progress(options.quiet):
        predict(options)


def predict(options: PredictOptions) -> None:
    """Detect objects in all images, and write predictions.json and the images with their boxes.

    If no image can be read, a predictions.json of earlier predictions remains as it is.

    Raises:
        UserError: If the model or an image does not exist, the output folder cannot be used, or an image cannot be
            read. The results of readable images are written before the error about unreadable ones.
    """
    from ssd_jax.commands.predict_images import find_images
    from ssd_jax.data.image import collect_image_notes
    from ssd_jax.model_zoo.opening import check_model_exists, load
    from ssd_jax.report.draw import class_colours

    check_out_folder(options.out, PREDICTIONS)
    _, (targets, skipped) = call_all(
        partial(check_model_exists, options.run), partial(find_images, options.images, options.out)
    )
    written: list[dict[str, Any]] = []
    unreadable: list[str] = []
    notes: list[str] = []
    best_score = 0.0
    with show_progress("detecting", len(targets), stage="loading and compiling the network") as task:
        detect = load(options.run, options.checkpoint)
        make_out_folder(options.out)
        if not (options.out / PREDICTIONS).exists():
            write_predictions(options.out, [])  # so that the folder can be used again, even if this process is stopped
        colours = class_colours(detect.class_names)
        for file, target in task.count_items(targets.items()):
            try:
                with collect_image_notes() as image_notes:
                    pixels, (width, height) = detect.read(file)
            except UserError as error:
                unreadable += error.args
                continue
            if pixels.shape[:2] != (height, width):
                image_notes.append(
                    f"{width} x {height} pixels; it is drawn at {pixels.shape[1]} x {pixels.shape[0]} pixels"
                )
            notes += [f"{file}: {note}" for note in image_notes]
            detections = detect.detect_reduced(pixels, (width, height), score_threshold=0.0)
            best_score = max(best_score, *(d.score for d in detections), 0.0)
            detections = [d for d in detections if d.score >= options.score]
            save_picture(target, pixels, detections, pixels.shape[1] / width, colours)
            written.append({
                "file": str(file), "width": width, "height": height, "picture": str(target),
                "detections": [{"name": d.name, "score": d.score, "box": list(d.box)} for d in detections],
            })  # fmt: skip
    if written:
        write_predictions(options.out, written)
        count = sum(len(w["detections"]) for w in written)
        hint = "" if count else f" (the best score is {best_score:.2f}; use a lower --score)"
        print(
            f"{format_count(count, 'detections')} with a score of at least {options.score} in "
            f"{format_count(len(written), 'images')}{hint}. "
            f"Written to {options.out}: {PREDICTIONS}, and the images with their boxes"
        )
    for line in [*notes, *skipped]:
        print(escape_text(line))
    if unreadable:
        raise UserError(f"{len(unreadable)} of {len(targets)} images could not be read:", *unreadable)


def write_predictions(out: Path, images: list[dict[str, Any]]) -> None:
    """Write the detections of all images to predictions.json."""
    text = json.dumps({"boxes": "x1, y1, x2, y2 in pixels of the original image", "images": images}, indent=1)
    files.write_text(out / PREDICTIONS, text + "\n")


def save_picture(target: Path, image: Any, detections: Sequence[Any], scale: float, colours: Mapping[str, Any]) -> None:
    """Draw the detections on an image that was reduced by a factor, and save it as a JPEG file."""
    import numpy as np

    from ssd_jax.report.draw import draw_boxes

    boxes = np.array([d.box for d in detections], np.float32).reshape(-1, 4) * np.float32(scale)
    scores = np.array([d.score for d in detections], np.float32)
    picture = draw_boxes(image, boxes, [d.name for d in detections], scores, colours=colours)
    with files.convert_write_errors(target, OUT_ADVICE):
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target, quality=92)
