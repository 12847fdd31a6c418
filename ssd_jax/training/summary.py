"""Texts that ``train`` prints about a run before the first step and after the last one."""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jax import Device

from ssd_jax.config import Config, Train
from ssd_jax.data.source import Source
from ssd_jax.errors import escape_text
from ssd_jax.metrics.tables import format_percent, format_voc
from ssd_jax.models.parameters import compute_parameter_shapes
from ssd_jax.plurals import format_count
from ssd_jax.portability import quote_argument
from ssd_jax.runs.log import BEST_METRIC, read_log, read_results
from ssd_jax.runs.run_folder import list_checkpoint_steps
from ssd_jax.training.length import describe_length, describe_rule

DATA_WAIT_WARNING = 0.1
"""Fraction of the training time. If more time is spent waiting for data, this is reported."""
EVALUATION_COST = 0.5
"""Time to evaluate an image relative to the time to train on one, before it is measured. Training also computes the
gradient, which costs twice as much as the network itself; evaluation also suppresses overlapping detections."""
_MAX_NAMES = 60
"""Maximum length of the list of class names, in characters."""


class Evaluation(NamedTuple):
    """Result of an evaluation on the val split."""

    step: int
    """Step after which the network was evaluated."""
    metrics: dict[str, Any]
    """Result of `ssd_jax.evaluation.evaluator.compute_metrics`."""


def format_headline(workdir: Path, resumed: bool, steps: int | None) -> str:
    """Return a text that says whether a run is new, resumed or finished.

    Args:
        workdir: Run folder.
        resumed: Whether the folder has a checkpoint.
        steps: Number of steps of the whole run; None if it is not known yet.
    """
    if not resumed:
        return f"New run in {workdir}"
    done = max(list_checkpoint_steps(workdir / "checkpoints"))
    if steps is None or done < steps:
        return f"Resuming {workdir}: {done}{'' if steps is None else f' of {steps}'} steps are done"
    return (
        f"The run in {workdir} is finished: all {steps} steps are done.\n"
        "  To train longer, start another run: --workdir NEW and --train.steps N,\n"
        "  --train.epochs E or --train.minutes M"
    )


def format_run(config: Config, train_images: int, devices: Sequence[Device]) -> str:
    """Return lines about the classes, the network, the devices and the steps of a run.

    Args:
        config: Config of the run, with class names.
        train_images: Number of images of the train split.
        devices: Devices that the run uses.
    """
    model, train = config.model, config.train
    count = sum(math.prod(shape) for shape in compute_parameter_shapes(model).values())
    evaluation = (
        "at most six times"
        if train.eval_every is None
        else f"every {train.eval_every} steps".replace("every 1 steps", "every step")
    )
    rows = {
        "classes": f"{len(model.class_names)}: {_join_names(model.class_names)}",
        "network": f"{model.image_size} px, {model.default_boxes.count} default boxes, {count:,} parameters",
        "device": _describe_devices(devices),
        "length": describe_length(train, train_images),
        "": describe_rule(train),
        "metrics": "none" if train.eval_every == 0 else evaluation,
    }
    return "\n".join(f"  {title:7}  {text}" for title, text in rows.items() if text)


def find_logged_speed(workdir: Path) -> float | None:
    """Return the images per second of the last steps in the log of a run, or None if no step was logged."""
    speeds = [line["images_per_second"] for line in read_log(workdir) if line.get("images_per_second", 0) > 0]
    return speeds[-1] if speeds else None


def format_expected_time(train: Train, done: int, val_images: int, speed: float | None) -> str | None:
    """Return a text with the expected time for the steps that are not done, or None if it is not known.

    The time of evaluations is only estimated, because none may have been measured.

    Args:
        train: The ``train`` section of the config.
        done: Number of steps that are done.
        val_images: Number of images of the val split; 0 if there is none.
        speed: Images per second in training, or None.
    """
    if not speed or train.steps is None or train.minutes is not None or done >= train.steps:
        return None
    steps = train.steps - done
    evaluations = 1  # after the last step
    if train.eval_every:
        evaluations = math.ceil(train.steps / train.eval_every) - done // train.eval_every
    seconds = (steps * train.batch_size + evaluations * val_images * EVALUATION_COST) / speed
    which = "the other " * (done > 0)
    included = ", evaluation included" if val_images else ""
    return f"about {_format_rough_duration(seconds)} for {which}{format_count(steps, 'steps')}{included}"


def _format_rough_duration(seconds: float) -> str:
    """Return a duration with about two digits, such as "80 s", "12 min" or "3.5 h"."""
    for limit, unit, name in ((100, 1, "s"), (6000, 60, "min"), (360_000, 3600, "h")):
        if seconds < limit:
            value = seconds / unit
            return f"{value:.0f} {name}" if value >= 10 or unit == 1 else f"{value:.1f} {name}"
    return f"{seconds / 86400:.1f} days"


def format_end(workdir: Path, val_split: str, evaluation: Evaluation | None) -> str:
    """Return the AP of each class, the place of the run, and its best checkpoint.

    Args:
        workdir: Run folder.
        val_split: Name of the val split.
        evaluation: The best evaluation of this process, or None if there was none.
    """
    lines = []
    if evaluation is not None:
        lines += [f"Split {val_split}, step {evaluation.step}:", format_voc(evaluation.metrics), ""]
    best = _find_best_row(workdir)
    if best is not None:
        text = f"Best checkpoint: step {best['step']:.0f}, val mAP {format_percent(best[BEST_METRIC])}."
        lines.append(f"Done. Run folder: {workdir}. {text}")
    else:
        lines.append(f"Done. Run folder: {workdir}")
    return "\n".join(lines)


def format_next_commands(workdir: Path, example: str | None) -> str:
    """Return the commands to run after training, which can be copied into a shell.

    Args:
        workdir: Run folder.
        example: An image for the commands, or None for a placeholder.
    """
    image = example or "IMAGE"
    code = f"import ssd_jax; print(ssd_jax.load({_quote(str(workdir))})({_quote(image)}))"
    commands = [
        format_command("evaluate", str(workdir), "--report"),
        format_command("predict", str(workdir), image),
        _join_words(["python", "-c", code]),
    ]
    return "\n".join(["Next:", *(f"  {command}" for command in commands)])


def format_command(name: str, *words: str) -> str:
    """Return a command line that can be copied into a shell, with the program by which this process was started.

    Args:
        name: Name of the subcommand.
        words: Its arguments.
    """
    script = Path(sys.argv[0] if sys.argv else "")
    if script.name == "train.py":
        program = ["python", str(script.with_name(f"{name}.py"))]
    elif script.parts[-2:] == ("ssd_jax", "__main__.py"):
        program = ["python", "-m", "ssd_jax", name]
    else:
        program = ["ssd-jax", name]
    return _join_words([*program, *words])


def find_example_image(source: Source, is_root_absolute: bool = False) -> str | None:
    """Return the path of the first image of a split, or None if the images are not files.

    Args:
        source: The split.
        is_root_absolute: Whether the user gave the folder of the data set as an absolute path. If so, the path is
            absolute. Otherwise, it is relative if the image is below the current folder.
    """
    file = source.annotation(0).file if len(source) else ""
    if not os.path.isfile(file):
        return None
    path = Path(file).absolute()
    is_below = path.is_relative_to(Path.cwd())
    return str(path.relative_to(Path.cwd()) if is_below and not is_root_absolute else path)


def format_problems(unreadable: Mapping[str, tuple[Source, dict[int, str]]], seconds: float, waited: float) -> str:
    """Return lines about the images that could not be read, and about the time spent waiting for data if it was long.

    Args:
        unreadable: Dict from the name of a split to the split and its error messages. The messages are a dict from the
            position of an unreadable image to the message.
        seconds: Time spent in training steps, in seconds.
        waited: Part of this time that was spent waiting for data, in seconds.
    """
    lines = []
    for split, (source, messages) in unreadable.items():
        if messages:
            lines.append(f"{len(messages)} of {len(source)} {split} images could not be used:")
            lines += [f"  {message}" for message in messages.values()]
    if waited > DATA_WAIT_WARNING * seconds:
        lines.append(
            f"Training spent {waited:.0f} of {seconds:.0f} s waiting for data. See 'When input limits the speed' in "
            "docs/scale.md."
        )
    return "\n".join(lines)


def _find_best_row(workdir: Path) -> dict[str, Any] | None:
    """Return the row of results.csv with the highest mAP, or None if no mAP was measured."""
    rows = [row for row in read_results(workdir) if row.get(BEST_METRIC) is not None]
    return max(reversed(rows), key=lambda row: row[BEST_METRIC] or 0.0, default=None)


def _describe_devices(devices: Sequence[Device]) -> str:
    kind = devices[0].device_kind
    if devices[0].platform == "cpu":
        cores = f"{os.cpu_count()} cores"
        return f"CPU, {cores}" if len(devices) == 1 else f"{len(devices)} virtual CPU devices, {cores}"
    return kind if len(devices) == 1 else f"{len(devices)} x {kind}"


def _join_names(names: Sequence[str]) -> str:
    """Return as many names as fit in a line, separated by commas, and "..." if there are others."""
    shown = ""
    for name in map(escape_text, names):
        longer = f"{shown}, {name}" if shown else name
        if len(longer) > _MAX_NAMES:
            return f"{shown}, ..." if shown else f"{name[:_MAX_NAMES]}..."
        shown = longer
    return shown


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a string of Python, with double quotes as in JSON


def _join_words(words: Sequence[str]) -> str:
    return " ".join(map(quote_argument, words))
