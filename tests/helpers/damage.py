"""Make damaged copies of a valid weight file, and count how many of them a reader rejects."""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from ssd_jax.errors import UserError

_NEAR_AN_END = 512  # bytes; headers and directories are near the beginning or the end of a file


def make_damaged_copies(data: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield a description of the damage and the bytes for each of ``count`` damaged copies of ``data``.

    The kind of damage and the damaged part of the file (beginning, end or anywhere) change from copy to copy. The same
    seed gives the same copies.
    """
    rng = random.Random(seed)
    kinds = (
        _truncate,
        _flip_bit,
        _replace_byte,
        _write_large_number,
        _zero_bytes,
        _remove_bytes,
        _repeat_bytes,
        _append_copy,
    )
    made = 0
    for turn in itertools.count():  # damage such as erasing zeros may change nothing; then the next kind is tried
        if made == count:
            return
        kind, part = kinds[turn % len(kinds)], turn // len(kinds) % 3
        first, last = [(0, _NEAR_AN_END), (len(data) - _NEAR_AN_END, len(data)), (0, len(data))][part]
        start = rng.randrange(max(first, 0), max(min(last, len(data)), 1))
        mutated = kind(data, start, rng)
        if mutated != data:
            yield f"{kind.__name__.strip('_')} at byte {start} of {len(data)}", mutated
            made += 1


def count_rejected(
    read: Callable[[Path], Mapping[str, np.ndarray]], file: Path, copies: Iterable[tuple[str, bytes]]
) -> int:
    """Return the number of damaged copies that a reader rejects.

    Also assert, for each copy, that the reader either raises a UserError that names the file, or returns numeric arrays
    that take at most eight times the size of the copy in total.

    Args:
        read: Reader of weight files.
        file: Path that each copy is written to.
        copies: Description of the damage, and content, of each copy.
    """
    refused = 0
    for damage, data in copies:
        file.write_bytes(data)
        try:
            tensors = read(file)
        except UserError as error:
            assert str(error).startswith(f"{file}: ") and len(str(error)) < 1000, damage
            refused += 1
        else:
            assert all(tensor.dtype.kind in "fiub" for tensor in tensors.values()), damage
            assert sum(tensor.nbytes for tensor in tensors.values()) <= 8 * len(data), damage
    return refused


def _truncate(data: bytes, start: int, rng: random.Random) -> bytes:
    """Return the data before ``start``."""
    return data[:start]


def _flip_bit(data: bytes, start: int, rng: random.Random) -> bytes:
    """Return the data with one flipped bit in the byte at ``start``."""
    return _overwrite(data, start, bytes([data[start] ^ 1 << rng.randrange(8)]))


def _replace_byte(data: bytes, start: int, rng: random.Random) -> bytes:
    """Return the data with the byte at ``start`` replaced by a random one."""
    return _overwrite(data, start, bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))]))


def _write_large_number(data: bytes, start: int, rng: random.Random) -> bytes:
    """Return the data with a huge integer of 4 or 8 bytes at ``start``.

    Most of these integers are negative if they are read as signed integers.
    """
    size = rng.choice((4, 8))
    value = rng.choice((1 << 8 * size - 1, (1 << 8 * size - 1) - 1, (1 << 8 * size) - 1, 1 << 8 * size - 8))
    return _overwrite(data, start, value.to_bytes(size, "little"))


def _zero_bytes(data: bytes, start: int, rng: random.Random) -> bytes:
    """Return the data with 1 to 64 bytes set to zero, beginning at ``start``."""
    return _overwrite(data, start, bytes(rng.randint(1, 64)))


def _remove_bytes(data: bytes, start: int, rng: random.Random) -> bytes:
    """Return the data with 1 to 64 bytes removed, beginning at ``start``."""
    return data[:start] + data[start + rng.randint(1, 64) :]


def _repeat_bytes(data: bytes, start: int, rng: random.Random) -> bytes:
    """Return the data with 1 to 64 bytes repeated, beginning at ``start``."""
    end = start + rng.randint(1, 64)
    return data[:end] + data[start:]


def _append_copy(data: bytes, start: int, rng: random.Random) -> bytes:
    """Return the data followed by a copy of the 64 bytes that begin at ``start``."""
    return data + data[start : start + 64]


def _overwrite(data: bytes, start: int, piece: bytes) -> bytes:
    """Return the data with ``piece`` written over the bytes that begin at ``start``. The length stays the same."""
    return (data[:start] + piece + data[start + len(piece) :])[: len(data)]
