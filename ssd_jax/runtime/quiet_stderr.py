"""Suppress messages that libraries print about themselves, such as those for accelerators that are not present.

This module does not import jax, because the import of jax already prints such messages.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def suppress_stderr() -> Iterator[None]:
    """Hide the stderr output of the ``with`` block, including that of C++ code, unless the block raises an exception.

    Otherwise, libtpu and the stubs of the CUDA libraries print that there is no accelerator, whatever the value of
    TF_CPP_MIN_LOG_LEVEL is.
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
