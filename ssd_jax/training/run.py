"""The function `train`, which trains a detector or resumes its training. ``ssd-jax train`` calls it."""

import dataclasses
import logging
import signal
import time
from contextlib import ExitStack
from pathlib import Path

from ssd_jax.config import Config
from ssd_jax.data.run_splits import (
    describe_split,
    open_training_splits,
    print_content_warnings,
    print_notes,
    print_overlap,
    with_data_root,
)
from ssd_jax.data.source import Source
from ssd_jax.errors import escape_text
from ssd_jax.files import make_user_path
from ssd_jax.model_zoo.opening import check_model_exists, make_location_absolute
from ssd_jax.runs import data_fingerprint, run_folder, tracking
from ssd_jax.runs.config_file import validate
from ssd_jax.runtime import compilation, distributed
from ssd_jax.runtime.progress import is_progress_hidden
from ssd_jax.training import summary
from ssd_jax.training.length import adopt_length, resolve_length
from ssd_jax.training.loop import Trainer
from ssd_jax.training.pretrained import open_pretrained

logger = logging.getLogger(__name__)


def train(
    config: Config,
    workdir: str | Path | None = None,
    *,
    track: tracking.TrackerName | None = None,
    started: float | None = None,
    shows_next: bool = True,
) -> Path:
    """Train a detector in a run folder, or resume its training, and return the folder.

    The folder is created, the detector is trained for the steps, epochs or minutes that the config states, and logs,
    pictures and checkpoints are written into the folder. If the folder already contains a checkpoint, training resumes
    from the latest one. Ctrl-C (SIGINT) and SIGTERM stop training after the current step and save a checkpoint. After
    Ctrl-C, this function then raises KeyboardInterrupt.

    Args:
        config: Config of the run. If ``config.model.class_names`` is empty, the class names come from the data.
        workdir: Run folder; ``runs/<config.name>`` by default.
        track: Tracker that also gets the options and metrics of the run: "mlflow" or "wandb". A run that is resumed is
            tracked as before.
        started: Value of `time.perf_counter` from which ``config.train.minutes`` counts. None: now.
        shows_next: Whether to print the commands to run next.

    Returns:
        The run folder, which `ssd_jax.evaluate` and `ssd_jax.load` take.

    Raises:
        UserError: If a value of the config is not allowed, if the data or the pretrained parameters cannot be used, if
            the folder belongs to a run with a different config, or if the loss is not finite. The message says what to
            do.
    """
    started = time.perf_counter() if started is None else started
    config = validate(config)
    is_root_absolute = make_user_path(config.data.root).is_absolute()
    workdir = Path("runs") / config.name if workdir is None else make_user_path(workdir)
    compilation.release_compiler_memory()
    has_checkpoint = run_folder.has_checkpoint(workdir)
    if config.train.pretrained and not has_checkpoint:
        check_model_exists(config.train.pretrained)  # with the name that the user gave, not an absolute path
    config, train_source, val_source = open_training_splits(_with_absolute_paths(config))
    if has_checkpoint:
        config = adopt_length(config, run_folder.read_config(workdir))
    length = config.train
    is_resolved = length.steps is not None and (length.minutes is not None or length.eval_every is not None)
    if not (has_checkpoint and is_resolved):
        config = resolve_length(config, len(train_source))
    distributed.assert_same_text(run_folder.config_to_json(config), "the config, with the data it names,")
    # Checked before the folder is created, so that a wrong option does not leave an empty run folder.
    pretrained = None if has_checkpoint else open_pretrained(config)
    trainer = Trainer(config, workdir, train_source, val_source, pretrained, started)
    with ExitStack() as stack:
        sources = {config.data.train_split: train_source}
        if val_source is not None:
            sources[config.data.val_split] = val_source
        distributed.run_on_primary(lambda: _open_run_folder(stack, workdir, config, sources, track))
        _print_start(workdir, config, train_source, val_source, trainer)
        last = trainer.run()
    if last != trainer.length.steps:
        by_user = trainer.stopped_by is signal.SIGINT
        message = (
            f"Stopped by {'Ctrl-C' if by_user else 'SIGTERM'} after step {last}, which is saved. The same command "
            "resumes from there."
        )
        if by_user:
            raise KeyboardInterrupt(message)
        print(message)
    else:
        if used := trainer.length.describe_end():
            print(used)
        print(summary.format_end(workdir, config.data.val_split, trainer.best_evaluation))
        if shows_next:
            example = summary.find_example_image(val_source or train_source, is_root_absolute)
            print(summary.format_next_commands(workdir, example))
    return workdir


def _with_absolute_paths(config: Config) -> Config:
    path = config.train.pretrained and make_location_absolute(config.train.pretrained)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, pretrained=path))
    return with_data_root(config, config.data.root)


def _print_start(
    workdir: Path, config: Config, train_source: Source, val_source: Source | None, trainer: Trainer
) -> None:
    """Print what is known about a run before its first step, unless the progress is hidden, and all notes."""
    for name, source in (("train", train_source), ("val", val_source)):
        if source is not None:
            if not is_progress_hidden():
                print(f"  {name:7}  {describe_split(source)}")
            if source is train_source:
                print_notes(source, config)
            else:  # a note about the whole data set belongs to both splits
                print_notes(source, printed=train_source.notes)
    if val_source is not None:
        print_overlap(train_source, val_source)
    print_content_warnings(config, train_source, val_source)
    if not is_progress_hidden():
        print(summary.format_run(config, len(train_source), list(trainer.mesh.devices.flat)))
        done = max(run_folder.list_checkpoint_steps(workdir / "checkpoints"), default=0)
        speed = summary.find_logged_speed(workdir) if done else None
        if time := summary.format_expected_time(config.train, done, len(val_source or ()), speed):
            print(f"  time     {time}")


def _open_run_folder(
    stack: ExitStack,
    workdir: Path,
    config: Config,
    sources: dict[str, Source],
    track: tracking.TrackerName | None,
) -> None:
    """Lock the run folder, create its files or check that it belongs to this config, and print what it is.

    Args:
        stack: Stack of context managers, which holds the lock.
        workdir: Run folder.
        config: Config of the run.
        sources: Splits of the run, by name.
        track: Tracker of the run, or None.
    """
    if track is not None:
        tracking.import_tracker(track)  # before the folder is created
    stack.enter_context(run_folder.hold_exclusive_lock(workdir))
    resumed, changed = run_folder.create_or_resume_run(workdir, config)
    tracking.start_tracking(workdir, track)
    is_finished = config.train.steps in run_folder.list_checkpoint_steps(workdir / "checkpoints")
    if is_finished or not is_progress_hidden():
        print(summary.format_headline(workdir, resumed, config.train.steps))
    for change in changed:
        print(f"  changed: {escape_text(change)}")
    for change in data_fingerprint.update_fingerprints(workdir, sources):
        if resumed:
            logger.warning("%s. Training continues with the data as they are now", change)
