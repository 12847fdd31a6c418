"""Tests of reading the lines that are appended to a file."""

import os
import random

import pytest

from ssd_jax.watching import log_tail
from ssd_jax.watching.log_tail import LogTail


def append(file, data: bytes) -> None:
    with file.open("ab") as opened:
        opened.write(data)


def test_log_tail_returns_each_line_once_and_only_when_it_is_complete(tmp_path):
    file = tmp_path / "log"
    tail = LogTail(file)
    assert tail.read_new_lines() == ([], False, True), "no file yet"
    append(file, b"one\ntwo\nthr")
    assert tail.read_new_lines() == (["one", "two"], False, True)
    assert tail.read_new_lines() == ([], False, True)
    append(file, b"ee\n")
    assert tail.read_new_lines() == (["three"], False, True)


def test_log_tail_starts_again_if_the_file_is_replaced(tmp_path):
    file = tmp_path / "log"
    tail = LogTail(file)
    file.write_bytes(b"1 a\n2 b\n3 c\n")
    tail.read_new_lines()
    file.write_bytes(b"1 a\n2 B\n3 C\n4 D\n")  # resumed from the first line, and longer than before
    assert tail.read_new_lines() == (["1 a", "2 B", "3 C", "4 D"], True, True)
    file.write_bytes(b"1 a\n")
    assert tail.read_new_lines() == (["1 a"], True, True)
    file.unlink()
    assert tail.read_new_lines() == ([], True, True)
    assert tail.read_new_lines() == ([], False, True)


def test_log_tail_goes_on_if_a_replaced_file_begins_in_the_same_way(tmp_path):
    file = tmp_path / "log"
    tail = LogTail(file)
    file.write_bytes(b"1\n2\n")
    tail.read_new_lines()
    file.unlink()
    file.write_bytes(b"1\n2\n3\n")
    assert tail.read_new_lines() == (["3"], False, True)


def test_log_tail_reads_a_large_file_in_parts_and_only_once(tmp_path, monkeypatch):
    monkeypatch.setattr(log_tail, "CHUNK_BYTES", 1000)
    file = tmp_path / "log"
    lines = [f"line {i}" for i in range(1000)]
    file.write_text("\n".join(lines) + "\n")
    tail = LogTail(file)
    read, parts, is_last = [], 0, False
    while not is_last:
        new, restarted, is_last = tail.read_new_lines()
        read += new
        parts += 1
        assert not restarted
    assert read == lines and parts >= 9


def test_log_tail_leaves_out_a_line_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(log_tail, "CHUNK_BYTES", 100)
    file = tmp_path / "log"
    file.write_bytes(b"x" * 250 + b"\nnext\n")
    tail = LogTail(file)
    read = []
    for _ in range(4):
        read += tail.read_new_lines().lines
    assert read == ["x" * 50, "next"], "what remains of it is as damaged as the line was"


def test_log_tail_returns_odd_bytes_as_replacement_characters(tmp_path):
    file = tmp_path / "log"
    file.write_bytes(b"\xff\xfe\n\0\n\xc3\xa9\n")
    assert LogTail(file).read_new_lines().lines == ["\ufffd\ufffd", "\0", "é"]


def test_log_tail_equals_a_reading_of_the_whole_file_after_random_writes(tmp_path):
    rng = random.Random(0)
    file = tmp_path / "log"
    tail, read, content = LogTail(file), [], b""
    for number in range(300):
        if rng.random() < 0.1:  # resumed from a random line
            lines = content.split(b"\n")
            content = b"\n".join(lines[: rng.randrange(len(lines))])
            content += b"\n" * bool(content)
        content += f"{number}:{rng.random()}\n".encode() * rng.randint(0, 3) + b"cut" * rng.randint(0, 1)
        file.write_bytes(content)
        if rng.random() < 0.5:
            new, restarted, _ = tail.read_new_lines()
            read = ([] if restarted else read) + new
            assert read == content.decode().split("\n")[:-1]


def test_log_tail_refuses_what_is_not_a_file_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(OSError):
            LogTail(tmp_path / name).read_new_lines()
