"""Find the run folders below a folder."""

import os
from pathlib import Path
from typing import NamedTuple

MAX_DEPTH = 5
"""Number of levels of folders below the given one that are searched."""
MAX_FOLDERS = 5_000
"""Number of folders that are searched."""
_OTHER_FILES = {"checkpoints", "data.json", "results.csv", "train_batch.jpg"}


class FoundRuns(NamedTuple):
    """Result of a search for run folders."""

    folders: list[Path]
    is_complete: bool
    """Whether all folders were searched, and not only the first ones."""


def looks_like_run(names: set[str]) -> bool:
    """Return whether a folder is a run folder, also a damaged one, from the names of its entries.

    Many programs write a config.json, so that this file alone is not enough.
    """
    return "log.jsonl" in names or ("config.json" in names and bool(names & _OTHER_FILES))


def find_run_folders(root: Path) -> FoundRuns:
    """Find the run folders below a folder, or the folder itself if it is one.

    Hidden folders, links, and folders inside of run folders are not searched. Folders that cannot be read are left out.

    Args:
        root: The folder. It need not exist.
    """
    found: list[Path] = []
    level = [root]
    searched = 0
    for depth in range(MAX_DEPTH + 1):
        below: list[Path] = []
        for folder in level:
            searched += 1
            if searched > MAX_FOLDERS:
                return FoundRuns(found, False)
            names, folders = _list_folder(folder)
            if looks_like_run(names) or (depth == 0 and "config.json" in names):
                found.append(folder)
            else:
                below += folders
        level = below
    return FoundRuns(found, not level)


def _list_folder(folder: Path) -> tuple[set[str], list[Path]]:
    """Return the names of all entries of a folder, and the folders among them that are to be searched."""
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        folders = [e.name for e in listed if not e.name.startswith(".") and e.is_dir(follow_symlinks=False)]
    except OSError:
        return set(), []
    return {entry.name for entry in listed}, [folder / name for name in folders]
