"""Functions for what differs between Linux, macOS and Windows. What only one of them has is used nowhere else.

tests/test_portability.py checks that no other module of the package uses a module or a function that Windows lacks.
"""

import _thread
import errno
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO, Literal

WINDOWS_FORBIDDEN = '<>:"/\\|?*'
"""Characters that a file name must not contain on Windows; ``/`` is forbidden everywhere."""
_CREATE_NEW_PROCESS_GROUP = 0x200  # subprocess has this constant only on Windows


def interrupt_main_thread() -> None:
    """Make the main thread handle a SIGINT. Where possible, this also ends a system call that it waits for."""
    if hasattr(signal, "pthread_kill"):
        ident = threading.main_thread().ident
        assert ident is not None  # the main thread has been started
        signal.pthread_kill(ident, signal.SIGINT)
    else:
        _thread.interrupt_main()


def make_detached_options() -> dict[str, Any]:
    """Return arguments of `subprocess.Popen` for a child process that does not receive the Ctrl-C of the terminal."""
    if sys.platform == "win32":
        return {"creationflags": _CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def make_folder_link(link: Path, target: Path) -> None:
    """Create a link to a folder: a symbolic link or, where Windows does not permit one, a junction.

    Raises:
        OSError: If no link can be created.
    """
    try:
        link.symlink_to(target, target_is_directory=True)
    except OSError:
        if sys.platform != "win32":
            raise
        import _winapi

        _winapi.CreateJunction(str(target), str(link))


def remove_folder_link(link: Path) -> None:
    """Remove a link that `make_folder_link` created. The folder that it leads to is not changed."""
    if link.is_symlink():
        link.unlink()
    else:  # a junction
        link.rmdir()


def link_or_copy(source: Path, target: Path, kind: Literal["hardlink", "symlink"]) -> bool:
    """Create a link to a file or, where the system or the file system permits none, a copy of it.

    Returns:
        Whether it is a link.

    Raises:
        OSError: If the file can be neither linked nor copied.
    """
    try:
        if kind == "hardlink":
            os.link(os.path.realpath(source), target)
        else:
            target.symlink_to(source.absolute())
    except (OSError, NotImplementedError):  # Windows without developer mode, or another file system
        shutil.copyfile(source, target)
        return False
    return True


def read_largest_memory() -> int:
    """Return the largest memory that this process had so far, in bytes; 0 where the system does not tell it."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, getrusage counts the memory of the process that started this one
        (line,) = (line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


def open_for_lock(folder: Path, *, creates: bool = True) -> int:
    """Return a file descriptor that is the same file for all processes that lock a folder.

    This is the folder itself or, on Windows, where a folder cannot be opened, the file `LOCK_FILE` in it.

    Args:
        folder: The folder.
        creates: Whether to create `LOCK_FILE` if it is needed and does not exist.

    Raises:
        OSError: If it cannot be opened.
    """
    try:
        return os.open(folder, os.O_RDONLY)
    except PermissionError:
        return os.open(folder / LOCK_FILE, os.O_RDWR | (os.O_CREAT if creates else 0))


LOCK_FILE = ".lock"
"""Name of the file that is locked on Windows. It stays in the folder."""


def open_regular_file(file: Path, *, follows_link: bool = True) -> BinaryIO:
    """Open a file for reading if it is a regular file. A named pipe, which would block, raises an error at once.

    Args:
        file: The file.
        follows_link: Whether the file may be a symbolic link to a regular file. Windows cannot tell them apart here.

    Raises:
        OSError: If it cannot be opened, or if it is not a regular file.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(file, flags if follows_link else flags | getattr(os, "O_NOFOLLOW", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a regular file", str(file))
    return os.fdopen(descriptor, "rb")


def quote_argument(text: str) -> str:
    """Return an argument as it has to be written in the shell of this operating system."""
    return subprocess.list2cmdline([text]) if sys.platform == "win32" else shlex.quote(text)


def make_relative_path(path: str | Path, start: str | Path) -> str:
    """Return a path relative to a folder with ``/`` between its parts; the absolute path if no relative one exists.

    On Windows, there is no relative path from one drive to another.
    """
    try:
        relative = os.path.relpath(path, start)
    except ValueError:
        relative = os.path.abspath(path)
    return relative.replace(os.sep, "/")
