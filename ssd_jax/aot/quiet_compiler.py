"""Suppress what the libraries of accelerators print on a machine without one.

This module does not import jax, because importing jax already makes them print.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def suppress_stderr() -> Iterator[None]:
    """Show what the block writes to stderr, including output of C++, only if the block fails.

    libtpu and the stub for CUDA's libraries print that there is no accelerator, for any TF_CPP_MIN_LOG_LEVEL.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException:
            captured.seek(0)
            os.write(terminal, captured.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
