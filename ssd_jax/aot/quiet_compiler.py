"""Keeps quiet what accelerators' libraries say on a machine that has no accelerator. Imports no jax, which they
already speak at."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_chatter() -> Iterator[None]:
    """What is written to stderr in the block, by C++ too, is not shown, unless the block fails.

    libtpu and the stub for CUDA's libraries each tell in some lines, whatever TF_CPP_MIN_LOG_LEVEL says, that
    there is no accelerator.
    """
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(screen, said.read())
            raise
        finally:
            os.dup2(screen, 2)
            os.close(screen)
