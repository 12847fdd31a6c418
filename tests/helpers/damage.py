"""Make damaged copies of a valid file, for tests of readers."""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from ssd_jax.errors import UserError

_NEAR_AN_END = 512  # headers and directories are near an end


def damaged_copies(data: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield ``count`` damaged copies of ``data`` with a description of the damage.

    Kinds of damage and parts of the file (beginning, end, anywhere) alternate. The same seed gives the same copies.
    """
    rng = random.Random(seed)
    kinds = (_truncate, _flip_bit, _replace_byte, _large_number, _erase, _remove, _repeat, _append)
    made = 0
    for turn in itertools.count():  # damage may change nothing, such as erasing zeros; then the next kind is tried
        if made == count:
            return
        kind, part = kinds[turn % len(kinds)], turn // len(kinds) % 3
        first, last = [(0, _NEAR_AN_END), (len(data) - _NEAR_AN_END, len(data)), (0, len(data))][part]
        start = rng.randrange(max(first, 0), max(min(last, len(data)), 1))
        mutated = kind(data, start, rng)
        if mutated != data:
            yield f"{kind.__name__.strip('_')} at byte {start} of {len(data)}", mutated
            made += 1


def count_refused(
    read: Callable[[Path], Mapping[str, np.ndarray]], file: Path, copies: Iterable[tuple[str, bytes]]
) -> int:
    """Read damaged copies and count the refused ones.

    Assert that a reader refuses a copy with a message that names the file, or returns numbers of limited size.

    Args:
        read: Reader of weight files.
        file: Name that the copies are written to.
        copies: Description of the damage and bytes of each copy.
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
    return data[:start]


def _flip_bit(data: bytes, start: int, rng: random.Random) -> bytes:
    return _overwrite(data, start, bytes([data[start] ^ 1 << rng.randrange(8)]))


def _replace_byte(data: bytes, start: int, rng: random.Random) -> bytes:
    return _overwrite(data, start, bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))]))


def _large_number(data: bytes, start: int, rng: random.Random) -> bytes:
    """Write a huge size or offset of 4 or 8 bytes, which is negative if it is read as signed."""
    size = rng.choice((4, 8))
    value = rng.choice((1 << 8 * size - 1, (1 << 8 * size - 1) - 1, (1 << 8 * size) - 1, 1 << 8 * size - 8))
    return _overwrite(data, start, value.to_bytes(size, "little"))


def _erase(data: bytes, start: int, rng: random.Random) -> bytes:
    return _overwrite(data, start, bytes(rng.randint(1, 64)))


def _remove(data: bytes, start: int, rng: random.Random) -> bytes:
    return data[:start] + data[start + rng.randint(1, 64) :]


def _repeat(data: bytes, start: int, rng: random.Random) -> bytes:
    end = start + rng.randint(1, 64)
    return data[:end] + data[start:]


def _append(data: bytes, start: int, rng: random.Random) -> bytes:
    return data + data[start : start + 64]


def _overwrite(data: bytes, start: int, piece: bytes) -> bytes:
    return (data[:start] + piece + data[start + len(piece) :])[: len(data)]
