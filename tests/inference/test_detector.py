"""What a notebook sees: every kind of image, boxes in its pixels, the checkpoint asked for, and clear refusals."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ssd_jax.data.formats.shapes import CLASS_NAMES, ShapesSource
from ssd_jax.errors import UserError
from ssd_jax.inference import detector
from ssd_jax.ops.detection import Detections
from ssd_jax.runs import run_folder
from ssd_jax.runs.checkpoint import Checkpoints
from ssd_jax.runs.log import read_results
from ssd_jax.training.loop import Trainer

LOW = 0.02  # a score that a barely trained network reaches


@pytest.fixture(scope="module")
def detect(trained_run: Path) -> detector.Detector:
    return detector.load(trained_run)


@pytest.fixture(scope="module")
def picture(trained_run: Path) -> np.ndarray:
    return ShapesSource(run_folder.read_config(trained_run).data.shapes, "test").image(0)


def changed_run(trained_run: Path, folder: Path, **model: Any) -> Path:
    """A copy whose config.json has other values of the model."""
    shutil.copytree(trained_run, folder)
    config = json.loads((folder / "config.json").read_text())
    config["model"] |= model
    (folder / "config.json").write_text(json.dumps(config))
    return folder


# ---- images in, detections out ----


def test_array_path_and_pillow_image_give_the_same(detect, picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "a.png")
    found = detect(picture, score_threshold=LOW)
    assert len(found) > 3
    assert detect(tmp_path / "a.png", score_threshold=LOW) == found
    assert detect(str(tmp_path / "a.png"), score_threshold=LOW) == found
    assert detect(Image.fromarray(picture), score_threshold=LOW) == found
    assert detect([picture, tmp_path / "a.png"], score_threshold=LOW) == [found, found]
    assert detect([]) == []


@pytest.mark.parametrize(
    ("longest", "largest", "side"),
    [(64, 64, 64), (500, 128, 128), (500, 640, 640), (640, 4096, 640), (641, 4096, 1280), (2000, 4096, 2560),
     (2561, 4096, 4096), (9000, 4096, 4096)],
)  # fmt: skip
def test_sides_of_canvases(longest, largest, side):
    assert detector.canvas_side(longest, largest) == side


def test_a_photograph_that_the_canvas_holds_is_not_averaged(detect, trained_run):
    """Of alternating black and white rows the network sees those that its samples fall on, and not their mean."""
    config = dataclasses.replace(detect.config, data=dataclasses.replace(detect.config.data, max_image_size=4096))
    large = detector.Detector(config, detect.params, detect.step)
    rows = np.zeros((960, 960, 3), np.uint8)
    rows[::2] = 255
    sampled = rows[[int((i + 0.5) * 15) for i in range(64)]][:, [int((j + 0.5) * 15) for j in range(64)]]
    assert len(np.unique(sampled)) == 2
    for ours, theirs in zip(large(rows, score_threshold=LOW), detect(sampled, score_threshold=LOW), strict=True):
        assert ours.name == theirs.name and ours.score == pytest.approx(theirs.score, abs=1e-5)


def test_detections_are_named_ordered_and_plain_numbers(detect, picture):
    found = detect(picture, score_threshold=LOW)
    assert {d.name for d in found} <= set(CLASS_NAMES)
    scores = [d.score for d in found]
    assert scores == sorted(scores, reverse=True)
    assert json.loads(json.dumps(found[0])) == [found[0].name, found[0].score, list(found[0].box)]


def test_score_threshold_cuts_and_includes_its_own_score(detect, picture):
    found = detect(picture, score_threshold=LOW)
    middle = found[len(found) // 2].score
    assert detect(picture, score_threshold=middle) == [d for d in found if d.score >= middle]
    assert all(d.score >= 0.5 for d in detect(picture))


def test_grey_and_sixteen_bit_images_are_converted(detect, picture):
    grey = picture.mean(axis=-1).astype(np.uint8)
    expected = detect(np.repeat(grey[..., None], 3, axis=-1), score_threshold=LOW)
    assert detect(Image.fromarray(grey), score_threshold=LOW) == expected
    assert detect(Image.fromarray(grey.astype(np.uint16) * 257), score_threshold=LOW) == expected


@pytest.mark.parametrize("size", [(100, 50), (64, 64), (20, 30), (640, 320)])  # the run's canvas is 64
def test_boxes_are_in_pixels_of_the_original(detect, monkeypatch, size):
    """With a program in place of the network that finds the content's middle half."""
    seen: list[tuple[int, ...]] = []

    def middle(params: object, canvas: Any, height: Any, width: Any) -> Detections:
        seen.append((*canvas.shape, int(height[0]), int(width[0])))
        boxes = jnp.asarray([[[0.25, 0.25, 0.75, 0.75], [0, 0, 0, 0]]], jnp.float32)
        scores, labels = jnp.asarray([[0.75, 0]], jnp.float32), jnp.asarray([[3, 0]], jnp.int32)
        return Detections(boxes, scores, labels, jnp.asarray([[True, False]]))

    monkeypatch.setattr(detect, "_predict", middle)
    width, height = size
    (found,) = detect(np.zeros((height, width, 3), np.uint8))
    assert (found.name, found.score) == (CLASS_NAMES[2], 0.75)
    np.testing.assert_allclose(found.box, (width / 4, height / 4, width * 3 / 4, height * 3 / 4), rtol=1e-6)
    reduced = max(1, width / 64, height / 64)
    assert seen == [(1, 64, 64, 3, round(height / reduced), round(width / reduced))]


def test_one_compilation_for_images_of_all_sizes(detect, picture):
    for image in (picture, picture[:10, :40], np.tile(picture, (3, 2, 1))):
        detect(image)
    assert detect._predict._cache_size() == 1


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (np.zeros((8, 8), np.uint8), ValueError, r"uint8.*\(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), ValueError, r"\(8, 8, 4\)"),
        (np.zeros((8, 8, 3), np.float32), ValueError, "float32"),
        (np.zeros((0, 8, 3), np.uint8), ValueError, r"\(0, 8, 3\)"),
        ("nowhere.jpg", UserError, "nowhere.jpg: can't be read"),
    ],
)
def test_what_is_no_image_is_refused(detect, image, error, words):
    with pytest.raises(error, match=words):
        detect(image)
    with pytest.raises(error, match=words):
        detect([image])


@pytest.mark.parametrize("threshold", [-0.1, 3, float("nan")])
def test_threshold_that_is_no_score_is_refused(detect, picture, threshold):
    with pytest.raises(ValueError, match="score_threshold"):
        detect(picture, score_threshold=threshold)


def test_messages_about_files_speak_of_no_data_set(detect, tmp_path):
    (tmp_path / "data.zip").write_bytes(b"PK")
    for file in (tmp_path / "data.zip", tmp_path / "nope.jpg"):
        with pytest.raises(UserError) as error:
            detect(file)
        assert str(file) in str(error.value) and "data set" not in str(error.value)


# ---- which checkpoint ----


def test_best_is_that_of_the_highest_measurement(trained_run, detect):
    rows = read_results(trained_run)
    best = max(rows, key=lambda row: row["voc_map_area"])["step"]
    assert detect.step == best
    assert detector.load(trained_run, "last").step == 30
    assert detector.load(str(trained_run)).step == best


def test_its_parameters_are_the_average(trained_run):
    """The average of the last checkpoint, not the raw parameters that training goes on from."""
    config = run_folder.read_config(trained_run)
    loop = Trainer(config, trained_run, ShapesSource(config.data.shapes, "train"), None)
    with Checkpoints(trained_run / "checkpoints") as loop.checkpoints:
        state = loop.resume_or_init()
    found = detector.load(trained_run, "last").params
    jax.tree.map(np.testing.assert_array_equal, found, state.ema_params)
    difference = jax.tree.map(lambda a, p: float(np.abs(np.asarray(a) - np.asarray(p)).max()), found, state.params)
    assert max(jax.tree.leaves(difference)) > 1e-6


def test_last_where_nothing_was_measured(trained_run, tmp_path):
    run = changed_run(trained_run, tmp_path / "run")
    for metrics in (run / "checkpoints").glob("*/metrics"):
        shutil.rmtree(metrics)
        (metrics.parent / "checksums.json").unlink()  # as of a run that was killed before it wrote them
    assert detector.load(run).step == 30


# ---- refusals ----


def test_not_a_run(tmp_path):
    with pytest.raises(UserError, match=r"config\.json is missing"):
        detector.load(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        detector.load(tmp_path / "typo")


def test_unknown_word_for_the_checkpoint(trained_run):
    with pytest.raises(UserError, match="'latest'"):
        detector.restore_params(trained_run, run_folder.read_config(trained_run), "latest")


@pytest.mark.parametrize("empty_folder", [False, True])
def test_no_checkpoint_yet(trained_run, tmp_path, empty_folder):
    shutil.copy(trained_run / "config.json", tmp_path)
    if empty_folder:
        (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="no checkpoint"):
        detector.load(tmp_path)


def test_checkpoint_of_another_architecture(trained_run, tmp_path):
    with pytest.raises(UserError) as error:
        detector.load(changed_run(trained_run, tmp_path / "run", width=0.25))
    # fc7 has 1024 channels at full width.
    assert "another architecture" in str(error.value)
    assert "vgg/conv1_1/kernel: (3, 3, 3, 8), (3, 3, 3, 16) expected" in str(error.value)
    assert len(str(error.value).splitlines()) < 25


def test_checkpoint_of_other_classes(trained_run, tmp_path):
    with pytest.raises(UserError, match=r"only in the checkpoint: circle, .*\n  only in config.json: cat, dog"):
        detector.load(changed_run(trained_run, tmp_path / "run", class_names=["cat", "dog"]))


def test_reading_leaves_the_run_as_it_is(trained_run, detect):
    def listing() -> dict[str, int]:
        return {str(file): file.stat().st_mtime_ns for file in trained_run.rglob("*") if file.is_file()}

    before = listing()
    detector.load(trained_run, "last")
    assert listing() == before


# ---- finding images ----


def test_images_of_a_folder(tmp_path):
    for name in ("b.jpg", "a.PNG", "notes.txt", "deep/er/c.webp", "out/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    names = [str(file.relative_to(tmp_path)) for file in detector.find_images(tmp_path, exclude=tmp_path / "out")]
    assert names == ["a.PNG", "b.jpg", "deep/er/c.webp"]
    assert len(detector.find_images(tmp_path)) == 4
    assert detector.find_images(tmp_path / "notes.txt") == [tmp_path / "notes.txt"], "whoever names a file means it"
    with pytest.raises(UserError, match="typo"):
        detector.find_images(tmp_path / "typo")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty.*\.jpg"):
        detector.find_images(tmp_path / "empty")
