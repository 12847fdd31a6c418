"""Tests of the checksum: changed files are refused before a runtime gets them, and can be accepted on purpose."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.cli import run_command
from helpers.exported_files import FORMATS_TO_TEST, write_tiny_file

from ssd_jax.errors import UserError
from ssd_jax.exported.checksum import PLACEHOLDER, PREFIX, check_content, insert_checksum
from ssd_jax.exported.reading import FORMATS, accept_changes, find_format, import_reader, read_program
from ssd_jax.portability import quote_argument

TEXT = f'{{"class_names": ["{PREFIX}{"ab" * 32}"], "checksum": "{PLACEHOLDER}"}} end'.encode()
"""A content with a name that looks like a checksum."""


def test_insert_checksum_changes_only_the_place_of_the_checksum():
    content = insert_checksum(TEXT, b"others")
    assert len(content) == len(TEXT) and content != TEXT
    start = TEXT.index(b"0" * 64)
    assert content[:start] == TEXT[:start] and content[start + 64 :] == TEXT[start + 64 :]
    assert insert_checksum(content, b"others") == content, "an earlier checksum does not count"
    check_content("a.file", content, b"others")


@pytest.mark.parametrize("position", [0, 20, len(TEXT) - 90, len(TEXT) - 1, -1])
def test_check_content_refuses_each_change(position: int):
    content, other = bytearray(insert_checksum(TEXT, b"others")), b"others"
    if position < 0:
        other = b"Others"
    else:
        content[position] ^= 1
    with pytest.raises(UserError, match=r"^a\.file: .*checksum.*--accept-changes$"):
        check_content("a.file", bytes(content), other)


def test_check_content_notices_bytes_that_moved_between_parts():
    content = insert_checksum(TEXT, b"ab", b"c")
    with pytest.raises(UserError):
        check_content("a.file", content, b"a", b"bc")


def test_content_without_a_checksum_is_left_to_the_reader_of_the_format():
    check_content("a.file", b"something else")
    check_content("a.file", b"sha256:0123")


def flip_bit(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 16
    file.write_bytes(content)


def change_metadata(content: bytes) -> bytes:
    """Return the content of a file in which the first class has another name of the same length."""
    for quote in (b'"', b"&quot;"):
        content = content.replace(quote + b"a" + quote, quote + b"z" + quote, 1)
    return content


@pytest.mark.parametrize("name", FORMATS_TO_TEST)
def test_read_program_refuses_a_file_with_one_changed_bit_or_name(tmp_path: Path, name: str):
    file = tmp_path / f"a{FORMATS[name].ending}"
    write_tiny_file(name, file)
    read_program(file)
    weights = file.with_suffix(".bin") if name == "openvino" else file
    original = weights.read_bytes()
    size = len(original)
    for position in (size // 4, size // 3, size // 2):
        flip_bit(weights, position)
        with pytest.raises(UserError, match=rf"a{FORMATS[name].ending}: .*(checksum|damaged)") as caught:
            read_program(file)
        assert "\n" not in str(caught.value)
        weights.write_bytes(original)
    text = change_metadata(file.read_bytes())
    assert text != file.read_bytes()
    file.write_bytes(text)
    with pytest.raises(UserError, match=r"checksum|damaged"):
        read_program(file)


@pytest.mark.skipif(find_spec("onnx") is None, reason="needs the extra onnx")
def test_onnx_file_with_a_damaged_name_of_its_checksum_is_refused(tmp_path: Path):
    """The checksum is not found then, and the text of the metadata is no UTF-8."""
    file = tmp_path / "a.onnx"
    write_tiny_file("onnx", file)
    content = bytearray(file.read_bytes())
    content[content.rindex(b"sha256:")] = 0xFF
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.onnx: .*damaged"):
        read_program(file)


@pytest.mark.skipif(find_spec("onnx") is None, reason="needs the extra onnx")
def test_changed_file_can_be_accepted_on_purpose(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    import onnx

    file = tmp_path / "a b.onnx"
    write_tiny_file("onnx", file, parity=True)
    model = onnx.load(file)
    model.graph.doc_string = "changed by another program"
    onnx.save(model, file)
    assert run_command("evaluate", file) == 2
    message = capsys.readouterr().err
    assert f"ssd-jax export {quote_argument(str(file))} --accept-changes" in message
    assert run_command("export", file, "--accept-changes") == 0
    assert f"ssd-jax evaluate {quote_argument(str(file))} --data.root" in capsys.readouterr().out
    metadata = read_program(file).metadata
    assert metadata.parity is None and metadata.class_names == ("a", "b")
    assert onnx.load(file).graph.doc_string == "changed by another program"


@pytest.mark.parametrize("name", FORMATS_TO_TEST)
def test_accepting_changes_keeps_every_format_readable(tmp_path: Path, name: str):
    file = tmp_path / f"a{FORMATS[name].ending}"
    metadata = write_tiny_file(name, file, parity=True)
    replace = import_reader(name).replace_metadata
    replace(file, metadata)
    assert metadata.parity is not None and read_program(file).metadata == metadata
    accept_changes(file)
    assert read_program(file).metadata.parity is None and find_format(file) == name


def test_export_with_accept_changes_names_what_is_no_exported_file(tmp_path: Path, run_failing: Callable[..., str]):
    (tmp_path / "a.txt").write_text("text")
    assert "a.txt: not an exported file" in run_failing("export", tmp_path / "a.txt", "--accept-changes")
    assert "gone.onnx" in run_failing("export", tmp_path / "gone.onnx", "--accept-changes")


@pytest.fixture
def run_failing(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*argv: str | Path) -> str:
        assert run_command(*argv) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1 and "Traceback" not in error
        return error

    return run
