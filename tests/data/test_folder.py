"""Tests of listing a folder, and of finding files whose paths are written in another way."""

import os
import unicodedata

import pytest

from ssd_jax.data.folder import AmbiguousPathError, Folder, is_hidden, list_files, path_tails, spelling_key


def write_files(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_list_files_passes_over_hidden_files_and_leftovers(tmp_path):
    write_files(tmp_path, "b/c.jpg", "a.jpg", "._a.jpg", ".idea/x.xml", "__MACOSX/a.jpg", "b/Thumbs.db", "desktop.ini")
    write_files(tmp_path, ".ipynb_checkpoints/a.jpg", "lost+found/a.jpg", "@eaDir/a.jpg")
    listing = list_files(tmp_path)
    assert listing.files == ("a.jpg", "b/c.jpg") and listing.unread == ()
    assert listing.hidden == 8


def test_list_files_follows_links_and_ends_in_loops(tmp_path):
    write_files(tmp_path, "real/a.jpg", "elsewhere/deep/b.jpg")
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "real")
    (root / "c.jpg").symlink_to(tmp_path / "elsewhere" / "deep" / "b.jpg")
    (tmp_path / "real" / "loop").symlink_to(root)
    (root / "broken.jpg").symlink_to(tmp_path / "nowhere")
    listing = list_files(root)
    assert listing.files == ("c.jpg", "linked/a.jpg")
    assert len(listing.unread) == 1 and listing.unread[0].startswith("broken.jpg (")


def test_list_files_ends_for_folders_that_link_to_each_other(tmp_path):
    names = [f"f{k}" for k in range(6)]
    for name in names:
        write_files(tmp_path, f"{name}/{name}.jpg")
    for name in names:
        for other in names:
            if other != name:
                (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    files = list_files(tmp_path).files
    assert {file.rpartition("/")[2] for file in files} == {f"{name}.jpg" for name in names}
    assert len(files) < 100


def test_list_files_never_opens_a_named_pipe_or_an_unreadable_folder(tmp_path, monkeypatch):
    write_files(tmp_path, "a.jpg", "locked/b.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    real_listdir = os.listdir

    def listdir(path):
        if str(path).endswith("locked/"):
            raise PermissionError(13, "Permission denied")
        return real_listdir(path)

    monkeypatch.setattr(os, "listdir", listdir)  # the superuser may enter any folder
    listing = list_files(tmp_path)
    assert listing.files == ("a.jpg",)
    assert listing.unread == ("locked/ (Permission denied)", "pipe.jpg (not a regular file)")


def test_list_files_keeps_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    write_files(tmp_path, name)
    assert list_files(tmp_path).files == (name,) and Folder(tmp_path).images == (name,)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A.JPG", "a.jpg"),
        ("caf\u00e9.jpg", unicodedata.normalize("NFD", "caf\u00e9.jpg")),
        ("a%20b.jpg", "a b.jpg"),
        ("a.jpg?width=3", "a.jpg"),
    ],
)
def test_spelling_key_is_equal_for_spellings_of_a_name(one, other):
    assert spelling_key(one) == spelling_key(other) != spelling_key("other.jpg")


@pytest.mark.parametrize("path", ["/srv/b/a.jpg", "C:\\srv\\b\\a.jpg", "./srv/../srv/b//a.jpg"])
def test_path_tails_ignore_drives_and_empty_parts(path):
    assert path_tails(path)[-3:] == ["srv/b/a.jpg", "b/a.jpg", "a.jpg"]


def test_find_image_prefers_the_longest_end_of_the_path(tmp_path):
    write_files(tmp_path, "x/1.jpg", "x/b/1.jpg", "y/b/1.jpg", "y/2.png")
    folder = Folder(tmp_path)
    assert folder.find_image("/data/x/b/1.jpg", rank=lambda place: 0) == "x/b/1.jpg"
    assert folder.find_image("Y\\B\\1.JPG", rank=lambda place: 0) == "y/b/1.jpg"
    assert folder.find_image("z/2.png") == "y/2.png" and folder.find_image("3.png") is None
    with pytest.raises(AmbiguousPathError) as error:
        folder.find_image("b/1.jpg", rank=lambda place: 0)
    assert error.value.choices == ("x/b/1.jpg", "y/b/1.jpg")


def test_find_image_uses_the_rank_of_folders(tmp_path):
    write_files(tmp_path, "x/1.jpg", "y/1.jpg")
    folder = Folder(tmp_path)
    assert folder.find_image("1.jpg", rank=lambda place: place != "y") == "y/1.jpg"
    assert folder.find_image("1.jpg", rank=lambda place: None if place == "y" else 0) == "x/1.jpg"
    assert folder.find_image("1.jpg", rank=lambda place: None) is None


def test_closest_image_is_the_one_with_the_most_similar_name(tmp_path):
    write_files(tmp_path, "x/photo_01.jpg", "y/scan_77.jpg")
    assert Folder(tmp_path).image_with_most_similar_name("z/photo_O1.jpg") == "x/photo_01.jpg"
    assert Folder(tmp_path).image_with_most_similar_name("q.jpg") is None


@pytest.mark.parametrize("name", [".git", "._a.jpg", "__MACOSX", "THUMBS.DB", "Desktop.ini", "lost+found"])
def test_is_hidden_is_true_for_leftovers(name):
    assert is_hidden(name) and not is_hidden(name.strip("._") + "_photos.jpg")
