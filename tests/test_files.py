"""Tests that exceptions become UserErrors, that writes are atomic, and that file names are safe."""

import csv
import errno
import json
import os

import pytest

from ssd_jax.errors import UserError, convert_errors, format_error_reason
from ssd_jax.files import (
    append_to_file_name,
    convert_read_errors,
    convert_write_errors,
    make_safe_file_name,
    write_csv,
    write_text,
)


class SpecialError(UserError):
    pass


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.json"), "No space left on device"),
        (OSError("a library's own text"), "a library's own text"),
        (ValueError("  first line\nsecond line"), "first line"),
        (ValueError(), "ValueError"),
        (OSError(), "OSError"),
    ],
)
def test_format_error_reason_returns_one_line(error, reason):
    assert format_error_reason(error) == reason


def test_convert_errors_message_has_problem_reason_and_advice():
    cause = ValueError("cut short")
    with pytest.raises(UserError) as raised, convert_errors("a.json: not JSON", "Copy it again."):
        raise cause
    assert str(raised.value) == "a.json: not JSON (cut short). Copy it again."
    assert raised.value.__cause__ is cause


def test_convert_errors_message_without_advice_ends_with_the_reason():
    with pytest.raises(UserError) as raised, convert_errors("a.json: not JSON"):
        raise ValueError("cut short")
    assert str(raised.value) == "a.json: not JSON (cut short)"


def test_convert_errors_raises_the_given_error_type():
    with pytest.raises(SpecialError), convert_errors("a", error_type=SpecialError):
        raise ValueError


@pytest.mark.parametrize("error", [UserError("one of ours"), KeyError("another type"), KeyboardInterrupt()])
def test_convert_errors_propagates_exceptions_of_types_not_in_catch(error):
    with pytest.raises(type(error)) as raised, convert_errors("a", catch=(OSError, ValueError)):
        raise error
    assert raised.value is error


def test_convert_errors_propagates_an_exception_if_reason_returns_none():
    with pytest.raises(ValueError, match=r"^b$"), convert_errors("a", reason=lambda error: None):
        raise ValueError("b")


@pytest.mark.parametrize("convert", [convert_read_errors, convert_write_errors])
def test_converters_of_read_and_write_errors_convert_only_os_errors(convert, tmp_path):
    message = r"a\.txt: .*\(No such file or directory\)\. Name another"
    with pytest.raises(UserError, match=message), convert(tmp_path / "a.txt", "Name another."):
        (tmp_path / "a.txt").read_bytes()
    with pytest.raises(ValueError, match=r"^b$"), convert(tmp_path / "a.txt"):
        raise ValueError("b")


def test_write_text_replaces_a_file(tmp_path):
    write_text(tmp_path / "metrics.json", "old")
    write_text(tmp_path / "metrics.json", "new")
    assert (tmp_path / "metrics.json").read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def test_failed_write_text_keeps_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "metrics.json"
    write_text(file, "old")

    def raise_disk_full_error(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", raise_disk_full_error)
    with pytest.raises(UserError, match=r"metrics\.json.*No space left on device"):
        write_text(file, "new")
    assert file.read_text() == "old"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("test", "test"),
        ("VOC2007/trainval+VOC2012/trainval", "VOC2007_trainval_VOC2012_trainval"),
        ("train[:50%]", "train_to50pct"),
        ("train[50%:]", "train_50pctto"),
        ("a b/Zürich-1.5", "a_b_Zürich-1.5"),
    ],
)
def test_make_safe_file_name_replaces_special_characters(name, safe):
    assert make_safe_file_name(name) == safe


def test_write_text_accepts_names_that_are_not_utf8_and_names_of_maximum_length(tmp_path):
    name, file = os.fsdecode(b"caf\xe9.jpg"), tmp_path / ("a" * 250 + ".json")
    write_text(file, json.dumps({"猫": name}, ensure_ascii=False))
    assert json.loads(file.read_bytes()) == {"猫": name}
    assert list(tmp_path.iterdir()) == [file]


def test_write_csv_escapes_control_codes_and_formulas(tmp_path):
    rows = [("=cmd|' /C calc'!A0", "+1", -1.5, "a=b"), ("@x", "-y", None, "two\nlines"), (" =1", "\t=1", 2, 'a,"b"')]
    write_csv(tmp_path / "problems.csv", ("file", "one", "two", "three"), rows)
    with (tmp_path / "problems.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["file", "one", "two", "three"],
            ["'=cmd|' /C calc'!A0", "'+1", "-1.5", "a=b"],
            ["'@x", "'-y", "", r"two\x0alines"],
            ["' =1", r"\x09=1", "2", 'a,"b"'],
        ]


@pytest.mark.parametrize("letter", ["a", "猫", os.fsdecode(b"\xe9")], ids=ascii)
def test_append_to_file_name_keeps_shortened_names_distinct(letter):
    assert append_to_file_name(letter * 5, ".jpg") == f"{letter * 5}.jpg"
    count = 255 // len(os.fsencode(letter))
    names = {append_to_file_name(letter * count + end, ".jpg") for end in "xyz"}
    assert len(names) == 3
    assert all(245 < len(os.fsencode(name)) <= 255 and name.endswith(".jpg") for name in names)


def test_make_safe_file_name_leaves_room_for_suffixes():
    assert make_safe_file_name("x" * 200) == "x" * 200
    assert len(make_safe_file_name("猫" * 100).encode()) <= 200
    assert make_safe_file_name(os.fsdecode(b"caf\xe9")) == "caf"
