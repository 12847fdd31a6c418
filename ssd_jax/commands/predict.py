"""``ssd-jax predict``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from tqdm.auto import tqdm

from ssd_jax import files
from ssd_jax.commands.options import OTHER_OUT, check_out, make_out, prepare
from ssd_jax.data.image import read_image
from ssd_jax.errors import UserError
from ssd_jax.inference import detector
from ssd_jax.report.draw import class_colours, draw_boxes

PREDICTIONS = "predictions.json"


@dataclass(frozen=True)
class PredictOptions:
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """Images, and folders with images."""
    out: Path = Path("predictions")
    """Folder for the annotated pictures and predictions.json: a new one, or that of earlier predictions."""
    score: float = 0.5
    """Show and write detections from this score up."""
    checkpoint: Literal["best", "last"] = "best"


def predict(argv: Sequence[str]) -> None:
    """predict RUN IMAGES...: annotated pictures, and predictions.json with names, scores, boxes in pixels."""
    options = tyro.cli(PredictOptions, args=list(argv), prog="predict", description=predict.__doc__)
    prepare()
    if not options.images:
        raise UserError("predict RUN IMAGES: name at least one image, or a folder with images")
    if not 0 <= options.score <= 1:
        raise UserError(f"--score is {options.score}, must lie in [0, 1]")
    check_out(options.out, PREDICTIONS)
    targets = picture_targets(options.images, options.out)
    detect = detector.load(options.run, options.checkpoint)
    make_out(options.out)
    write_predictions(options.out, [])
    colours = class_colours(detect.class_names)
    written, unreadable, best = [], [], 0.0
    for file, target in tqdm(targets.items(), unit="image", dynamic_ncols=True, disable=len(targets) == 1):
        try:
            image = read_image(file)
        except UserError as error:
            unreadable.append(str(error))
            continue
        found = detect(image, score_threshold=0.0)
        best = max(best, *(d.score for d in found), 0.0)
        found = [d for d in found if d.score >= options.score]
        save_picture(target, image, found, colours)
        written.append({
            "file": str(file), "width": image.shape[1], "height": image.shape[0], "picture": str(target),
            "detections": [{"name": d.name, "score": d.score, "box": list(d.box)} for d in found],
        })  # fmt: skip
    write_predictions(options.out, written)
    if written:
        count = sum(len(w["detections"]) for w in written)
        below = "" if count else f" (the best score is {best:.2f}; --score shows lower ones)"
        print(
            f"{count} detections in {len(written)} images from score {options.score} up{below}. Pictures and "
            f"{PREDICTIONS} are in {options.out}"
        )
    if unreadable:
        raise UserError("\n".join([f"{len(unreadable)} of {len(targets)} images could not be read:", *unreadable]))


def picture_targets(images: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Every image to read, and where its annotated picture goes: under out as under the folder named.

    Raises UserError where there are no images, and where two would be written to one file.
    """
    targets: dict[Path, Path] = {}
    for path in images:
        root = path if path.is_dir() else path.parent
        for file in detector.find_images(path, exclude=out):
            targets[file] = picture_path(out, file.relative_to(root))
    sources: dict[Path, Path] = {}
    for file, target in targets.items():
        other = sources.setdefault(target, file)
        if other != file:
            raise UserError(f"{other} and {file} would both be drawn as {target}: give each an --out of its own")
    return targets


def write_predictions(out: Path, images: list[dict[str, Any]]) -> None:
    text = json.dumps({"boxes": "x1, y1, x2, y2 in pixels of the original image", "images": images}, indent=1)
    files.write_text(out / PREDICTIONS, text + "\n")


def picture_path(out: Path, relative: Path) -> Path:
    """Under ``out`` as under the folder read; the ending stays in the name, so a.png and a.jpg do not collide."""
    suffix = relative.suffix.lower()
    return out / (relative if suffix in (".jpg", ".jpeg") else relative.with_name(relative.name + ".jpg"))


def save_picture(target: Path, image: np.ndarray, found: list[detector.Detection], colours: dict) -> None:
    boxes = np.array([d.box for d in found], np.float32).reshape(-1, 4)
    scores = np.array([d.score for d in found], np.float32)
    picture = draw_boxes(image, boxes, [d.name for d in found], scores, colours=colours)
    with files.user_errors_on_write(target, OTHER_OUT):
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target, quality=92)
