"""Tests of finding inputs by patterns, in lists, at addresses and as numbers of cameras."""

import io
import sys
from pathlib import Path

import pytest

from ssd_jax.errors import UserError
from ssd_jax.files import write_text
from ssd_jax.inputs.finding import Input, find_inputs
from ssd_jax.predictions.writers import open_writers


def find(*sources):
    return [item.location for item in find_inputs(sources).inputs]


# ---- patterns ----


def test_pattern_matches_images_and_videos_by_name(make_files):
    make_files("d/a.jpg", "d/b.png", "d/c.MP4", "d/notes.txt", "d/deep/e.jpg")
    assert find("d/*.jpg") == ["d/a.jpg"]
    assert find("d/**/*.jpg") == ["d/a.jpg", "d/deep/e.jpg"]
    found = find_inputs(["d/*"])
    assert [item.location for item in found.inputs] == ["d/a.jpg", "d/b.png", "d/c.MP4", "d/deep/e.jpg"]
    assert [item.kind for item in found.inputs] == ["image", "image", "video", "image"]
    assert found.skipped == ["d/*: skipped 1 file that is not an image by its name: notes.txt"]
    assert find("d/[ab].*", "d/a.jpg") == ["d/a.jpg", "d/b.png"]


def test_pattern_keeps_the_folders_after_its_fixed_part(make_files):
    make_files("in/x/a.jpg", "in/y/a.jpg")
    assert [item.relative for item in find_inputs(["in/*/a.jpg"]).inputs] == [Path("x/a.jpg"), Path("y/a.jpg")]


@pytest.mark.parametrize("pattern", ["nothing*.jpg", "*.txt", "a[0-9].png"])
def test_pattern_without_matches_is_an_error(make_files, pattern):
    make_files("notes.txt")
    with pytest.raises(UserError, match="matches no images") as error:
        find(pattern)
    assert pattern in str(error.value)


def test_file_whose_name_looks_like_a_pattern_is_found(make_files):
    make_files("a[1].jpg", "b*.jpg")
    assert find("a[1].jpg", "b*.jpg") == ["a[1].jpg", "b*.jpg"]


# ---- lists ----

ODD_NAMES = ["a b.jpg", " leading.jpg", "trailing .jpg ", "ünï.jpg", "#hash.jpg", "-dash.jpg", "x\x0by.jpg", "*.jpg"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_list_names_files_exactly(make_files, end, encoding):
    make_files(*ODD_NAMES)
    Path("list.txt").write_bytes((end.join(["", *ODD_NAMES, ""]) + end).encode(encoding))
    assert find("list.txt") == ODD_NAMES


def test_list_may_name_bytes_that_are_not_utf_8(make_files):
    make_files("caf\udce9.jpg")
    Path("list.txt").write_bytes(b"caf\xe9.jpg\n")
    assert find("list.txt") == ["caf\udce9.jpg"]


def test_list_names_folders_addresses_videos_and_missing_files(make_files):
    make_files("d/a.jpg", "d/b.png", "clip.mp4", "d/empty/notes.md")
    Path("list.txt").write_text("d\nhttp://host/c.jpg\nclip.mp4\nmissing.jpg\nd/empty\n", encoding="utf-8")
    found = find_inputs(["list.txt"]).inputs
    assert [item.location for item in found] == ["d/a.jpg", "d/b.png", "http://host/c.jpg", "clip.mp4", "missing.jpg"]
    assert [item.kind for item in found] == ["image", "image", "address", "video", "image"]


def test_unusable_sources_do_not_keep_others_from_being_found(make_files):
    make_files("a.jpg", "d/b.png", "empty/notes.md", "l.txt")
    Path("list.txt").write_text("empty\nhttps://host/c.mp4\nd/b.png\n", encoding="utf-8")
    sources = ("nothing.jpg", "a.jpg", "empty", "no*.jpg", "ftp://host/x.jpg", "l.txt", "list.txt", "nothing.jpg", "d")
    found = find_inputs(sources)
    assert [item.location for item in found.inputs] == ["a.jpg", "d/b.png"]
    begins = [
        "nothing.jpg: can't be read",
        "empty contains no images",
        "no*.jpg: this pattern",
        "ftp://host/x.jpg: images",
    ]
    begins += ["l.txt lists no images", "https://host/c.mp4: videos"]
    for line, begin in zip(found.unusable, begins, strict=True):
        assert line.startswith(begin), line


def test_error_names_all_sources_if_none_is_usable(make_files):
    make_files("empty/notes.md", "list.txt")
    Path("list.txt").write_text("empty\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        find("nothing.jpg", "list.txt")
    assert [line.split()[0] for line in str(error.value).splitlines()] == ["nothing.jpg:", "empty"]


# ---- folders that predict wrote ----


@pytest.fixture
def photos_and_output(make_files):
    """Make a folder with photographs, two output folders of predict, and a folder with another predictions.json."""
    make_files("in/a.jpg", "in/sub/b.jpg", "in/other/c.jpg", "in/out/a.jpg", "in/out/crops/cat/a_1.jpg")
    make_files("in/sub/csv/images/b.jpg", "in/sub/csv/.ssd_jax_predictions", "in/out/clip.mp4")
    Path("in/other/predictions.json").write_text('[{"boxes": []}]', encoding="utf-8")
    write_text(Path("in/other/more.txt"), "")
    with open_writers(["json"], Path("in/out"), ("cat",)):
        pass


def test_folders_that_predict_wrote_are_left_out(photos_and_output):
    found = find_inputs(["in"])
    assert [item.location for item in found.inputs] == ["in/a.jpg", "in/other/c.jpg", "in/sub/b.jpg"]
    assert "in: skipped 2 folders that predict wrote: out, sub/csv" in found.skipped
    assert find("in/sub") == ["in/sub/b.jpg"]
    assert find("in/out") == ["in/out/a.jpg", "in/out/crops/cat/a_1.jpg"], "the user named it"


@pytest.mark.parametrize("pattern", ["in/**/*.jpg", "in/*"])
def test_pattern_leaves_out_what_predict_wrote(photos_and_output, pattern):
    found = find_inputs([pattern])
    assert [item.location for item in found.inputs] == ["in/a.jpg", "in/other/c.jpg", "in/sub/b.jpg"]
    assert any(
        "folders that predict wrote" in line or "folder that predict wrote: out" in line for line in found.skipped
    )


def test_paths_in_a_list_are_relative_to_the_current_folder_or_to_that_of_the_list(make_files):
    make_files("set/a.jpg", "set/b.jpg", "b.jpg")
    Path("set/list.txt").write_text("a.jpg\nb.jpg\nset/a.jpg\n", encoding="utf-8")
    assert find("set/list.txt") == ["set/a.jpg", "b.jpg"], "each file once"


@pytest.mark.parametrize("content", [b"", b"\n \r\n", b"\x00\x01\x02a.jpg"])
def test_list_without_paths_is_an_error(make_files, content):
    make_files("list.txt")
    Path("list.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"list\.txt .*one path"):
        find("list.txt")


def test_dash_reads_the_list_from_the_standard_input(make_files, monkeypatch):
    make_files("a.jpg", "b.jpg")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.jpg\nb.jpg\n")))
    assert find("-") == ["a.jpg", "b.jpg"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(UserError, match="standard input lists no images"):
        find("-")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="no standard input"):
        find("-")


# ---- addresses and cameras ----


@pytest.mark.parametrize(
    ("address", "relative"),
    [
        ("http://host/d/a%20b.jpg?size=3#x", "a b.jpg"),
        ("HTTPS://host/", "host"),
        ("https://host:8000", "host"),
        ("https://host/a%2F..%2Fb.png", "a_.._b.png"),
        ("https://host/%2e%2e", "host"),
    ],
)
def test_output_of_an_address_is_named_after_its_file(address, relative):
    assert find_inputs([address]).inputs == [Input("address", address, Path(relative))]


@pytest.mark.parametrize("address", ["ftp://host/a.jpg", "rtsp://host/stream", "http:///a.jpg", "https://host/a.mp4"])
def test_other_addresses_are_errors(address):
    with pytest.raises(UserError) as error:
        find(address)
    assert str(error.value).startswith(address) and len(str(error.value).splitlines()) == 1


def test_number_is_a_camera_unless_there_is_a_file(make_files):
    assert find_inputs(["00"]).inputs == [Input("camera", "0", Path("camera_0"))]
    make_files("7")
    assert find_inputs(["7"]).inputs == [Input("image", "7", Path("7"))]


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + ".jpg", "typo/"])
def test_path_that_cannot_exist_is_an_error(make_files, name):
    with pytest.raises(UserError, match="can't be read"):
        find(name)
