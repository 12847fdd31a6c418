"""Download files into a cache folder, and check their hashes before anything else reads them.

A file gets its name in the cache only after its hash was checked. Until then it is called ``NAME.part``; an interrupted
download continues from there. Of several processes that need a file, one downloads it and the others wait.
"""

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import filelock

from ssd_jax.errors import UserError
from ssd_jax.files import CACHE_VARIABLE, convert_read_errors, convert_write_errors
from ssd_jax.runtime.progress import show_progress
from ssd_jax.runtime.task import Task

_CHUNK_BYTES = 1 << 18
_TIMEOUTS_S = (10.0, 30.0)
"""Time to wait for a connection, and for the next bytes, in seconds."""
_WAITS_S = (1.0, 2.0, 4.0, 8.0)
"""Time before each further try, in seconds."""
_RETRIED_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_MAX_RATIO = 1.5
"""Maximum size of a download, as a multiple of the expected size."""
_CACHE_ADVICE = f"Name another folder in the environment variable {CACHE_VARIABLE}."


class _LostConnectionError(Exception):
    """A try failed in a way that may be better the next time. The text is the reason."""


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be downloaded."""

    name: str
    """Name of what the file contains, for messages."""
    url: str
    """Address of the file."""
    digest: str
    """Hash of the file: the algorithm, a colon, and hexadecimal digits, or the first eight of them."""
    megabytes: int
    """Approximate size in units of 1 000 000 bytes."""
    license: str
    """License, with its owner."""
    command: str
    """Command that takes the file if it was downloaded in another way, for messages."""

    @property
    def file_name(self) -> str:
        """Name of the file."""
        return PurePosixPath(self.url).name


def fetch_file(remote: RemoteFile, file: Path) -> Path:
    """Download a file into the cache if it is not there.

    The license is printed to stderr before a download. The hash of the file is checked on every call.

    Args:
        remote: The file to download.
        file: Path of the file in the cache.

    Returns:
        ``file``, which has the right hash.

    Raises:
        UserError: If the file cannot be downloaded, has another hash, or cannot be written.
    """
    if _has_digest(file, remote):
        return file
    with _lock(remote, file):
        if not _has_digest(file, remote):  # another process may have downloaded it
            print(format_license(remote), file=sys.stderr)
            part = file.with_name(f"{file.name}.part")
            _download(remote, part)
            with convert_write_errors(file, _CACHE_ADVICE):
                os.replace(part, file)
    return file


def copy_to_cache(remote: RemoteFile, source: Path, file: Path) -> Path:
    """Copy a file that was downloaded in another way into the cache, after checking its hash.

    Args:
        remote: The file as it could be downloaded.
        source: The file that was downloaded, whatever its name is.
        file: Path of the copy in the cache.

    Returns:
        ``file``.

    Raises:
        UserError: If the source cannot be read, has another hash, or the copy cannot be written.
    """
    if not source.is_file():
        raise UserError(f"{source}: no such file")
    found = compute_digest(source, remote.digest)
    if not found.startswith(remote.digest):
        raise UserError(
            f"{source}: is not the file {remote.file_name} of {remote.name}. Its hash is {found}, not {remote.digest}"
        )
    with _lock(remote, file), convert_write_errors(file, _CACHE_ADVICE):
        part = file.with_name(f"{file.name}.part")
        shutil.copyfile(source, part)
        os.replace(part, file)
    return file


def compute_digest(file: Path, like: str) -> str:
    """Return the hash of a file with the algorithm that another hash names, such as ``sha256:0123...``."""
    algorithm, _, _ = like.partition(":")
    with convert_read_errors(file), file.open("rb") as stream:
        return f"{algorithm}:{hashlib.file_digest(stream, algorithm).hexdigest()}"


def format_license(remote: RemoteFile) -> str:
    """Return a line with the license, the size and the address of a file."""
    return f"{remote.name}: license {remote.license}; {remote.megabytes} MB from {remote.url}"


def _has_digest(file: Path, remote: RemoteFile) -> bool:
    return file.is_file() and compute_digest(file, remote.digest).startswith(remote.digest)


@contextmanager
def _lock(remote: RemoteFile, file: Path) -> Iterator[None]:
    """Hold the lock of a file in the cache during the ``with`` block, after waiting for a process that downloads it."""
    lock = filelock.FileLock(file.with_name(f"{file.name}.lock"))
    with convert_write_errors(file, _CACHE_ADVICE):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            print(f"Waiting for another process that downloads {remote.name}", file=sys.stderr)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _download(remote: RemoteFile, part: Path) -> None:
    """Download a file, or the rest of it, and check its hash. If the hash is wrong, the file is deleted.

    Raises:
        UserError: If the file cannot be downloaded or written, or has another hash than the catalog.
    """
    is_continued = part.exists()
    _download_with_retries(remote, part)
    found = compute_digest(part, remote.digest)
    if is_continued and not found.startswith(remote.digest):
        part.unlink()  # its beginning may have been of another file
        _download_with_retries(remote, part)
        found = compute_digest(part, remote.digest)
    if not found.startswith(remote.digest):
        part.unlink()
        raise UserError(
            f"{remote.name}: the file at {remote.url} has the hash {found}, not {remote.digest}. It was deleted. "
            + _describe_other_way(remote)
        )


def _download_with_retries(remote: RemoteFile, part: Path) -> None:
    with show_progress(f"downloading {remote.name}", unit="B") as task, convert_write_errors(part, _CACHE_ADVICE):
        for wait in (*_WAITS_S, None):
            try:
                return _download_rest(remote, part, task)
            except _LostConnectionError as error:
                if wait is None:
                    raise UserError(
                        f"{remote.name}: {remote.url} could not be downloaded ({error}). {_describe_other_way(remote)}"
                    ) from error
                time.sleep(wait)


def _download_rest(remote: RemoteFile, part: Path, task: Task) -> None:
    """Download the bytes of a file that are missing.

    Raises:
        _LostConnectionError: If another try may succeed.
        UserError: If the server refuses the file, or sends far more than it should.
    """
    import requests  # takes 0.1 s, and most commands download nothing

    host = urlsplit(remote.url).netloc
    limit = remote.megabytes * _MAX_RATIO * 1e6
    start = part.stat().st_size if part.exists() else 0
    reason = f"no connection to {host}"
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        with requests.get(remote.url, headers=headers, stream=True, timeout=_TIMEOUTS_S) as response:
            reason = "the connection was lost"
            if response.status_code == 416:  # there is nothing after what we have; if it is the file, its hash is right
                if compute_digest(part, remote.digest).startswith(remote.digest):
                    return
                part.unlink()
                raise _LostConnectionError("the server cannot continue a download")
            if response.status_code in _RETRIED_STATUSES:
                raise _LostConnectionError(f"HTTP status {response.status_code}")
            if not response.ok:
                raise UserError(
                    f"{remote.name}: {remote.url} could not be downloaded (HTTP status {response.status_code}). "
                    + _describe_other_way(remote)
                )
            if response.status_code != 206:
                start = 0  # the server sends the whole file
            length = response.headers.get("Content-Length", "")
            task.total, task.done = (start + int(length) if length.isdecimal() else None), start
            with part.open("ab" if start else "wb") as stream:
                for chunk in response.iter_content(_CHUNK_BYTES):
                    stream.write(chunk)
                    task.update(len(chunk))
                    if task.done > limit:
                        raise UserError(
                            f"{remote.name}: {remote.url} is not the file: it has more than {limit:.0f} bytes"
                        )
    except requests.exceptions.Timeout:
        raise _LostConnectionError(f"{host} does not answer") from None
    except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError):
        raise _LostConnectionError(reason) from None
    except requests.exceptions.RequestException as error:
        raise UserError(f"{remote.name}: {remote.url} could not be downloaded ({error})") from error
    if task.total is not None and task.done < task.total:
        raise _LostConnectionError(reason)


def _describe_other_way(remote: RemoteFile) -> str:
    return f"If you get the file in another way: {remote.command}"
