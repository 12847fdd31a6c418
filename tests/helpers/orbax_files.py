"""Functions that find and damage the files which Orbax writes in a checkpoint.

The names of these files are not part of Orbax's API, so no other test file uses them.
"""

import os
import shutil
from pathlib import Path


def find_checkpoint_folders(run: Path) -> list[Path]:
    """Return the folders of the complete checkpoints of a run, in the order of their steps."""
    folders = [path for path in (run / "checkpoints").iterdir() if path.name.isdigit()]
    return sorted(folders, key=lambda path: int(path.name))


def find_array_files(checkpoint: Path, tree: str = "") -> list[Path]:
    """Return the files with the arrays of a checkpoint, or of one tree in the checkpoint, such as "params"."""
    return sorted(file for file in (checkpoint / tree).rglob("d/*") if file.is_file())


def find_largest_array_file(checkpoint: Path) -> Path:
    """Return the largest file with arrays in a checkpoint."""
    return max(find_array_files(checkpoint), key=lambda file: file.stat().st_size)


def find_metadata_file(checkpoint: Path) -> Path:
    """Return a JSON file that describes the arrays of a checkpoint."""
    return next(checkpoint.rglob("_METADATA"))


def incomplete_checkpoint_path(folder: Path, step: int) -> Path:
    """Return the temporary path to which Orbax writes a checkpoint before renaming it.

    Args:
        folder: The folder ``checkpoints`` of a run.
        step: Step of the checkpoint.
    """
    return folder / f"{step}.orbax-checkpoint-tmp"


def copy_as_incomplete_checkpoint(folder: Path, step: int, as_step: int) -> Path:
    """Copy a checkpoint to the path of an incomplete one, as a run that is killed while saving leaves it.

    Args:
        folder: The folder ``checkpoints`` of a run.
        step: Step of the checkpoint.
        as_step: Step in the name of the copy.

    Returns:
        The path of the copy.
    """
    return Path(shutil.copytree(folder / str(step), incomplete_checkpoint_path(folder, as_step)))


def flip_bit_in_largest_file(checkpoint: Path) -> None:
    """Flip one bit in the middle of the largest file with arrays."""
    file = find_largest_array_file(checkpoint)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def truncate_largest_file(checkpoint: Path) -> None:
    """Truncate the largest file with arrays to half of its size."""
    file = find_largest_array_file(checkpoint)
    os.truncate(file, file.stat().st_size // 2)


def empty_array_files(checkpoint: Path) -> None:
    """Remove the content of all files with parameters."""
    for file in find_array_files(checkpoint, "params"):
        file.write_bytes(b"")


def remove_largest_file(checkpoint: Path) -> None:
    """Remove the largest file with arrays."""
    find_largest_array_file(checkpoint).unlink()


def break_metadata(checkpoint: Path) -> None:
    """Replace a JSON file that Orbax wrote with an incomplete one."""
    find_metadata_file(checkpoint).write_text('{"tree')


def break_checksums(checkpoint: Path) -> None:
    """Replace checksums.json with an incomplete file."""
    (checkpoint / "checksums.json").write_text('{"params')
