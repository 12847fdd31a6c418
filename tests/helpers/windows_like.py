"""Run commands in a process from which much of what Windows lacks has been taken away.

    python -X warn_default_encoding tests/helpers/windows_like.py WORDS [+ WORDS ...]

Each group of words is the arguments of ``ssd-jax``; ``import-all`` imports every module of the package instead. The
standard library of a POSIX system keeps its own use of POSIX modules. Taken away are also the two packages that the
dependencies leave out on Windows, and reading or writing text without naming its encoding is an error.
"""

import builtins
import importlib
import os
import pkgutil
import shutil
import signal
import stat
import sys
import warnings
from typing import Any, NoReturn

MODULES = ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "posix", "syslog")
PACKAGES = ("array_record", "uvloop")
"""Packages that pip does not install on Windows. Grain imports array_record only on other systems."""
FUNCTIONS = (
    "fork", "forkpty", "uname", "mkfifo", "mknod", "chown", "lchown", "fchmod", "getuid", "geteuid", "getgid", "setsid",
    "killpg", "getpgid", "nice", "getloadavg", "sysconf", "statvfs", "set_blocking", "sched_getaffinity",
    "sched_setaffinity",
)  # fmt: skip
SIGNALS = ("SIGINT", "SIGTERM", "SIGABRT", "SIGFPE", "SIGILL", "SIGSEGV", "SIG_DFL", "SIG_IGN")
"""All signals and handlers that Windows has."""
SIGNAL_FUNCTIONS = ("pthread_kill", "pthread_sigmask", "alarm", "setitimer", "getitimer", "pause", "siginterrupt")


def refuse(*_: Any, **__: Any) -> NoReturn:
    raise OSError(1314, "A required privilege is not held by the client")


def _hide_from_package(name: str, function: Any) -> Any:
    """Return a function that the package cannot call. Libraries call it where they know that this is not Windows."""

    def call(*arguments: Any, **options: Any) -> Any:
        if sys._getframe(1).f_globals.get("__name__", "").startswith("ssd_jax"):
            raise AttributeError(f"module 'os' has no attribute '{name}'")
        return function(*arguments, **options)

    return call


def take_away() -> None:
    """Remove modules and functions from this process. This must be called before libraries are imported."""
    real_import, real_open = builtins.__import__, os.open

    def import_module(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        importer = (globals or {}).get("__name__", "").partition(".")[0]
        is_missing = name in MODULES or (name.partition(".")[0] in PACKAGES and importer != "grain")
        if level == 0 and is_missing and importer not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named '{name}', imported by {importer}", name=name)
        return real_import(name, globals, locals, fromlist, level)

    def open_descriptor(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if not isinstance(path, int) and os.path.isdir(path):
            raise PermissionError(13, "Permission denied", path)
        return real_open(path, flags, *arguments, **options)

    builtins.__import__ = import_module
    shutil._use_fd_functions = False  # shutil.rmtree of POSIX systems opens folders
    os.open = open_descriptor
    os.symlink = os.link = os.kill = refuse
    for name in FUNCTIONS:
        setattr(os, name, _hide_from_package(name, getattr(os, name, refuse)))
    for name in dir(signal):
        if (name.startswith("SIG") and name not in SIGNALS) or name in SIGNAL_FUNCTIONS:
            delattr(signal, name)
    warnings.filterwarnings("error", category=EncodingWarning, module=r"ssd_jax\b|__main__|user_config")


def import_all() -> None:
    import ssd_jax

    for module in pkgutil.walk_packages(ssd_jax.__path__, "ssd_jax."):
        if module.name != "ssd_jax.__main__":
            importlib.import_module(module.name)


def main(words: list[str]) -> None:
    take_away()
    assert not hasattr(signal, "SIGKILL") and stat.S_ISDIR(os.stat(".").st_mode)
    from ssd_jax.__main__ import main as run_command

    while words:
        end = words.index("+") if "+" in words else len(words)
        command, words = words[:end], words[end + 1 :]
        if command == ["import-all"]:
            import_all()
        elif run_command(command) != 0:
            sys.exit(f"{command[0]} failed")


if __name__ == "__main__":
    main(sys.argv[1:])
