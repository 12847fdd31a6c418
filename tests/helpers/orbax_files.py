"""Functions that find the files which Orbax writes in a checkpoint.

The names of these files are not part of Orbax's API, so no other test file uses them.
"""

import shutil
from pathlib import Path


def checkpoint_folders(run: Path) -> list[Path]:
    """Return the folders of the complete checkpoints of a run, in the order of their steps."""
    folders = [path for path in (run / "checkpoints").iterdir() if path.name.isdigit()]
    return sorted(folders, key=lambda path: int(path.name))


def array_files(checkpoint: Path, tree: str = "") -> list[Path]:
    """Return the files with the arrays of a checkpoint, or of one of its trees such as "params"."""
    return sorted(file for file in (checkpoint / tree).rglob("d/*") if file.is_file())


def largest_array_file(checkpoint: Path) -> Path:
    """Return the largest file with arrays in a checkpoint."""
    return max(array_files(checkpoint), key=lambda file: file.stat().st_size)


def metadata_file(checkpoint: Path) -> Path:
    """Return a JSON file that describes the arrays of a checkpoint."""
    return next(checkpoint.rglob("_METADATA"))


def incomplete_checkpoint_path(folder: Path, step: int) -> Path:
    """Return the temporary path to which Orbax writes a checkpoint before renaming it.

    Args:
        folder: The folder ``checkpoints`` of a run.
        step: Step of the checkpoint.
    """
    return folder / f"{step}.orbax-checkpoint-tmp"


def copy_as_incomplete(folder: Path, step: int, as_step: int) -> Path:
    """Copy a checkpoint to the path of an incomplete one, as left by a run that is killed while saving."""
    return Path(shutil.copytree(folder / str(step), incomplete_checkpoint_path(folder, as_step)))
