"""Creation of run folders with config.json, and a lock against a second training process in the same folder.

A run folder has ``config.json`` (the config with all options, written before the first step), ``checkpoints/``,
``log.jsonl`` (a line for every ``train.log_every`` steps), ``results.csv`` (a row for each evaluation) and
``tensorboard/``. docs/runs.md lists the other files.
"""

import dataclasses
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from filelock import lock_descriptor

from ssd_jax.config import Config
from ssd_jax.errors import UserError
from ssd_jax.files import convert_read_errors, convert_write_errors, write_text
from ssd_jax.portability import LOCK_FILE, open_for_lock
from ssd_jax.runs.config_file import decode_config

# Options that may change when a run is resumed: the folder of the data, whether the run stops at an unreadable image,
# how the run uses devices and memory, and how often it logs, evaluates and saves checkpoints.
_MAY_CHANGE = (
    "data.root", "data.tfds_dir", "data.strict", "model.remat", "devices.fsdp", "devices.deterministic",
    "train.accumulation_steps", "train.log_every", "train.eval_every", "train.checkpoint_every",
)  # fmt: skip
_WORKDIR_ADVICE = "Name another --workdir."
_LOCK_ATTEMPTS, _LOCK_PAUSE = 5, 0.02  # pause in seconds


class DifferentConfigError(UserError):
    """Raised if a run folder belongs to a run with another config.

    Args:
        lines: Lines of the message.
        options: Names of the options that differ.
    """

    def __init__(self, *lines: str, options: Sequence[str]) -> None:
        super().__init__(*lines)
        self.options = options


def config_to_json(config: Config) -> str:
    r"""Return a config as the text of a config.json. Bytes of a path that are not UTF-8 become such as ``\udce9``."""
    text = json.dumps(msgspec.to_builtins(config), indent=2, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write_config(workdir: Path, config: Config) -> None:
    """Write the config.json of a run, after creating its folder if it does not exist.

    Raises:
        UserError: If the folder or the file cannot be written.
    """
    _make_folder(workdir)
    write_text(workdir / "config.json", config_to_json(config))


def is_run_folder(workdir: Path) -> bool:
    """Return whether a folder exists and has a config.json."""
    return (workdir / "config.json").is_file()


def read_config(run: Path) -> Config:
    """Read the config of a run from its config.json.

    Args:
        run: Run folder.

    Raises:
        UserError: If the folder is not a run folder, or if its config.json is not valid for this version.
    """
    file = run / "config.json"
    with convert_read_errors(file, "Check its permissions."):
        if not file.exists():
            hint = "" if run.exists() else " (there is no such folder)"
            raise UserError(f"{run} is not a run folder or model folder: config.json is missing{hint}")
        text = file.read_bytes()
    try:
        return decode_config(text)
    except UserError as error:
        raise UserError(f"{file}: {error}. The file was changed, or was written by another version") from None


def check_is_detector(config: Config, name: object) -> None:
    """Raise a UserError if a config belongs to a backbone without class predictors.

    Args:
        config: Config of the network.
        name: Run or file of the network, for the message.
    """
    if not config.model.class_names:
        raise UserError(
            f"{name} holds only the VGG16 backbone, which is not a detector. "
            f"Train a detector from it with ssd-jax train CONFIG --train.pretrained {name}"
        )


def list_config_differences(old: Config, new: Config) -> list[str]:
    """Return a line ``option: old value -> new value`` for every option that differs between two configs."""
    before, after = (flatten_config(config) for config in (old, new))
    return [f"{name}: {before[name]!r} -> {after.get(name)!r}" for name in before if before[name] != after.get(name)]


def flatten_config(config: Config) -> dict[str, Any]:
    """Return a dict from the name of each option of a config, such as ``train.steps``, to its value."""
    return _flatten(dataclasses.asdict(config))


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


class RunStatus(NamedTuple):
    """State of a run folder at the start of training."""

    resumed: bool
    """Whether the folder has a checkpoint from which training resumes."""
    changed: list[str]
    """A line of `list_config_differences` for each option whose value has changed since the run was started."""


def create_or_resume_run(workdir: Path, config: Config) -> RunStatus:
    """Create a run folder with its config.json, or check that the folder belongs to a run with this config.

    If the run has no checkpoint yet, any config is accepted, because no training is lost. Call this while the folder is
    locked, because another process may be training in it.

    Args:
        workdir: The run folder.
        config: The config of the run, with class names. If the only differences from config.json are in options that
            may change, config.json is replaced.

    Raises:
        UserError: If the folder cannot be written, contains files but no config.json, or belongs to a run with another
            config.
    """
    _make_folder(workdir)
    with convert_write_errors(workdir, _WORKDIR_ADVICE):
        file = workdir / "config.json"
        if not file.exists() and any(entry.name != LOCK_FILE for entry in workdir.iterdir()):
            raise UserError(f"{workdir} is not empty and not a run folder. {_WORKDIR_ADVICE}")
        checkpoints = workdir / "checkpoints"
        if os.path.lexists(checkpoints) and not checkpoints.is_dir():
            raise UserError(f"{checkpoints} is not a folder, so no checkpoint can be saved. Move it away")
        resumed = file.exists() and has_checkpoint(workdir)
        changed = check_resumable_config(workdir, config) if resumed else []
        if changed or not resumed:
            write_config(workdir, config)
    return RunStatus(resumed, changed)


def _make_folder(workdir: Path) -> None:
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir} is a file, not a run folder. {_WORKDIR_ADVICE}")
    with convert_write_errors(workdir, _WORKDIR_ADVICE):
        workdir.mkdir(parents=True, exist_ok=True)


@contextmanager
def hold_exclusive_lock(workdir: Path) -> Iterator[None]:
    """Lock a run folder during the ``with`` block, so that no other process trains in it.

    The folder is created if it does not exist. The operating system releases the lock of a process that is killed. On
    file systems without locks, such as some network drives, nothing is locked.

    Args:
        workdir: The run folder.

    Raises:
        UserError: If another process has the lock, or if the folder cannot be created.
    """
    _make_folder(workdir)
    with convert_write_errors(workdir):
        descriptor = open_for_lock(workdir)
    try:
        if not _lock_if_possible(descriptor, attempts=_LOCK_ATTEMPTS):
            raise UserError(
                f"{workdir}: another process is training in this folder. Wait for it, or name another --workdir; to "
                "train one run with several processes, start each with --distributed"
            )
        yield
    finally:
        os.close(descriptor)


def is_locked(workdir: Path) -> bool:
    """Return whether another process trains in a run folder, as far as the file system can tell. Nothing is written.

    Args:
        workdir: The run folder.

    Raises:
        OSError: If the folder cannot be opened.
    """
    try:
        descriptor = open_for_lock(workdir, creates=False)
    except FileNotFoundError:  # the folder or, on Windows, the file that is locked
        return False
    try:
        return not _lock_if_possible(descriptor)
    finally:
        os.close(descriptor)


def _lock_if_possible(descriptor: int, attempts: int = 1) -> bool:
    """Lock a file, and return whether no other process has locked it, as far as the file system can tell.

    Args:
        descriptor: Descriptor of the file.
        attempts: Number of attempts. The second one helps if `is_locked` of another process has the lock for a moment.
    """
    try:
        for attempt in range(attempts):
            if attempt:
                time.sleep(_LOCK_PAUSE)
            if lock_descriptor(descriptor, blocking=False):
                return True
    except OSError:  # the file system has no locks
        return True
    return False


def has_checkpoint(workdir: Path) -> bool:
    """Return whether a run has a complete checkpoint.

    Args:
        workdir: The run folder.
    """
    return bool(list_checkpoint_steps(workdir / "checkpoints"))


def list_checkpoint_steps(folder: Path) -> list[int]:
    """Return the steps of the complete checkpoints in a folder, in ascending order.

    The name of the folder of a complete checkpoint is the step; for an incomplete checkpoint, it also has a suffix.

    Args:
        folder: The folder ``checkpoints`` of a run, which need not exist.
    """
    with convert_read_errors(folder):
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if re.fullmatch(r"0|[1-9][0-9]*", name))


def _list_changeable_lengths(run: Path, saved: Config, config: Config) -> tuple[str, ...]:
    """Return the options about the length of a run that may change when it is resumed.

    Before the number of steps is chosen, these are all of them. Later, a run with ``train.minutes`` may get more or
    fewer minutes until it is finished.
    """
    if saved.train.steps is None:
        return ("train.steps", "train.epochs", "train.steps_range", "train.minutes")
    has_minutes = saved.train.minutes is not None and config.train.minutes is not None
    is_finished = saved.train.steps in list_checkpoint_steps(run / "checkpoints")
    return ("train.minutes",) if has_minutes and not is_finished else ()


def check_resumable_config(run: Path, config: Config) -> list[str]:
    """Check that a config can resume a run, and return the options that differ from the config of the run.

    Args:
        run: Run folder.
        config: The config to resume with.

    Returns:
        The lines of `list_config_differences`, all about options that may change when a run is resumed.

    Raises:
        DifferentConfigError: If an option that must not change differs. The message lists all such options.
    """
    saved = read_config(run)
    changed = list_config_differences(saved, config)
    may_change = tuple(f"{name}:" for name in (*_MAY_CHANGE, *_list_changeable_lengths(run, saved, config)))
    refused = [line for line in changed if not line.startswith(may_change)]
    if refused:
        raise DifferentConfigError(
            f"{run} was started with a different config (saved -> given):",
            *(f"  {line}" for line in refused),
            "To resume this run, give the same options; to start a new run, name another --workdir",
            options=[line.partition(":")[0] for line in refused],
        )
    return changed
