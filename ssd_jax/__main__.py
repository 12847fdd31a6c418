"""Entry point of ``ssd-jax`` and of ``python -m ssd_jax``."""

import errno
import io
import os
import signal
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ssd_jax.portability import interrupt_main_thread


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return the exit code.

    Args:
        argv: Arguments after ``ssd-jax``. None: those of the process.
    """
    # XLA prints its warnings, and errors such as "very slow compile", unless this is set before it is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        with second_interrupt_ends_process(), closed_pipes_ignored():
            # Imported here, so that Ctrl-C during the imports is handled as well.
            from ssd_jax.commands.main import main as run_command

            return run_command(argv)
    except KeyboardInterrupt as interrupt:
        advice = " The same command resumes from the last checkpoint, if there is one." if argv[:1] == ["train"] else ""
        print(f"\n{interrupt}" if interrupt.args else f"\nStopped.{advice}", file=sys.stderr)
        return 130


@contextmanager
def second_interrupt_ends_process() -> Iterator[None]:
    """Make the second Ctrl-C in the ``with`` block end the process at once, even during a call into C++.

    The first one raises KeyboardInterrupt, as usual. But C++ code delays it until it returns, and Python drops an
    exception in a callback of the garbage collector, such as the one of JAX. It is then raised again a little later.
    """
    if threading.current_thread() is not threading.main_thread():  # Python allows signal handlers only there
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt

    def repeat_dropped_interrupt(dropped: Any) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            previous_hook(dropped)
            return
        signal.signal(signal.SIGINT, interrupt)
        threading.Timer(0.05, interrupt_main_thread).start()

    previous_hook, sys.unraisablehook = sys.unraisablehook, repeat_dropped_interrupt
    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        sys.unraisablehook = previous_hook


class _PipeWriter(io.FileIO):
    """Output to a pipe. After the reader of the pipe has closed it, as `head` does, all output is discarded."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            # Windows reports a closed pipe as an invalid argument.
            if not isinstance(error, BrokenPipeError) and error.errno != errno.EINVAL:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return len(data)


@contextmanager
def closed_pipes_ignored() -> Iterator[None]:
    """Let a command finish and write its files, although the reader of its output has closed the pipe.

    In the ``with`` block, the standard streams that are pipes discard their output after that.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_with_ignored_closed_pipe, before)
    try:
        yield
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # a process without a console has None
            stream.flush()
        sys.stdout, sys.stderr = before


def _with_ignored_closed_pipe(stream: Any) -> Any:
    if not isinstance(stream, io.TextIOWrapper) or stream.closed or not _is_pipe(stream):
        return stream
    stream.flush()
    buffer = io.BufferedWriter(_PipeWriter(stream.fileno(), "w", closefd=False))
    return io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=stream.line_buffering)


def _is_pipe(stream: io.TextIOWrapper) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except OSError:  # not an open file
        return False


if __name__ == "__main__":
    sys.exit(main())
