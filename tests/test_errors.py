"""Tests of the escape that makes names printable."""

import os

import pytest

from ssd_jax.errors import UserError, escape_text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a red car, 50 %", "a red car, 50 %"),
        ("naïve Kätzchen 猫 قط 🐈", "naïve Kätzchen 猫 قط 🐈"),
        ("👩\u200d🚀 می\u200cرم", "👩\u200d🚀 می\u200cرم"),
        (r"C:\new\x1b $\alpha_1$ {x}", r"C:\new\x1b $\alpha_1$ {x}"),
        ("a\nwarning: forged", r"a\x0awarning: forged"),
        ("\x1b]0;title\x07\x1b[31mred", r"\x1b]0;title\x07\x1b[31mred"),
        ("a\tb\r\x7f\0", r"a\x09b\x0d\x7f\x00"),
        ("\x9b31m \u2028 \u202egpj.exe \ufeff", r"\u009b31m \u2028 \u202egpj.exe \ufeff"),
        (os.fsdecode(b"caf\xe9.jpg"), r"caf\xe9.jpg"),
        ("\ud800 \U000e0041", r"\ud800 \U000e0041"),
    ],
    ids=ascii,
)
def test_escape_text_escapes_only_characters_that_cannot_be_shown(text, escaped):
    assert escape_text(text) == escape_text(escaped) == escaped
    escaped.encode()


def test_user_error_escapes_each_line_of_its_message():
    error = UserError("a\nerror: b: cannot be read", "\x1b[2JRename it.")
    assert str(error) == "a\\x0aerror: b: cannot be read\n\\x1b[2JRename it."
