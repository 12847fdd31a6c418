"""The folder of a training run: its creation, its config.json, and a lock against a second training process.

A run folder has ``config.json`` (the resolved config, written before the first step), ``checkpoints/``, ``log.jsonl``
(a line every ``train.log_every`` steps), ``results.csv`` (a row for each evaluation) and ``tensorboard/``.
"""

import dataclasses
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ssd_jax.config import Config
from ssd_jax.errors import UserError
from ssd_jax.files import user_errors_on_read, user_errors_on_write, write_text
from ssd_jax.runs.config_file import decode_config

# Options that may change when a run is resumed: where its data are, whether it stops at a broken image, how it uses
# its devices, and how often it logs, evaluates and saves.
_MAY_CHANGE = (
    "data.root", "data.tfds_dir", "data.strict", "model.remat", "devices.fsdp", "devices.deterministic",
    "train.accumulation_steps", "train.log_every", "train.eval_every", "train.checkpoint_every",
)  # fmt: skip


def config_to_json(config: Config) -> str:
    """Return a config as the text of config.json."""
    return msgspec.json.format(msgspec.json.encode(config), indent=2).decode()


def read_config(run: Path) -> Config:
    """Read the config of a run.

    Args:
        run: Run folder.

    Raises:
        UserError: If the folder is not a run folder, or if its config.json is not valid for this version.
    """
    file = run / "config.json"
    with user_errors_on_read(file, "Check its permissions."):
        if not file.exists():
            hint = "" if run.exists() else " (there is no such folder)"
            raise UserError(f"{run} is not a run folder: config.json is missing{hint}")
        text = file.read_bytes()
    try:
        return decode_config(text)
    except UserError as error:
        raise UserError(f"{file}: {error}. The file was changed, or written by another version") from None


def config_differences(old: Config, new: Config) -> list[str]:
    """Return a line ``option: old -> new`` for every option that differs."""
    before, after = (_flatten(dataclasses.asdict(config)) for config in (old, new))
    return [f"{name}: {before[name]!r} -> {after.get(name)!r}" for name in before if before[name] != after.get(name)]


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


class RunStatus(NamedTuple):
    """How a run starts."""

    resumed: bool
    """Whether the run has a checkpoint to resume from."""
    changed: list[str]
    """Lines of `config_differences` for options that differ from those the run was started with."""


def create_or_resume(workdir: Path, config: Config) -> RunStatus:
    """Create a run folder with its config.json, or check that it is the folder of this run.

    A run without a checkpoint has nothing to lose and takes any config.

    Args:
        workdir: The run folder.
        config: The resolved config; if options changed that may change, config.json is replaced.

    Raises:
        UserError: If the folder cannot be written, has other files, or belongs to a run with another config.
    """
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir} is a file, not a run folder. Name another --workdir")
    with user_errors_on_write(workdir, "Name another --workdir."):
        workdir.mkdir(parents=True, exist_ok=True)
        file = workdir / "config.json"
        if not file.exists() and any(workdir.iterdir()):
            raise UserError(f"{workdir} is not empty and not a run folder. Name another --workdir")
        resumed = file.exists() and has_checkpoint(workdir)
        changed = check_resumable_config(workdir, config) if resumed else []
        if changed or not resumed:
            write_text(file, config_to_json(config))
    return RunStatus(resumed, changed)


@contextmanager
def exclusive_lock(workdir: Path) -> Iterator[None]:
    """Keep other processes from training in a run folder during the ``with`` block. The lock of a killed process ends.

    File systems without locks, such as some network drives, have no such protection.

    Args:
        workdir: The run folder.

    Raises:
        UserError: If another process has the lock.
    """
    with user_errors_on_write(workdir):
        folder = os.open(workdir, os.O_RDONLY)
    try:
        with suppress(OSError):  # the file system has no locks
            _lock(workdir, folder)
        yield
    finally:
        os.close(folder)


def _lock(workdir: Path, folder: int) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{workdir}: another process is training in this folder. Wait for it, or name another --workdir; to train "
            "one run with several processes, start each with --distributed"
        ) from None


def has_checkpoint(workdir: Path) -> bool:
    """Return whether a run has a complete checkpoint: its folder is named by the step; incomplete ones have a suffix.

    Args:
        workdir: The run folder.
    """
    folder = workdir / "checkpoints"
    return folder.is_dir() and any(entry.name.isdigit() for entry in folder.iterdir())


def check_resumable_config(run: Path, config: Config) -> list[str]:
    """Check that a run can be resumed with a config.

    Args:
        run: Run folder.
        config: The config to resume with.

    Returns:
        The lines of `config_differences`, all of options that may change.

    Raises:
        UserError: If other options differ; the message lists all differences.
    """
    changed = config_differences(read_config(run), config)
    if any(not line.startswith(tuple(f"{name}:" for name in _MAY_CHANGE)) for line in changed):
        raise UserError(
            f"{run} was started with a different config (saved -> given):\n  "
            + "\n  ".join(changed)
            + "\nTo resume this run, give the same options; to start a new run, name another --workdir"
        )
    return changed
