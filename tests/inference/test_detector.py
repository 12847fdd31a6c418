"""Tests of the detector: types of images, boxes in pixels, choice of the checkpoint, and invalid arguments."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from PIL import Image

from ssd_jax.data.formats.shapes import CLASS_NAMES, ShapesSource
from ssd_jax.errors import UserError
from ssd_jax.inference import detector, stored_program
from ssd_jax.inference.images import choose_canvas_side
from ssd_jax.inference.restoring import restore_params
from ssd_jax.inputs.finding import Input
from ssd_jax.inputs.reading import Picture, Reading
from ssd_jax.model_zoo.opening import load
from ssd_jax.ops.detection import Detections
from ssd_jax.runs import run_folder
from ssd_jax.runs.checkpoint import Checkpoints, RestoredCheckpoint
from ssd_jax.runs.log import read_results
from ssd_jax.training.loop import Trainer

LOW = 0.02  # a network that is hardly trained reaches this score


@pytest.fixture(scope="module")
def trained_detector(trained_run: Path) -> detector.Detector:
    """Return the detector with the best checkpoint of a short run."""
    return load(trained_run)


@pytest.fixture(scope="module")
def image(trained_run: Path) -> np.ndarray:
    return ShapesSource(run_folder.read_config(trained_run).data.shapes, "test").image(0)


def copy_run_with_changed_model(trained_run: Path, folder: Path, **model: Any) -> Path:
    """Copy a run, change options of the model in config.json, and return the folder of the copy."""
    shutil.copytree(trained_run, folder)
    config = json.loads((folder / "config.json").read_text())
    config["model"] |= model
    (folder / "config.json").write_text(json.dumps(config))
    return folder


# ---- images in, detections out ----


def test_detector_accepts_arrays_paths_and_pillow_images(trained_detector, image, tmp_path):
    Image.fromarray(image).save(tmp_path / "a.png")
    detections = trained_detector(image, score_threshold=LOW)
    assert len(detections) > 3
    assert trained_detector(tmp_path / "a.png", score_threshold=LOW) == detections
    assert trained_detector(str(tmp_path / "a.png"), score_threshold=LOW) == detections
    assert trained_detector(Image.fromarray(image), score_threshold=LOW) == detections
    assert trained_detector([image, tmp_path / "a.png"], score_threshold=LOW) == [detections, detections]
    assert (detections.size, detections.classes) == (image.shape[1::-1], CLASS_NAMES)
    assert trained_detector(tmp_path / "a.png").image == tmp_path / "a.png", "the pixels are not kept"
    assert np.array_equal(detections.plot(), trained_detector(tmp_path / "a.png", score_threshold=LOW).plot())
    assert trained_detector([]) == []


def test_repr_of_a_detector_tells_its_classes_and_input_size(trained_detector):
    text = repr(trained_detector)
    assert "4 classes (circle, square, star, ...)" in text and "64 x 64 px" in text and "\n" not in text


def test_address_is_refused_by_a_call_with_the_name_of_the_method_that_downloads(trained_detector):
    with pytest.raises(UserError, match=r"https://example\.org/a\.jpg: an address, .*Detector\.stream"):
        trained_detector("https://example.org/a.jpg")


@pytest.mark.parametrize("value", [None, 3])
def test_wrong_types_are_named_in_a_type_error(trained_detector, monkeypatch, value):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the type checker of the tests has other messages
    name = type(value).__name__
    with pytest.raises(TypeError, match=rf"path.*got {name}"):
        load(value)
    for images in (value, [value]):
        with pytest.raises(TypeError, match=rf"array.*got {name}"):
            trained_detector(images)


@pytest.mark.parametrize(
    ("longest", "largest", "side"),
    [(64, 64, 64), (500, 128, 128), (500, 640, 640), (640, 4096, 640), (641, 4096, 1280), (2000, 4096, 2560),
     (2561, 4096, 4096), (9000, 4096, 4096)],
)  # fmt: skip
def test_choose_canvas_side_returns_640_times_a_power_of_two_up_to_the_limit(longest, largest, side):
    assert choose_canvas_side(longest, largest) == side


def test_detector_does_not_reduce_an_image_that_fits_into_the_canvas(trained_detector, monkeypatch):
    config = dataclasses.replace(
        trained_detector.config, data=dataclasses.replace(trained_detector.config.data, max_image_size=4096)
    )
    large = detector.Detector.from_params(config, trained_detector.params, trained_detector.step)
    calls: list[tuple[Any, ...]] = []

    def predict_nothing(canvas: Any, height: Any, width: Any) -> Detections:
        calls.append((canvas, int(height[0]), int(width[0])))
        zeros = jnp.zeros((1, 1))
        return Detections(jnp.zeros((1, 1, 4)), zeros, zeros.astype(jnp.int32), zeros.astype(bool))

    monkeypatch.setattr(large, "_detect", predict_nothing)
    rows = np.zeros((960, 900, 3), np.uint8)
    rows[::2] = 255
    assert large(rows) == []
    ((canvas, height, width),) = calls
    assert canvas.shape == (1, 1280, 1280, 3) and (height, width) == (960, 900)
    np.testing.assert_array_equal(canvas[0, :960, :900], rows)


@pytest.mark.slow
def test_detector_samples_large_images_without_averaging(trained_detector):
    """The image has alternating black and white rows. The network gets some of these rows, not their mean."""
    config = dataclasses.replace(
        trained_detector.config, data=dataclasses.replace(trained_detector.config.data, max_image_size=4096)
    )
    large = detector.Detector.from_params(config, trained_detector.params, trained_detector.step)
    rows = np.zeros((960, 960, 3), np.uint8)
    rows[::2] = 255
    sampled = rows[[int((i + 0.5) * 15) for i in range(64)]][:, [int((j + 0.5) * 15) for j in range(64)]]
    assert len(np.unique(sampled)) == 2
    for one, other in zip(
        large(rows, score_threshold=LOW), trained_detector(sampled, score_threshold=LOW), strict=True
    ):
        assert one.name == other.name and one.score == pytest.approx(other.score, abs=1e-5)


def test_detections_are_sorted_by_score_and_can_be_written_as_json(trained_detector, image):
    detections = trained_detector(image, score_threshold=LOW)
    assert {d.name for d in detections} <= set(CLASS_NAMES)
    scores = [d.score for d in detections]
    assert scores == sorted(scores, reverse=True)
    assert json.loads(json.dumps(detections[0])) == [detections[0].name, detections[0].score, list(detections[0].box)]


def test_score_threshold_is_inclusive(trained_detector, image):
    detections = trained_detector(image, score_threshold=LOW)
    middle = detections[len(detections) // 2].score
    assert trained_detector(image, score_threshold=middle) == [d for d in detections if d.score >= middle]
    assert all(d.score >= 0.5 for d in trained_detector(image))


def test_detector_converts_grey_and_16_bit_images(trained_detector, image):
    grey = image.mean(axis=-1).astype(np.uint8)
    expected = trained_detector(np.repeat(grey[..., None], 3, axis=-1), score_threshold=LOW)
    assert trained_detector(Image.fromarray(grey), score_threshold=LOW) == expected
    assert trained_detector(Image.fromarray(grey.astype(np.uint16) * 257), score_threshold=LOW) == expected


@pytest.mark.parametrize("size", [(100, 50), (64, 64), (20, 30), (640, 320)])  # the run's canvas is 64
def test_boxes_are_in_pixels_of_the_original_image(trained_detector, monkeypatch, size):
    """A function replaces the network. It detects one box, from a quarter to three quarters of each side."""
    calls: list[tuple[int, ...]] = []

    def predict_middle_box(canvas: Any, height: Any, width: Any) -> Detections:
        calls.append((*canvas.shape, int(height[0]), int(width[0])))
        boxes = jnp.asarray([[[0.25, 0.25, 0.75, 0.75], [0, 0, 0, 0]]], jnp.float32)
        scores, labels = jnp.asarray([[0.75, 0]], jnp.float32), jnp.asarray([[3, 0]], jnp.int32)
        return Detections(boxes, scores, labels, jnp.asarray([[True, False]]))

    monkeypatch.setattr(trained_detector, "_detect", predict_middle_box)
    width, height = size
    (detection,) = trained_detector(np.zeros((height, width, 3), np.uint8))
    assert (detection.name, detection.score) == (CLASS_NAMES[2], 0.75)
    np.testing.assert_allclose(detection.box, (width / 4, height / 4, width * 3 / 4, height * 3 / 4), rtol=1e-6)
    reduced = max(1, width / 64, height / 64)
    assert calls == [(1, 64, 64, 3, round(height / reduced), round(width / reduced))]


def test_detector_reads_a_large_file_at_a_reduced_size_and_returns_boxes_of_the_full_size(
    trained_detector, image, tmp_path, monkeypatch
):
    large = np.tile(image.repeat(16, axis=0).repeat(16, axis=1), (1, 2, 1))  # 2048 x 1024 pixels; the canvas is 64
    Image.fromarray(large).save(tmp_path / "a.jpg", quality=95)
    pixels, size = trained_detector.read(tmp_path / "a.jpg")
    assert pixels.shape == (1024, 2048, 3) and size == (2048, 1024)
    at_full_size = trained_detector(tmp_path / "a.jpg", score_threshold=LOW)
    monkeypatch.setattr(detector, "LARGE_PIXELS", 2**20)
    pixels, size = trained_detector.read(tmp_path / "a.jpg")
    assert pixels.shape == (128, 256, 3) and size == (2048, 1024)
    reduced = trained_detector(tmp_path / "a.jpg", score_threshold=LOW)
    assert len(at_full_size) > 3
    np.testing.assert_allclose(reduced[0].box, at_full_size[0].box, atol=60)
    assert reduced[0].name == at_full_size[0].name


def test_detector_compiles_once_for_images_of_all_sizes(trained_detector, image, monkeypatch):
    sides: list[int] = []
    load = stored_program._load_or_compile
    monkeypatch.setattr(
        stored_program, "_load_or_compile", lambda c, *shape: (sides.append(shape[1]), load(c, *shape))[1]
    )
    fresh = detector.Detector.from_params(trained_detector.config, trained_detector.params, trained_detector.step)
    for resized in (image, image[:10, :40], np.tile(image, (3, 2, 1))):
        fresh(resized)
    assert sides == [64]


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (np.zeros((8, 8, 2), np.uint8), ValueError, r"uint8.*\(8, 8, 2\)"),
        (np.zeros((8,), np.uint8), ValueError, r"\(8,\)"),
        (np.zeros((8, 8, 3), np.float32), ValueError, "float32"),
        (np.zeros((0, 8, 3), np.uint8), ValueError, r"\(0, 8, 3\)"),
        ("nowhere.jpg", UserError, "nowhere.jpg: can't be read"),
    ],
)
def test_detector_rejects_invalid_arrays_and_missing_files(trained_detector, image, error, words):
    with pytest.raises(error, match=words):
        trained_detector(image)
    with pytest.raises(error, match=words):
        trained_detector([image])


@pytest.mark.parametrize("threshold", [-0.1, 3, float("nan")])
def test_detector_rejects_thresholds_outside_0_to_1(trained_detector, image, threshold):
    with pytest.raises(ValueError, match="score_threshold"):
        trained_detector(image, score_threshold=threshold)


def test_message_about_an_unreadable_image_names_the_file(trained_detector, tmp_path):
    (tmp_path / "data.zip").write_bytes(b"PK")
    for file in (tmp_path / "data.zip", tmp_path / "nope.jpg"):
        with pytest.raises(UserError) as error:
            trained_detector(file)
        assert str(file) in str(error.value) and "data set" not in str(error.value)


# ---- which checkpoint ----


def test_load_best_uses_the_checkpoint_with_the_highest_map(trained_run, trained_detector):
    rows = read_results(trained_run)
    best = max(rows, key=lambda row: row["voc_map_area"])["step"]
    assert trained_detector.step == best
    assert load(trained_run, "last").step == 30
    assert load(str(trained_run)).step == best


def test_load_uses_the_averaged_parameters(trained_run):
    """The averaged parameters are `ema_params` in the checkpoint. They differ from `params`."""
    config = run_folder.read_config(trained_run)
    trainer = Trainer(config, trained_run, ShapesSource(config.data.shapes, "train"), None)
    with Checkpoints(trained_run / "checkpoints") as checkpoints:
        state = trainer.restore_or_init_state(checkpoints)
    loaded = load(trained_run, "last").params
    jax.tree.map(np.testing.assert_array_equal, loaded, state.ema_params)
    difference = jax.tree.map(lambda a, p: float(np.abs(np.asarray(a) - np.asarray(p)).max()), loaded, state.params)
    assert max(jax.tree.leaves(difference)) > 1e-6


def test_load_best_uses_the_last_checkpoint_of_a_run_without_evaluations(trained_run, tmp_path):
    run = copy_run_with_changed_model(trained_run, tmp_path / "run")
    for metrics in (run / "checkpoints").glob("*/metrics"):
        shutil.rmtree(metrics)
        (metrics.parent / "checksums.json").unlink()  # as in a run that was killed before it wrote them
    assert load(run).step == 30


# ---- runs that cannot be loaded ----


def test_load_rejects_a_folder_that_is_not_a_run(tmp_path):
    with pytest.raises(UserError, match=r"config\.json is missing"):
        load(tmp_path)
    with pytest.raises(UserError, match="typo: there is no such run"):
        load(tmp_path / "typo")


def test_restore_params_rejects_an_unknown_checkpoint_name(trained_run):
    with pytest.raises(UserError, match="'latest'"):
        restore_params(trained_run, run_folder.read_config(trained_run), "latest")


@pytest.mark.parametrize("empty_folder", [False, True])
def test_load_rejects_a_run_without_checkpoints(trained_run, tmp_path, empty_folder):
    shutil.copy(trained_run / "config.json", tmp_path)
    if empty_folder:
        (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="no checkpoint"):
        load(tmp_path)


def test_load_rejects_a_checkpoint_of_a_different_architecture(trained_run, tmp_path):
    with pytest.raises(UserError) as error:
        load(copy_run_with_changed_model(trained_run, tmp_path / "run", width=0.25))
    # fc7 has 1024 channels at full width.
    assert "another architecture" in str(error.value)
    assert "vgg/conv1_1/kernel: (3, 3, 3, 8), (3, 3, 3, 16) expected" in str(error.value)
    assert len(str(error.value).splitlines()) < 25


def test_load_rejects_a_checkpoint_whose_classes_differ_from_the_config(trained_run, tmp_path):
    with pytest.raises(UserError, match=r"only in the checkpoint: circle, .*\n  only in config.json: cat, dog"):
        load(copy_run_with_changed_model(trained_run, tmp_path / "run", class_names=["cat", "dog"]))


def test_load_skips_a_checkpoint_with_nan_parameters(trained_run, monkeypatch, caplog):
    restore = Checkpoints.restore

    def restore_with_nan(self: Checkpoints, step: int, *arguments: Any) -> RestoredCheckpoint:
        saved = restore(self, step, *arguments)
        if step == 30:
            saved.trees["params"]["vgg"]["conv1_1"]["bias"] *= np.nan
        return saved

    monkeypatch.setattr(Checkpoints, "restore", restore_with_nan)
    assert load(trained_run, "last").step == 28
    assert "NaN" in caplog.text and f"{trained_run / 'checkpoints' / '30'}: " in caplog.text


def test_load_does_not_change_the_run(trained_run, trained_detector):
    def list_modification_times() -> dict[str, int]:
        return {str(file): file.stat().st_mtime_ns for file in trained_run.rglob("*") if file.is_file()}

    before = list_modification_times()
    load(trained_run, "last")
    assert list_modification_times() == before


# ---- tiles ----


def test_tiled_detection_equals_that_in_cropped_images(trained_detector, image, tmp_path):
    """The image is twice as wide as a tile. Boxes from the middle of a tile are those in the crop."""
    wide = np.concatenate([image, image[:, ::-1]], axis=1)
    found = trained_detector.tiled(wide, tile=64, overlap=0.0, score_threshold=LOW)
    left = [d for d in trained_detector(image, score_threshold=LOW) if d.box[2] < 62]
    assert left and {d for d in left if d in found}, "the tile is the image"
    assert found.size == (128, 64) and max(d.box[2] for d in found) > 64
    assert trained_detector.tiled(image, tile=64, score_threshold=LOW) == trained_detector(image, score_threshold=LOW)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert trained_detector.tiled(tmp_path / "wide.png", tile=64, overlap=0.0, score_threshold=LOW) == found


def test_detect_in_order_in_tiles_equals_tiled_detection(trained_detector, image):
    """The second picture was read at half its size."""
    wide = np.concatenate([image, image[:, ::-1]], axis=1)
    named = Input("image", "a.png", Path("a.png"))
    pictures = [Picture(named, wide, (128, 64)), Picture(named, wide, (256, 128))]
    readings = [Reading(lambda picture=picture: picture, 0) for picture in pictures]
    first, second = trained_detector.detect_in_order(readings, tile=64, overlap=0.0)
    expected = trained_detector.tiled(wide, tile=64, overlap=0.0, score_threshold=0.0)
    assert first.detections == expected and len(expected) > 3
    assert second.detections.boxes.tolist() == (2 * expected.boxes).tolist()
