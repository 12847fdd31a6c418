"""Damaged copies of a good file, for tests of readers: each is either refused or read, and nothing else happens."""

import itertools
import random
from collections.abc import Iterator

_NEAR_AN_END = 512  # where formats have their headers and directories


def mutations(data: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """``count`` damaged copies of ``data``, each with what was done to it; the same for the same seed.

    Kinds of damage and the part of the file that is hit (beginning, end, anywhere) take turns.
    """
    chance = random.Random(seed)
    kinds = (_truncate, _flip_bit, _replace_byte, _large_number, _erase, _remove, _repeat, _append)
    made = 0
    for turn in itertools.count():  # some damage, such as erasing zeros, is none, and the next kind has its turn
        if made == count:
            return
        kind, part = kinds[turn % len(kinds)], turn // len(kinds) % 3
        first, last = [(0, _NEAR_AN_END), (len(data) - _NEAR_AN_END, len(data)), (0, len(data))][part]
        start = chance.randrange(max(first, 0), max(min(last, len(data)), 1))
        mutated = kind(data, start, chance)
        if mutated != data:
            yield f"{kind.__name__.strip('_')} at byte {start} of {len(data)}", mutated
            made += 1


def _truncate(data: bytes, start: int, chance: random.Random) -> bytes:
    return data[:start]


def _flip_bit(data: bytes, start: int, chance: random.Random) -> bytes:
    return _put(data, start, bytes([data[start] ^ 1 << chance.randrange(8)]))


def _replace_byte(data: bytes, start: int, chance: random.Random) -> bytes:
    return _put(data, start, bytes([chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))]))


def _large_number(data: bytes, start: int, chance: random.Random) -> bytes:
    """A size or an offset out of all proportion, of 4 or 8 bytes; negative where it is read as signed."""
    size = chance.choice((4, 8))
    value = chance.choice((1 << 8 * size - 1, (1 << 8 * size - 1) - 1, (1 << 8 * size) - 1, 1 << 8 * size - 8))
    return _put(data, start, value.to_bytes(size, "little"))


def _erase(data: bytes, start: int, chance: random.Random) -> bytes:
    return _put(data, start, bytes(chance.randint(1, 64)))


def _remove(data: bytes, start: int, chance: random.Random) -> bytes:
    return data[:start] + data[start + chance.randint(1, 64) :]


def _repeat(data: bytes, start: int, chance: random.Random) -> bytes:
    end = start + chance.randint(1, 64)
    return data[:end] + data[start:]


def _append(data: bytes, start: int, chance: random.Random) -> bytes:
    return data + data[start : start + 64]


def _put(data: bytes, start: int, piece: bytes) -> bytes:
    return (data[:start] + piece + data[start + len(piece) :])[: len(data)]
