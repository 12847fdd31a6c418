"""Checksum of an exported file: damage, and changes by other programs, are found before the file is used.

The metadata of each file end with the entry ``checksum``, the SHA-256 of the content of the file with zeros in place of
the checksum itself. Each format says what its content is: one or more byte strings, the first of which contains the
metadata.
"""

import hashlib
import re
from pathlib import Path

from ssd_jax.errors import UserError
from ssd_jax.portability import quote_argument

PREFIX = "sha256:"
PLACEHOLDER = PREFIX + "0" * 64
"""Checksum in metadata that are not written yet."""
_DIGITS = re.compile(rb"[0-9a-f]{64}")


def insert_checksum(content: bytes, *others: bytes) -> bytes:
    """Return the first part of a content with its checksum.

    Args:
        content: The part with the metadata.
        others: The other parts.
    """
    start = _find_digits(content)
    assert start is not None, "the metadata have a place for the checksum"
    return content[:start] + _compute_digits(content, start, others) + content[start + 64 :]


def check_content(file: Path | str, content: bytes, *others: bytes) -> None:
    """Check that a content is what `insert_checksum` was called with. A content without a checksum is not checked.

    Args:
        file: The file, for messages.
        content: The part with the metadata.
        others: The other parts.

    Raises:
        UserError: If the content was changed.
    """
    start = _find_digits(content)
    if start is not None and content[start : start + 64] != _compute_digits(content, start, others):
        name = quote_argument(str(file))
        raise UserError(
            f"{file}: the content does not fit its checksum: the file is damaged, or another program changed it. Copy "
            f"or export it again. If the change is wanted, give it a new checksum: ssd-jax export {name} "
            "--accept-changes"
        )


def _find_digits(content: bytes) -> int | None:
    """Return the position of the checksum. It is the last one, so that a name in the metadata is not taken for it."""
    start = content.rfind(PREFIX.encode()) + len(PREFIX)
    return start if start >= len(PREFIX) and _DIGITS.match(content, start) else None


def _compute_digits(content: bytes, start: int, others: tuple[bytes, ...]) -> bytes:
    view = memoryview(content)
    digest = hashlib.sha256()
    for part in (view[:start], b"0" * 64, view[start + 64 :]):
        digest.update(part)
    for part in others:
        digest.update(len(part).to_bytes(8, "little"))  # so that a byte cannot move from one part to the next
        digest.update(part)
    return digest.hexdigest().encode()
