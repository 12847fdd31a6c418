"""``ssd-jax predict``: detect objects in images, videos and the pictures of a camera."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ssd_jax.commands.options import check_out_folder, initialize_jax, make_out_folder, parse_options
from ssd_jax.commands.predict_output import OutputOptions
from ssd_jax.data.earlier_output import MARKERS
from ssd_jax.errors import UserError, call_all, escape_text
from ssd_jax.exported.reading import uses_jax
from ssd_jax.files import make_user_path
from ssd_jax.plurals import format_count
from ssd_jax.predictions.formats import describe_written
from ssd_jax.runtime.progress import hide_progress, show_progress
from ssd_jax.runtime.task import Task

if TYPE_CHECKING:  # not imported at run time, so that --help is fast
    from ssd_jax.inputs.finding import FoundInputs
    from ssd_jax.predictions.loop import Summary


@dataclass(frozen=True)
class PredictOptions:
    """Detect objects in images and videos. Write them with boxes, and predictions.json."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, model folder, weight file, exported file, name of a model (`ssd-jax models` lists them), or
    hf://USER/NAME."""
    sources: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCES", help_behavior_hint="(required)")
    ]
    """Image or video files, folders of images, patterns such as "photo*.jpg", lists of paths (.txt files, or - for the
    standard input), http(s) addresses of images, or numbers of cameras."""
    out: Path = Path("predictions")
    """Output folder: a new or empty folder, or the output folder of earlier predictions."""
    output: Annotated[OutputOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=OutputOptions)
    batch: int | None = None
    """Number of images in which objects are detected at the same time. Default: depends on the device."""
    every: int = 1
    """Detect in every n-th frame of videos and cameras, and write a video of these frames."""
    checkpoint: Literal["best", "last"] = "best"
    """Checkpoint to load. best: the one with the highest mAP (area) on the val split. last: the latest one."""
    quiet: bool = False
    """Show no progress: print only results, warnings and errors."""


def run(argv: Sequence[str]) -> int:
    """Run ``ssd-jax predict`` with the arguments ``argv``, and return the exit code."""
    options = parse_options(PredictOptions, "predict", argv)
    if not options.sources:
        raise UserError("predict RUN SOURCES: name at least one image, video or folder of images")
    options.output.check()
    for name, number in (("batch", options.batch), ("every", options.every)):
        if number is not None and number < 1:
            raise UserError(f"--{name} is {number}: expected a number of at least 1")
    if uses_jax(make_user_path(options.run)):  # importing JAX takes half a second
        initialize_jax()
    with hide_progress(options.quiet):
        return predict(options)


def predict(options: PredictOptions) -> int:
    """Detect objects in all pictures, and write the results.

    If no picture can be read, a predictions.json of earlier predictions remains as it is. After Ctrl-C, the results up
    to then are written.

    Returns:
        The exit code: 1 if some sources could not be read, otherwise 0.

    Raises:
        UserError: If the model does not exist, the output folder cannot be used, or no picture can be read.
        KeyboardInterrupt: After Ctrl-C, if not only cameras are read, which have no other end.
    """
    from ssd_jax.inputs.finding import find_inputs
    from ssd_jax.inputs.reading import UNLIMITED, count_pictures, leave_out_unsupported, make_readings
    from ssd_jax.model_zoo.opening import check_model_exists, load
    from ssd_jax.predictions.loop import write_in_order
    from ssd_jax.predictions.targets import choose_targets
    from ssd_jax.predictions.writers import open_writers

    check_out_folder(options.out, *MARKERS)
    _, found = call_all(partial(check_model_exists, options.run), partial(find_inputs, options.sources, options.out))
    found = leave_out_unsupported(found)
    inputs = found.inputs
    targets = dict(zip(inputs, choose_targets(inputs, options.out), strict=True))
    output = options.output
    total = count_pictures(inputs, options.every)
    has_films = any(item.is_film for item in inputs)
    with show_progress(
        "detecting", total, "frame" if has_films else "image", stage="loading and compiling the network"
    ) as task:
        detect = output.adjust(load(options.run, options.checkpoint), options.run)
        make_out_folder(options.out)
        max_side = detect.config.data.max_image_size if output.tile is None else UNLIMITED
        readings = make_readings(inputs, max_side, options.every)
        results = detect.detect_in_order(
            readings, options.batch, output.tile, output.overlap, partial(show_views, task)
        )
        with open_writers(output.formats, options.out, detect.class_names, output.drawing) as writers:
            summary = write_in_order(results, targets, writers, output.select, task.update)
    if summary.count:
        print_summary(summary, options)
    for line in [output.describe_threshold(detect, options.run), *summary.notes, *found.skipped]:
        if line is not None:
            print(escape_text(line))
    error = make_reading_error(summary, found, "images and videos" if has_films else "images")
    if error and not (summary.count or summary.is_interrupted):
        raise error
    if error:
        print(f"error: {error}", file=sys.stderr)
    if summary.is_interrupted and not all(item.kind == "camera" for item in inputs):
        raise KeyboardInterrupt("Stopped. The results up to now are written." if summary.count else "Stopped.")
    return 1 if error else 0


def show_views(task: Task, done: int, total: int) -> None:
    """Show how many views of an image in tiles are done."""
    if task.has_stage:
        task.start_lap()
    task.set_details([f"{done:,} of {total:,} views of an image"])


def make_reading_error(summary: "Summary", found: "FoundInputs", things: str) -> UserError | None:
    """Return an error that names what could not be read, or None if everything could be read.

    Args:
        summary: What was predicted.
        found: The inputs, and the sources that name none.
        things: What the inputs are.
    """
    lines = [*found.unusable, *summary.unreadable]
    if not lines:
        return None
    count, total = summary.unreadable_count + len(found.unusable), len(found.inputs) + len(found.unusable)
    return UserError(f"{count} of {total} {'inputs' if found.unusable else things} could not be read:", *lines)


def print_summary(summary: "Summary", options: PredictOptions) -> None:
    """Print how much was detected, and what was written."""
    output = options.output
    hint = "" if summary.detections else f" (the best score is {summary.best_score:.2f}; use a lower --score)"
    counts = {"images": summary.images, "frames": summary.frames}
    places = " and ".join(format_count(count, name) for name, count in counts.items() if count)
    drawn = " and ".join(name for name, count in (("images", summary.images), ("videos", summary.frames)) if count)
    print(
        f"{format_count(summary.detections, 'detections')} with {output.describe_scores()} in {places}{hint}. "
        f"Written to {options.out}: {describe_written(output.formats, drawn)}"
    )
