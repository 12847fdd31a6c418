"""Tests of reading YAML and JSON files with limits."""

from typing import Any

import msgspec
import pytest

from ssd_jax.data.formats.documents import read_json, read_yaml
from ssd_jax.errors import UserError


def write(tmp_path, text):
    file = tmp_path / "file"
    file.write_text(text)
    return file


def test_read_yaml_returns_all_scalars_as_texts(tmp_path):
    assert read_yaml(write(tmp_path, "a: [no, 1.10, 007]\nb: {1: ~}\n")) == {
        "a": ["no", "1.10", "007"],
        "b": {"1": "~"},
    }
    assert read_yaml(write(tmp_path, "")) is None


def test_read_yaml_reads_aliases_that_expand_to_few_entries(tmp_path):
    assert read_yaml(write(tmp_path, "a: &x [1, 2]\nb: [*x, *x]\n"))["b"] == [["1", "2"], ["1", "2"]]


def test_read_yaml_rejects_aliases_that_expand_to_many_entries(tmp_path):
    lines = ["a0: &a0 [" + ", ".join(["x"] * 9) + "]"]
    lines += [f"a{k}: &a{k} [" + ", ".join([f"*a{k - 1}"] * 9) + "]" for k in range(1, 9)]
    with pytest.raises(UserError, match=r"file: .*aliases"):
        read_yaml(write(tmp_path, "\n".join(lines)))
    with pytest.raises(UserError, match=r"file: .*aliases"):
        read_yaml(write(tmp_path, "a: &a [*a]\n"))


def test_read_yaml_rejects_a_repeated_key_with_its_line(tmp_path):
    with pytest.raises(UserError, match=r"file: line 4 .*'0'"):
        read_yaml(write(tmp_path, "names:\n  0: cat\n  1: dog\n  0: cow\n"))


@pytest.mark.parametrize("text", ["[" * 5000 + "]" * 5000, "- " * 5000])
def test_documents_that_are_nested_deeply_are_rejected(tmp_path, text):
    with pytest.raises(UserError, match=r"file: .*(deep|YAML)"):
        read_yaml(write(tmp_path, text))


def test_read_json_rejects_deep_nesting_and_wrong_types(tmp_path):
    with pytest.raises(UserError, match=r"file: .*deep"):
        read_json(write(tmp_path, "[" * 100_000 + "]" * 100_000), Any)
    with pytest.raises(msgspec.ValidationError):
        read_json(write(tmp_path, "[1]"), list[str])
    with pytest.raises(UserError, match="JSON"):
        read_json(write(tmp_path, "[1"), list[int])
