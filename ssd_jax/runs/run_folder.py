"""The folder of a run: its config, its logs. Everything else about a run is read from here.

``config.json`` (resolved, written before the first step), ``checkpoints/``, ``log.jsonl`` (a line
every ``train.log_every`` steps), ``results.csv`` (a row at every evaluation), ``tensorboard/``.
"""

import dataclasses
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ssd_jax.config import Config, decode_config
from ssd_jax.errors import UserError
from ssd_jax.files import user_errors_on_write, write_text


def config_to_json(config: Config) -> str:
    return msgspec.json.format(msgspec.json.encode(config), indent=2).decode()


def read_config(run: Path) -> Config:
    """Raises UserError if the folder is not a run or its config.json does not fit this version."""
    file = run / "config.json"
    try:
        return decode_config(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        hint = "" if run.exists() else " (there is no such folder)"
        raise UserError(f"{run}: not the folder of a run, it has no config.json{hint}") from None
    except OSError as error:
        raise UserError(f"{file}: can't be read ({error.strerror}). Check its permissions") from None
    except msgspec.MsgspecError as error:
        raise UserError(f"{file}: {error}. The file was changed, or written by another version") from None
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def config_differences(old: Config, new: Config) -> list[str]:
    """``path: old -> new`` for every field that differs."""
    left, right = (_flat(dataclasses.asdict(config)) for config in (old, new))
    return [f"{name}: {left.get(name)!r} -> {right.get(name)!r}" for name in left if left[name] != right.get(name)]


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


# What a run may go on with differently: its data at another place, whether it stops at a broken image, how it
# lies on other devices, and how often it tells and saves.
_FREE = (
    "data.root", "data.tfds_dir", "data.strict", "model.remat", "devices.fsdp", "devices.deterministic",
    "train.accumulation_steps", "train.log_every", "train.eval_every", "train.checkpoint_every",
)  # fmt: skip


class RunStatus(NamedTuple):
    resumed: bool
    """The run has a checkpoint to go on from."""
    changed: list[str]
    """Options it goes on with that are not those it was started with."""


def create_or_resume(workdir: Path, config: Config) -> RunStatus:
    """Make the folder with its config.json, or check that it is this run's.

    A run without a checkpoint has nothing to lose and takes any config. Raises UserError if the
    folder can't be written, holds other things, or belongs to a run with another config.
    """
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir} is a file, not the folder of a run: name another --workdir")
    with user_errors_on_write(workdir, "Name another --workdir."):
        workdir.mkdir(parents=True, exist_ok=True)
        file = workdir / "config.json"
        if not file.exists() and any(workdir.iterdir()):
            raise UserError(f"{workdir} is not empty and not the folder of a run: name another --workdir")
        resumed = file.exists() and has_checkpoint(workdir)
        changed = check_resumable_config(workdir, config) if resumed else []
        if changed or not resumed:
            write_text(file, config_to_json(config))
    return RunStatus(resumed, changed)


@contextmanager
def exclusive_lock(workdir: Path) -> Iterator[None]:
    """For one process alone. Raises UserError where another one is in; a killed one is not.

    No lock where the system has none to give, as some network drives.
    """
    with user_errors_on_write(workdir):
        folder = os.open(workdir, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise UserError(
            f"{workdir}: another process is training there. Wait for it, or name another --workdir; several processes "
            "of one run are made known to each other by --distributed"
        ) from None
    except OSError:
        pass
    try:
        yield
    finally:
        os.close(folder)


def has_checkpoint(workdir: Path) -> bool:
    """Whole ones: a folder named by its step. What is being written, or was cut short, has a longer name."""
    folder = workdir / "checkpoints"
    return folder.is_dir() and any(entry.name.isdigit() for entry in folder.iterdir())


def check_resumable_config(run: Path, config: Config) -> list[str]:
    """The differences from the config that a run was started with; UserError if it can't go on with them."""
    changed = config_differences(read_config(run), config)
    if any(not line.startswith(tuple(f"{name}:" for name in _FREE)) for line in changed):
        raise UserError(
            f"{run} was started with another config (there -> now):\n  "
            + "\n  ".join(changed)
            + "\nTo go on, give the same options; to start anew, name another --workdir"
        )
    return changed
