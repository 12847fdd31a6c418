"""Names of files that Orbax writes in a checkpoint. They are not part of its API, so tests name them only here."""

import shutil
from pathlib import Path


def checkpoint_folders(run: Path) -> list[Path]:
    """Return the folders of a run's complete checkpoints, the latest last."""
    folders = [path for path in (run / "checkpoints").iterdir() if path.name.isdigit()]
    return sorted(folders, key=lambda path: int(path.name))


def array_files(checkpoint: Path, tree: str = "") -> list[Path]:
    """Return the files with the arrays of a checkpoint, or of one of its trees such as "params"."""
    return sorted(file for file in (checkpoint / tree).rglob("d/*") if file.is_file())


def largest_array_file(checkpoint: Path) -> Path:
    """Return the largest file with arrays."""
    return max(array_files(checkpoint), key=lambda file: file.stat().st_size)


def metadata_file(checkpoint: Path) -> Path:
    """Return a JSON file that describes the arrays of a checkpoint."""
    return next(checkpoint.rglob("_METADATA"))


def incomplete_checkpoint(folder: Path, step: int) -> Path:
    """Return the path that Orbax writes a checkpoint to before it renames it. ``folder`` is a run's ``checkpoints``."""
    return folder / f"{step}.orbax-checkpoint-tmp"


def copy_as_incomplete(folder: Path, step: int, as_step: int) -> Path:
    """Copy a checkpoint to the path of an incomplete one, as a run that was killed while saving leaves it."""
    return Path(shutil.copytree(folder / str(step), incomplete_checkpoint(folder, as_step)))
