"""A path without special characters for a folder of any name, for libraries that do not take every path literally.

Orbax searches a checkpoint for files with a glob pattern that contains the path of the checkpoint, so that a folder
named ``exp[1]`` is not found: training saves its checkpoints, and none of them can be read. TensorStore requires paths
in UTF-8, and etils takes ``/gs/...`` and ``/s3/...`` for cloud storage. Orbax has no option that turns this off.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ssd_jax.files import convert_write_errors
from ssd_jax.portability import make_folder_link, remove_folder_link

_CLOUD = r"(?!/(?:gs|s3|az|hf)/)"
_PLAIN = re.compile(rf"(?:[A-Za-z]:)?{_CLOUD}[\w ./+=,@-]*", re.ASCII)
_LITERAL = re.compile(rf"{_CLOUD}[^*?\[\]{{}}\ud800-\udfff]*", re.DOTALL)
"""Paths that the libraries take literally as far as we know, without a promise in their documentation."""


@contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """Yield a path to a folder that has only letters, digits and a few other characters.

    This is the path itself if it has only such characters. Otherwise, it leads through a temporary link to the parent
    of the folder; the link is removed at the end of the ``with`` block. If the operating system permits no links, a
    path without the characters of glob patterns is used as it is.

    Args:
        folder: Absolute path of a folder, which need not exist. Its own name must have only such characters.

    Raises:
        UserError: If the path has characters of glob patterns, and no link can be created.
    """
    if _PLAIN.fullmatch(folder.as_posix()):
        yield folder
        return
    with ExitStack() as stack:
        parent = folder.parent
        root = _find_temporary_root()
        with convert_write_errors(Path(root), "Set TMPDIR to another folder, or name a --workdir of letters only."):
            try:
                parent = stack.enter_context(_link_temporarily(parent, root))
            except OSError:
                if not _LITERAL.fullmatch(folder.as_posix()):
                    raise
        yield parent / folder.name


@contextmanager
def _link_temporarily(folder: Path, root: str) -> Iterator[Path]:
    """Yield a link to a folder in a new folder in ``root``. Both are removed after the ``with`` block."""
    with tempfile.TemporaryDirectory(prefix="ssd_jax_", dir=root) as temporary:
        link = Path(temporary) / "run"
        make_folder_link(link, folder)
        try:
            yield link
        finally:
            remove_folder_link(link)


def _find_temporary_root() -> str:
    """Return the folder for temporary files, or /tmp if that folder has special characters in its path, too."""
    root = tempfile.gettempdir()
    return root if _PLAIN.fullmatch(Path(root).as_posix()) else "/tmp"
