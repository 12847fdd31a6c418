"""Tests of ``ssd-jax predict``."""

import io
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.cli import run_command
from PIL import Image

from ssd_jax.commands.predict import show_views
from ssd_jax.data.formats.shapes import CLASS_NAMES, ShapesSource
from ssd_jax.errors import escape_text
from ssd_jax.predictions import video_writer
from ssd_jax.runs import run_folder
from ssd_jax.runtime.task import Task


@pytest.fixture
def photos(tmp_path: Path, trained_run: Path) -> Path:
    """Create a folder with images of 64 x 64 and 256 x 128 px, one of them in a subfolder, and return its path.

    The max_image_size of trained_run is 64.
    """
    source = ShapesSource(run_folder.read_config(trained_run).data.shapes, "test")
    folder = tmp_path / "photos"
    (folder / "holiday" / "sea").mkdir(parents=True)
    small = Image.fromarray(np.array(source.image(0)))
    large = small.resize((256, 128), Image.Resampling.NEAREST)
    small.save(folder / "a.png")
    small.save(folder / "a.bmp")
    large.save(folder / "a.jpg", quality=95)
    large.save(folder / "holiday" / "sea" / "b.PNG")
    return folder


def test_predict_writes_drawings_and_detections_for_a_folder(trained_run, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_command("predict", trained_run, photos, "--out", out, "--score", "0.02") == 0
    predictions = json.loads((out / "predictions.json").read_text())
    images = {Path(image["file"]).relative_to(photos).as_posix(): image for image in predictions["images"]}
    assert list(images) == ["a.bmp", "a.jpg", "a.png", "holiday/sea/b.PNG"]
    pictures = {file.relative_to(out).as_posix() for file in out.rglob("*.jpg")}
    assert pictures == {"a.bmp.jpg", "a.jpg", "a.png.jpg", "holiday/sea/b.PNG.jpg"}, "no image overwrites another one"
    for image in images.values():
        with Image.open(image["picture"]) as picture:
            assert picture.size == (image["width"], image["height"])
        for detection in image["detections"]:
            assert detection["name"] in CLASS_NAMES and detection["score"] >= 0.02
            x1, y1, x2, y2 = detection["box"]
            assert 0 <= x1 <= x2 <= image["width"] and 0 <= y1 <= y2 <= image["height"]
    assert images["a.png"]["detections"] == images["a.bmp"]["detections"] != []
    assert (images["a.jpg"]["width"], images["a.jpg"]["height"]) == (256, 128)
    right = max(detection["box"][2] for detection in images["holiday/sea/b.PNG"]["detections"])
    assert right > 64, "boxes are in pixels of the original image"
    count = sum(len(image["detections"]) for image in images.values())
    assert f"{count} detections with a score of at least 0.02 in 4 images" in capsys.readouterr().out


def test_predict_uses_a_score_threshold_of_one_half_by_default(trained_run, photos, tmp_path):
    out = tmp_path / "out"
    assert run_command("predict", trained_run, photos / "a.png", "--out", out) == 0
    (image,) = json.loads((out / "predictions.json").read_text())["images"]
    assert all(detection["score"] >= 0.5 for detection in image["detections"])
    assert (out / "a.png.jpg").exists()


def test_predict_prints_the_best_score_if_there_are_no_detections(trained_run, photos, tmp_path, capsys):
    argv = (photos / "a.png", photos / "holiday", "--out", tmp_path / "out")
    assert run_command("predict", trained_run, *argv, "--score", "1") == 0
    printed = capsys.readouterr().out
    assert re.search(r"0 detections .* in 2 images \(the best score is 0\.\d\d; .*--score", printed)
    assert {p.name for p in (tmp_path / "out").rglob("*.jpg")} == {"a.png.jpg", "b.PNG.jpg"}


def test_predict_does_not_overwrite_input_images(trained_run, photos, monkeypatch, run_failing_command):
    before = {file: file.read_bytes() for file in photos.rglob("*.*")}
    monkeypatch.chdir(photos)
    for images, out in ((".", "."), ("a.jpg", "."), ("holiday/sea", photos), (photos, "holiday/sea")):
        assert "--out" in run_failing_command("predict", trained_run, images, "--out", out)
    assert {file: file.read_bytes() for file in photos.rglob("*.*")} == before


def test_predict_writes_the_results_of_images_with_equal_names_to_different_files(trained_run, photos, tmp_path):
    (photos / "holiday" / "a.jpg").write_bytes((photos / "a.jpg").read_bytes())
    out = tmp_path / "out"
    assert run_command("predict", trained_run, photos / "a.jpg", photos / "holiday" / "a.jpg", "--out", out) == 0
    images = json.loads((out / "predictions.json").read_text())["images"]
    assert [image["picture"] for image in images] == [str(out / "a.jpg"), str(out / "holiday" / "a.jpg")]
    assert all(Path(image["picture"]).is_file() for image in images)


def test_predict_tells_what_it_skipped_and_completed(trained_run, photos, tmp_path, capsys):
    (photos / "notes.txt").write_text("no image")
    (photos / ".hidden.jpg").write_bytes((photos / "a.jpg").read_bytes())
    (photos / "cut.jpg").write_bytes((photos / "a.jpg").read_bytes()[:-2])
    os.mkfifo(photos / "pipe.jpg")
    assert run_command("predict", trained_run, photos, "--out", tmp_path / "out") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "in 5 images" in lines[0]
    assert lines[1:] == [
        f"{photos / 'cut.jpg'}: the file lacks its end marker, but no pixels",
        f"{photos}: skipped 1 file that is not an image by its name: notes.txt",
        f"{photos}: skipped 1 hidden file or folder",
        f"{photos}: skipped 1 that cannot be read: pipe.jpg (not a regular file)",
    ]


def test_predict_draws_a_large_image_at_a_reduced_size(trained_run, photos, tmp_path, capsys, monkeypatch):
    from ssd_jax.inputs import reading

    large = tmp_path / "large.jpg"
    with Image.open(photos / "a.jpg") as image:
        image.resize((1024, 512)).save(large, quality=95)
    argv = ("predict", trained_run, large, "--score", "0.02", "--out", tmp_path / "out")
    monkeypatch.setattr(reading, "LARGE_PIXELS", 1024 * 512)
    assert run_command(*argv) == 0
    assert f"{large}: 1024 x 512 pixels; it is drawn at 128 x 64 pixels" in capsys.readouterr().out
    (predicted,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]
    assert (predicted["width"], predicted["height"]) == (1024, 512)
    assert max(detection["box"][2] for detection in predicted["detections"]) > 128, "boxes are in original pixels"
    with Image.open(tmp_path / "out" / "large.jpg") as picture:
        assert picture.size == (128, 64)


def test_predict_skips_and_names_unreadable_images(trained_run, photos, tmp_path, capsys):
    whole = (photos / "a.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out"
    assert run_command("predict", trained_run, photos, "--out", out) == 1
    message = capsys.readouterr().err
    assert "error: 1 of 5 images" in message and f"{photos / 'cut.jpg'}: " in message
    assert len(json.loads((out / "predictions.json").read_text())["images"]) == 4


def test_predict_does_all_usable_sources_and_names_the_others(trained_run, photos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (photos / "cut.jpg").write_bytes(b"no image")
    out = tmp_path / "out"
    sources = (tmp_path / "nothing.jpg", photos / "a.png", tmp_path / "empty", "http://host/a.mp4", photos / "cut.jpg")
    assert run_command("predict", trained_run, *sources, "--out", out) == 1
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    error = next(position for position, line in enumerate(lines) if line.startswith("error: "))
    assert lines[error] == "error: 4 of 5 inputs could not be read:"
    names = [tmp_path / "nothing.jpg", tmp_path / "empty", "http://host/a.mp4", photos / "cut.jpg"]
    assert len(lines) == error + 5
    for name, line in zip(names, lines[error + 1 :], strict=True):
        assert str(name) in line
    assert "in 1 image" in printed.out
    (image,) = json.loads((out / "predictions.json").read_text())["images"]
    assert image["file"] == str(photos / "a.png")


def test_predict_leaves_out_its_earlier_output_and_says_so(trained_run, photos, capsys):
    assert run_command("predict", trained_run, photos, "--out", photos / "first") == 0
    assert run_command("predict", trained_run, photos, "--save", "csv", "--out", photos / "second") == 0
    assert f"{photos}: skipped 1 folder that predict wrote: first" in capsys.readouterr().out
    assert run_command("predict", trained_run, photos, "--out", photos / "third") == 0
    printed = capsys.readouterr().out
    assert "in 4 images" in printed and "2 folders that predict wrote: first, second" in printed


def test_predict_keeps_earlier_predictions_if_no_image_is_readable(trained_run, photos, tmp_path, run_failing_command):
    out = tmp_path / "out"
    assert run_command("predict", trained_run, photos / "a.png", "--out", out) == 0
    before = (out / "predictions.json").read_bytes()
    (tmp_path / "text.jpg").write_text("no image")
    assert "text.jpg" in run_failing_command("predict", trained_run, tmp_path / "text.jpg", "--out", out)
    assert (out / "predictions.json").read_bytes() == before


def test_predict_names_the_model_and_all_images_that_do_not_exist(tmp_path, run_failing_command):
    message = run_failing_command("predict", "blood-cell", tmp_path / "x.jpg", tmp_path / "y.jpg")
    assert "Did you mean blood-cells?" in message
    assert "x.jpg" in message and "y.jpg" in message


def test_predict_accepts_its_output_folder_again_if_no_image_was_readable(trained_run, photos, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "text.jpg").write_text("no image")
    assert run_command("predict", trained_run, tmp_path / "text.jpg", "--out", out) == 2
    assert json.loads((out / "predictions.json").read_text())["images"] == []
    assert run_command("predict", trained_run, photos / "a.png", "--out", out) == 0


@pytest.mark.parametrize(
    "name",
    [b"caf\xe9", b"a\nerror: forged", b"\x1b]0;title\x07", "\u202egpj.exe".encode(), b"=cmd", b"$x_1^2$", b"z" * 251],
    ids=ascii,
)
def test_predict_names_an_image_exactly_whatever_its_name(name, trained_run, photos, tmp_path, monkeypatch, capfd):
    """predictions.json holds the names as Python's json module writes and reads them."""
    monkeypatch.chdir(tmp_path)
    file, cut = Path("in") / os.fsdecode(name + b".jpg"), Path("in") / os.fsdecode(name[:245] + b".cut.png")
    file.parent.mkdir()
    file.write_bytes((photos / "a.jpg").read_bytes())
    cut.write_bytes((photos / "a.png").read_bytes()[:100])
    assert run_command("predict", trained_run, "in") == 1
    (image,) = json.loads(Path("predictions/predictions.json").read_text(encoding="utf-8"))["images"]
    assert Path(image["file"]) == file
    with Image.open(image["picture"]) as picture:
        assert picture.size == (image["width"], image["height"])
    printed = capfd.readouterr()
    assert not re.search(r"[^\n\t -~]", printed.out)
    assert f"in/{escape_text(cut.name)}: " in printed.err
    assert not [line for line in printed.err.splitlines() if line.startswith("error:")][1:]


def test_predict_does_not_read_its_own_output(trained_run, photos):
    out = photos / "predictions"
    for _ in range(2):
        assert run_command("predict", trained_run, photos, "--out", out) == 0
        assert len(json.loads((out / "predictions.json").read_text())["images"]) == 4


def test_predict_rejects_invalid_arguments(run_failing_command, tmp_path, trained_run, photos):
    (tmp_path / "file").write_text("")
    message = run_failing_command("predict", trained_run, photos, "--out", tmp_path / "file" / "out")
    assert "file/out: " in message and "Not a directory" in message and "--out" in message
    out = tmp_path / "out"
    (tmp_path / "notes.md").write_text("no image")
    message = run_failing_command("predict", trained_run, tmp_path / "notes.md", "--out", tmp_path / "other")
    assert "1 of 1 images" in message and "detections" not in message
    assert "SOURCES" in run_failing_command("predict", trained_run, "--out", out)
    assert "--score is 1.5" in run_failing_command("predict", trained_run, photos, "--score", "1.5", "--out", out)
    assert str(tmp_path / "typo") in run_failing_command("predict", trained_run, tmp_path / "typo", "--out", out)
    (tmp_path / "empty").mkdir()
    assert "--classes" in run_failing_command("predict", trained_run, photos, "--classes")
    assert "--tile is 0" in run_failing_command("predict", trained_run, photos, "--tile", "0")
    assert f"{tmp_path / 'empty'} " in run_failing_command("predict", trained_run, tmp_path / "empty", "--out", out)
    assert "config.json" in run_failing_command("predict", tmp_path, photos, "--out", out)
    assert not out.exists(), "the folder is created only after all checks"


# ---- videos, cameras and lists ----


def test_predict_writes_an_annotated_video_and_its_frames(trained_run, tmp_path, capsys):
    videos = pytest.importorskip("helpers.videos", reason="PyAV is not installed", exc_type=ImportError)
    video = videos.write_video(tmp_path / "clip.mp4", [200] * 12, has_audio=True)
    out = tmp_path / "out"
    assert run_command("predict", trained_run, video, "--every", "3", "--score", "0.02", "--out", out) == 0
    printed = capsys.readouterr().out
    assert "in 4 frames" in printed and "the videos with their boxes" in printed
    assert printed.count(f"{video}: its audio is not copied") == 1
    assert [seconds for seconds, _ in videos.read_levels(out / "clip.mp4")] == pytest.approx([0, 0.3, 0.6, 0.9])
    images = json.loads((out / "predictions.json").read_text())["images"]
    assert [(image["file"], image["frame"]) for image in images] == [(str(video), i) for i in (0, 3, 6, 9)]
    assert {file.name for file in out.iterdir()} == {"clip.mp4", "predictions.json", ".ssd_jax_predictions"}


def test_predict_does_not_replace_its_input_video(trained_run, tmp_path, run_failing_command):
    videos = pytest.importorskip("helpers.videos", reason="PyAV is not installed", exc_type=ImportError)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.json").write_text("{}")
    video = videos.write_video(tmp_path / "out" / "clip.mp4", [1, 2])
    before = video.read_bytes()
    assert "--out" in run_failing_command("predict", trained_run, video, "--out", tmp_path / "out")
    assert video.read_bytes() == before


def test_predict_names_a_broken_video_and_does_the_others(trained_run, photos, tmp_path, capsys):
    pytest.importorskip("av", reason="PyAV is not installed")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    out = tmp_path / "out"
    argv = ("predict", trained_run, tmp_path / "broken.mp4", photos / "a.png", "--out", out)
    assert run_command(*argv) == 1
    message = capsys.readouterr().err
    assert "1 of 2 images and videos" in message and f"{tmp_path / 'broken.mp4'}: " in message
    assert (out / "a.png.jpg").exists() and not (out / "broken.mp4").exists()


def test_predict_tells_about_sound_only_if_it_writes_a_video(trained_run, tmp_path, capsys):
    videos = pytest.importorskip("helpers.videos", reason="PyAV is not installed", exc_type=ImportError)
    video = videos.write_video(tmp_path / "clip.mp4", [200], has_audio=True)
    assert run_command("predict", trained_run, video, "--save", "json", "--out", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "audio" not in printed and "in 1 frame " in printed


def test_predict_with_a_camera_ends_with_an_interrupt(trained_run, tmp_path, monkeypatch, capsys):
    """A stand-in for OpenCV sends frames without end, and Ctrl-C comes after ten of them."""
    videos = pytest.importorskip("helpers.videos", reason="PyAV is not installed", exc_type=ImportError)
    released = []

    class Camera(SimpleNamespace):
        def grab(self) -> bool:
            return True

        def retrieve(self) -> tuple[bool, np.ndarray]:
            return True, np.full((48, 64, 3), 100, np.uint8)

    camera = Camera(isOpened=lambda: True, release=lambda: released.append(True))
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(VideoCapture=lambda number: camera))
    write = video_writer.VideoWriter.write
    count = iter(range(100))

    def write_and_interrupt(self: video_writer.VideoWriter, *frame: Any) -> None:
        write(self, *frame)
        if next(count) == 9:
            raise KeyboardInterrupt

    monkeypatch.setattr(video_writer.VideoWriter, "write", write_and_interrupt)
    before = threading.active_count()
    assert run_command("predict", trained_run, "0", "--out", tmp_path / "out") == 0
    assert released and threading.active_count() <= before
    assert len(videos.read_levels(tmp_path / "out" / "camera_0.mp4")) == 10
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]) in (9, 10)
    assert "detections" in capsys.readouterr().out


@pytest.fixture
def default_interrupts() -> Iterator[None]:
    """Handle interrupts as Python does by default. In a background process of a shell, they are ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to a single process")
@pytest.mark.usefixtures("default_interrupts")
def test_predict_writes_what_is_done_after_an_interrupt(trained_run, photos, tmp_path, monkeypatch, capsys):
    """Ctrl-C comes while an entry is written. All files contain the same images afterwards."""
    from ssd_jax.predictions.tables import JsonWriter

    write = JsonWriter.write

    def interrupt_and_write(self: JsonWriter, prediction: Any) -> None:
        if prediction.file.endswith("a.jpg"):
            signal.raise_signal(signal.SIGINT)
        write(self, prediction)

    for number in range(10):
        (photos / f"z{number}.png").write_bytes((photos / "a.png").read_bytes())
    monkeypatch.setattr(JsonWriter, "write", interrupt_and_write)
    out = tmp_path / "out"
    assert run_command("predict", trained_run, photos, "--save", "pictures", "json", "csv", "--out", out) == 130
    assert "Stopped. The results up to now are written" in capsys.readouterr().err
    images = json.loads((out / "predictions.json").read_text())["images"]
    assert [Path(image["file"]).name for image in images] == ["a.bmp", "a.jpg"]
    assert sorted(file.name for file in out.glob("*.jpg")) == ["a.bmp.jpg", "a.jpg"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_predict_reads_paths_from_the_standard_input(trained_run, photos, tmp_path, monkeypatch):
    lines = f"{photos / 'a.png'}\n{photos / 'a.jpg'}\nmissing.png\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    out = tmp_path / "out"
    assert run_command("predict", trained_run, "-", "--batch", "3", "--out", out) == 1
    assert len(json.loads((out / "predictions.json").read_text())["images"]) == 2


def test_progress_shows_the_views_of_an_image_in_tiles():
    task = Task("detecting", 2, "image", 0, "loading and compiling the network", True)
    show_views(task, 3, 1022)
    line = task.format_line()
    assert "compiling" not in line and "0/2 images" in line and "3 of 1,022 views" in line


@pytest.mark.parametrize("option", ["--batch", "--every"])
def test_predict_rejects_numbers_below_one(trained_run, photos, run_failing_command, option):
    assert f"{option} is 0" in run_failing_command("predict", trained_run, photos, option, "0")
