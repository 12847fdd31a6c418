"""Tests of finding the inputs of ``ssd-jax predict`` and choosing their output files."""

import os
from pathlib import Path

import pytest

from ssd_jax.errors import UserError
from ssd_jax.inputs.finding import find_inputs
from ssd_jax.predictions.targets import choose_targets


def find(*paths, out="out"):
    """Return the output files by the names of the images."""
    inputs = find_inputs(paths, Path(out)).inputs
    targets = choose_targets(inputs, Path(out))
    return {item.location: target.as_posix() for item, target in zip(inputs, targets, strict=True)}


def test_find_inputs_returns_images_of_all_formats_sorted_by_path(make_files):
    make_files("d/b.jpg", "d/a.PNG", "d/c.HEIC", "d/d.jfif", "d/e.avif", "d/f.jp2", "d/deep/er/g.webp", "d/notes.txt")
    assert find("d") == {
        "d/a.PNG": "a.PNG.jpg", "d/b.jpg": "b.jpg", "d/c.HEIC": "c.HEIC.jpg", "d/d.jfif": "d.jfif.jpg",
        "d/deep/er/g.webp": "deep/er/g.webp.jpg", "d/e.avif": "e.avif.jpg", "d/f.jp2": "f.jp2.jpg",
    }  # fmt: skip


def test_find_inputs_returns_a_named_file_whatever_its_name(make_files):
    make_files("notes.md", ".hidden")
    assert find("notes.md", ".hidden") == {"notes.md": "notes.md.jpg", ".hidden": ".hidden.jpg"}


def test_find_inputs_leaves_out_the_output_folder(make_files):
    make_files("d/a.jpg", "d/out/a.jpg", "d/out/predictions.json")
    assert find("d", out="d/out") == {"d/a.jpg": "a.jpg"}
    assert find_inputs(["d"], Path("d/out")).skipped == []


def test_find_inputs_follows_links_but_no_loops(make_files):
    make_files("d/a.jpg", "elsewhere/b.jpg", "c.jpg")
    Path("d/linked").symlink_to(Path("elsewhere").absolute())
    Path("d/loop").symlink_to(Path("d").absolute())
    Path("d/c.jpg").symlink_to(Path("c.jpg").absolute())
    assert list(find("d")) == ["d/a.jpg", "d/c.jpg", "d/linked/b.jpg"]


def test_find_inputs_does_not_overwrite_results_of_images_with_equal_names(make_files):
    make_files("a/q.jpg", "b/q.jpg", "c/deep/q.jpg", "d/r.jpg")
    assert find("a/q.jpg", "b/q.jpg") == {"a/q.jpg": "a/q.jpg", "b/q.jpg": "b/q.jpg"}
    assert list(find("a", "b", "c/deep").values()) == ["a/q.jpg", "b/q.jpg", "c/deep/q.jpg"]
    assert list(find("a", "d").values()) == ["q.jpg", "r.jpg"]
    assert list(find("a/q.jpg", "a", os.path.abspath("a/q.jpg"))) == ["a/q.jpg"], "one image is predicted once"


def test_find_inputs_numbers_output_files_that_would_still_be_equal(make_files):
    make_files("d/a.png", "d/a.png.jpg", "d/A.png")
    assert list(find("d").values()) == ["A.png.jpg", "a.png_2.jpg", "a.png_3.jpg"]


def test_find_inputs_shortens_names_that_would_become_too_long(make_files):
    long, other = "ä" * 125 + ".png", "ä" * 125 + ".bmp"
    make_files(f"d/{long}", f"d/{other}")
    targets = list(find("d").values())
    assert len(set(targets)) == 2
    for target in targets:
        Path(target).write_text("", encoding="utf-8")


def test_find_inputs_counts_and_names_what_it_skips(make_files):
    make_files("d/a.jpg", "d/b.mp4", "d/c.txt", "d/deep/d.cr2", "d/e.json", "d/.DS_Store", "d/._a.jpg")
    os.mkfifo("d/pipe.jpg")
    Path("d/broken.jpg").symlink_to("nowhere.jpg")
    assert find_inputs(["d", "d"], Path("out")).skipped == [
        "d: skipped 4 files that are not images by their names: b.mp4, c.txt, deep/d.cr2, ... "
        "(to detect in a video, name the video itself)",
        "d: skipped 2 hidden files and folders",
        "d: skipped 2 that cannot be read: broken.jpg (No such file or directory), pipe.jpg (not a regular file)",
    ]


def test_find_inputs_rejects_a_path_that_is_not_an_image(make_files):
    make_files("empty/clip.mp4")
    os.mkfifo("pipe.jpg")
    with pytest.raises(UserError, match=r"typo: .*No such file"):
        find("typo")
    with pytest.raises(UserError, match=r"^empty contains no images .*\.heic.*clip\.mp4"):
        find("empty")
    with pytest.raises(UserError, match=r"pipe\.jpg: is a named pipe"):
        find("pipe.jpg")
