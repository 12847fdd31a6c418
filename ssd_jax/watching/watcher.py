"""All runs of a folder, for several readers at the same time."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ssd_jax.errors import escape_text
from ssd_jax.runs.run_folder import flatten_config
from ssd_jax.watching.discovery import find_run_folders
from ssd_jax.watching.run_reader import RunReader, RunState
from ssd_jax.watching.served_files import ServedFile, read_served_file

REFRESH_SECONDS = 1.0
"""Time during which what was read from the runs is not read again, however many pages ask for it."""
SEARCH_SECONDS = 5.0
"""Time between searches for new runs."""
_MAX_VALUE = 300
"""Number of characters of a value of a config that are shown."""


class Overview(msgspec.Struct):
    """State of all runs of a folder."""

    folder: str
    exists: bool
    is_complete: bool
    """Whether the whole folder was searched for runs."""
    now: float
    """Seconds since 1970, to compare times with."""
    runs: list[RunState]
    """The runs, the latest ones first."""


class OptionDifference(msgspec.Struct):
    """An option whose value is not the same in all compared runs."""

    option: str
    values: list[str | None]
    """Value in each run as text; None if its config is not known."""


class Watcher:
    """Reader of all runs of a folder. Its methods may be called from several threads.

    Args:
        root: A run folder, or a folder with run folders.
        clock: Function that returns the time in seconds.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.root = root
        self._clock = clock
        self._lock = threading.Lock()
        self._readers: dict[str, RunReader] = {}
        self._is_complete = True
        self._next_refresh = self._next_search = -float("inf")

    def read_overview(self) -> Overview:
        """Return the state of all runs."""
        with self._lock:
            self._refresh()
            runs = [reader.state for reader in self._readers.values()]
            runs.sort(key=lambda run: (run.status != "running", -(run.started or 0), run.name))
            folder = escape_text(str(self.root))
            return Overview(folder, self.root.is_dir(), self._is_complete, time.time(), runs)

    def read_curves(self, ident: str, train: tuple[int, int], val: tuple[int, int]) -> dict[str, Any] | None:
        """Return the points of the curves of a run that a page does not have yet, or None if there is no such run.

        Args:
            ident: Identifier of the run.
            train: ``number`` and ``fixed`` of the last message about the training metrics that the page got.
            val: The same for the metrics of the val split.

        Returns:
            A dict with ``version``, as in the state of the run, and two messages of `Curves`, ``train`` and ``val``.
        """
        with self._lock:
            self._refresh()
            reader = self._readers.get(ident)
            if reader is None:
                return None
            return {
                "version": reader.state.version,
                "train": reader.train_curves.make_message(*train),
                "val": reader.val_curves.make_message(*val),
            }

    def find_differences(self, idents: Sequence[str]) -> list[OptionDifference]:
        """Return the options that differ between the configs of runs, in the order of the config.

        Args:
            idents: Identifiers of the runs. Of an unknown run, all values are None.
        """
        with self._lock:
            self._refresh()
            readers = [self._readers.get(ident) for ident in idents]
            configs = [reader.config if reader is not None else None for reader in readers]
        flat = [flatten_config(config) if config is not None else None for config in configs]
        known = [values for values in flat if values is not None]
        options = dict.fromkeys(option for values in known for option in values)
        return [
            OptionDifference(option, [None if values is None else _format_value(values[option]) for values in flat])
            for option in options
            if any(values[option] != known[0][option] for values in known)
        ]

    def read_file(self, ident: str, name: str) -> tuple[ServedFile, bytes] | None:
        """Return a picture or a page of a run with its content, or None if there is no such run or file.

        The name is only compared with those of the files that were found in the folder. It is not part of a path.

        Args:
            ident: Identifier of the run.
            name: Name of the file.
        """
        with self._lock:
            self._refresh()
            reader = self._readers.get(ident)
            file = reader.files.get(name) if reader is not None else None
        if reader is None or file is None:
            return None
        content = read_served_file(reader.folder, file)
        return None if content is None else (file, content)

    def _refresh(self) -> None:
        now = self._clock()
        if now < self._next_refresh:
            return
        if now >= self._next_search:
            self._search()
            self._next_search = self._clock() + SEARCH_SECONDS
        for reader in self._readers.values():
            reader.refresh()
        self._next_refresh = self._clock() + REFRESH_SECONDS

    def _search(self) -> None:
        """Find the runs. The readers of runs that are still there are kept."""
        found = find_run_folders(self.root)
        self._is_complete = found.is_complete
        readers = {}
        for folder in found.folders:
            ident = make_run_id(self.root, folder)
            name = folder.relative_to(self.root).as_posix() if folder != self.root else folder.resolve().name
            readers[ident] = self._readers.get(ident) or RunReader(folder, ident, name)
        self._readers = readers


def make_run_id(root: Path, folder: Path) -> str:
    """Return an identifier of a run for addresses, which is the same as long as the folder has its name.

    Args:
        root: The watched folder.
        folder: The run folder, ``root`` or a folder below it.
    """
    return hashlib.blake2b(os.fsencode(folder.relative_to(root).as_posix()), digest_size=6).hexdigest()


def _format_value(value: object) -> str:
    text = escape_text(str(list(value) if isinstance(value, tuple) else value))
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}..."
