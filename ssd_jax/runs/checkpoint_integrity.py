"""Detection of corrupt checkpoints by checksums, and the choice of the newest intact checkpoint.

Orbax itself does not notice most bits that flip in a stored file. Therefore ``checksums.json`` in the folder of a
checkpoint lists the SHA-256 of every file, computed after the checkpoint was written.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TypeVar

from ssd_jax.errors import UserError, convert_errors
from ssd_jax.files import convert_write_errors, write_text
from ssd_jax.runtime import distributed

T = TypeVar("T")
logger = logging.getLogger(__name__)

CHECKSUMS = "checksums.json"
CORRUPT_FOLDER = "damaged_checkpoints"
"""Name of the folder in a run folder to which corrupt checkpoints are moved. Existing run folders use it."""


class CorruptCheckpointError(UserError):
    """Raised if a checkpoint cannot be read, or if its files have changed since they were written.

    Attributes:
        reason: The message without the advice. It names the checkpoint and says what is wrong with it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}. Move it away to use the previous checkpoint, if there is one")
        self.reason = reason


def convert_corruption_errors(checkpoint: Path) -> AbstractContextManager[None]:
    """Return a context manager that converts exceptions of its block into a CorruptCheckpointError.

    The code in the block should read a checkpoint. Orbax, TensorStore and json raise exceptions of many types if files
    are missing or truncated. A UserError is not converted.
    """
    return convert_errors(
        f"{checkpoint}: cannot read this checkpoint, which is corrupt or was written by another version",
        error_type=CorruptCheckpointError,
    )


def write_checksums(checkpoint: Path) -> None:
    """Write ``checksums.json`` with the checksums of all files in a checkpoint folder and its subfolders.

    Raises:
        UserError: If the file cannot be written.
    """
    write_text(checkpoint / CHECKSUMS, json.dumps(_compute_checksums(checkpoint), indent=1))


def verify_checksums(checkpoint: Path) -> None:
    """Raise a CorruptCheckpointError if a file of a checkpoint is missing or differs from its checksum.

    A checkpoint without checksums.json is accepted, because a run may be killed before it writes that file.

    Raises:
        CorruptCheckpointError: If a file is missing or has changed.
    """
    with convert_corruption_errors(checkpoint):
        file = checkpoint / CHECKSUMS
        expected = json.loads(file.read_bytes()) if file.exists() else {}
        checksums = _compute_checksums(checkpoint)
        changed = [name for name, actual in checksums.items() if expected.get(name, actual) != actual]
    changed += sorted(name for name in expected if not (checkpoint / name).exists())
    if changed:
        raise CorruptCheckpointError(f"{checkpoint}: this checkpoint is corrupt: the checksum of {changed[0]} differs")


def restore_newest_intact(folder: Path, steps: Iterable[int], restore: Callable[[int], T]) -> T | None:
    """Restore the newest intact checkpoint, and move all newer ones to the folder ``damaged_checkpoints``.

    The newer ones are corrupt; a warning is logged for each. All processes of the run have to call this.

    Args:
        folder: The folder ``checkpoints`` of a run.
        steps: Steps of the checkpoints in this folder.
        restore: Function that returns the checkpoint of a step, or raises CorruptCheckpointError if it is corrupt.

    Returns:
        The result of ``restore`` for the newest intact checkpoint, or None if there are no checkpoints.

    Raises:
        UserError: If all checkpoints are corrupt. In this case none of them is moved.
    """
    corrupt: dict[int, CorruptCheckpointError] = {}
    for step in sorted(steps, reverse=True):
        try:
            restored = restore(step)
        except CorruptCheckpointError as error:
            corrupt[step] = error
            continue
        move_aside(folder, corrupt, f" and resuming from the checkpoint at step {step}")
        return restored
    if corrupt:
        reasons = (f"  {error.reason}" for error in corrupt.values())
        raise UserError("there is no intact checkpoint to resume from; start again in another --workdir:", *reasons)
    return None


def move_aside(folder: Path, corrupt: Mapping[int, CorruptCheckpointError], consequence: str = "") -> None:
    """Move corrupt checkpoints to the folder ``damaged_checkpoints`` of their run, and log a warning for each.

    All processes of the run have to call this.

    Args:
        folder: The folder ``checkpoints`` of the run.
        corrupt: Dict from the step of each corrupt checkpoint to its error.
        consequence: End of each warning, such as " and resuming from the checkpoint at step 7".
    """
    for step, corruption in corrupt.items():
        target = folder.with_name(CORRUPT_FOLDER) / str(step)
        logger.warning("%s. Moving it to %s%s", corruption.reason, target, consequence)
        distributed.run_on_primary(partial(_move_folder, folder / str(step), target))


def restore_first_intact(steps: Iterable[int], restore: Callable[[int], T]) -> T | None:
    """Restore the first checkpoint that is intact, and log a warning for each corrupt one before it.

    Args:
        steps: Steps of checkpoints, in order of preference.
        restore: Function that returns the checkpoint of a step, or raises CorruptCheckpointError if it is corrupt.

    Returns:
        The result of ``restore`` for the first intact checkpoint, or None if there are no checkpoints.

    Raises:
        UserError: If all checkpoints are corrupt. The message has a line for each.
    """
    corrupt: list[CorruptCheckpointError] = []
    for step in steps:
        try:
            restored = restore(step)
        except CorruptCheckpointError as error:
            corrupt.append(error)
            continue
        for corruption in corrupt:
            logger.warning("%s. Using the checkpoint of step %d instead", corruption.reason, step)
        return restored
    if corrupt:
        raise UserError(*(error.reason for error in corrupt), "The run has no other checkpoint")
    return None


def _compute_checksums(checkpoint: Path) -> dict[str, str]:
    """Return a dict from the path of each file, relative to the checkpoint, to its SHA-256."""
    checksums = {}
    for file in sorted(file for file in checkpoint.rglob("*") if file.is_file() and file.name != CHECKSUMS):
        with file.open("rb") as stream:
            checksums[file.relative_to(checkpoint).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return checksums


def _move_folder(checkpoint: Path, target: Path) -> None:
    with convert_write_errors(target):
        target.parent.mkdir(exist_ok=True)
        if target.exists():  # an earlier checkpoint of the same step was also corrupt
            shutil.rmtree(target)
        shutil.move(checkpoint, target)  # the folder checkpoints may be a link to another disk
