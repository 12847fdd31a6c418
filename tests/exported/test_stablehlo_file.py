"""Tests of StableHLO files: their content, the detections of each option, and files that cannot be read."""

import json
import zipfile
from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np
import pytest
from helpers.damage import make_damaged_copies
from helpers.stablehlo_files import make_images, write_tiny_file
from helpers.tiny_detector import CONFIG, make_detector, make_random_params

from ssd_jax.config import Detect
from ssd_jax.errors import UserError
from ssd_jax.exported import reading, stablehlo_file
from ssd_jax.exported.prediction import make_predict
from ssd_jax.exported.program import Outputs, RawOutputs
from ssd_jax.inference.detector import Detector
from ssd_jax.model_zoo.opening import load
from ssd_jax.weights.importing import import_weights

LOW = 0.02


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_file(tmp_path_factory.mktemp("files") / "tiny.stablehlo")


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector()


def assert_same_detections(found: list, expected: list) -> None:
    """Assert that two lists of detections are equal except for rounding."""
    assert [d.name for d in found] == [d.name for d in expected] and len(found) > 3
    np.testing.assert_allclose([d.score for d in found], [d.score for d in expected], atol=1e-5)
    np.testing.assert_allclose([d.box for d in found], [d.box for d in expected], atol=1e-3)


# ---- detections ----


@pytest.mark.parametrize("size", [(20, 13), (32, 32), (64, 40), (90, 300)])  # the network has 32 px, a canvas 64 px
def test_loaded_file_detects_what_the_network_detects_in_images_of_any_size(file, detector, size):
    image = make_images(*size)
    assert_same_detections(load(file)(image, score_threshold=LOW), detector(image, score_threshold=LOW))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", [(24, 50), (64, 64)])
def test_program_takes_whole_images_of_any_batch_and_size(file, detector, batch, size):
    images = make_images(batch, *size)
    outputs = reading.read_program(file).run(images)
    assert isinstance(outputs, Outputs) and outputs.boxes.shape == (batch, 200, 4)
    assert [field.dtype for field in outputs] == [np.float32, np.float32, np.int32, np.int32]
    for image, boxes, scores, labels, count in zip(images, *outputs, strict=True):
        expected = detector(image, score_threshold=0)
        assert count == len(expected) > 3 and not labels[count:].any() and not boxes[count:].any()
        np.testing.assert_allclose(boxes[:count], [d.box for d in expected], atol=1e-3)
        np.testing.assert_allclose(scores[:count], [d.score for d in expected], atol=1e-5)
        assert [("a", "b")[label - 1] for label in labels[:count]] == [d.name for d in expected]


def test_program_detects_in_images_of_several_sizes_on_one_canvas(file, detector):
    images = [make_images(*size) for size in ((20, 64), (64, 31), (5, 5))]
    canvas = make_images(3, 64, 64)  # what is around the images must not matter
    for slot, image in zip(canvas, images, strict=True):
        slot[: image.shape[0], : image.shape[1]] = image
    height, width = (np.array([image.shape[axis] for image in images], np.int32) for axis in (0, 1))
    boxes, scores, _, valid = make_predict(reading.read_program(file))(canvas, height, width)
    for slot, image in enumerate(images):
        expected = detector(image, score_threshold=0)
        assert valid[slot].sum() == len(expected)
        np.testing.assert_allclose(scores[slot][valid[slot]], [d.score for d in expected], atol=1e-5)
        pixels = boxes[slot][valid[slot]] * [width[slot], height[slot], width[slot], height[slot]]
        np.testing.assert_allclose(pixels, [d.box for d in expected], atol=1e-3)


def test_detections_do_not_depend_on_the_batch_size_to_the_last_bit(file):
    images = [make_images(*size) for size in ((20, 64), (64, 31), (5, 5), (64, 64), (33, 60))]
    detector = load(file)
    alone = [detector(image, score_threshold=LOW) for image in images]
    assert detector(images, score_threshold=LOW, batch_size=3) == alone and all(alone)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_loaded_file_compiles_one_program_for_any_number_of_images(tmp_path, file, monkeypatch, count):
    compiled = []
    compile_program = stablehlo_file.StableHLOProgram._compile
    monkeypatch.setattr(
        stablehlo_file.StableHLOProgram, "_compile", lambda self, *a: (compiled.append(a), compile_program(self, *a))[1]
    )
    images = [make_images(*size) for size in ((20, 64), (64, 31), (5, 5), (64, 64), (33, 60))][:count]
    load(file)(images, batch_size=4)
    assert len(compiled) == 1


def test_file_without_suppression_returns_all_boxes_and_detects_with_ours(tmp_path, detector):
    file = write_tiny_file(tmp_path / "raw.stablehlo", nms=False)
    images = make_images(2, 40, 64)
    outputs = reading.read_program(file).run(images)
    n = CONFIG.model.default_boxes.count
    assert isinstance(outputs, RawOutputs) and outputs.boxes.shape == (2, n, 4) and outputs.scores.shape == (2, n, 2)
    assert outputs.boxes.max() > 64, "boxes are not clipped"
    assert_same_detections(load(file)(images[1], score_threshold=LOW), detector(images[1], score_threshold=LOW))


@pytest.mark.parametrize("nms", [True, False])
def test_file_follows_the_rules_of_imported_layouts(tmp_path, nms):
    """The rules are those of mmdetection: the best candidates of each map, limited and clipped boxes, no empty ones."""
    rules: dict[str, Any] = {
        "top_k": 30, "top_k_per": "map", "log_scale_bounds": (-4.0, 4.0), "clip_before_nms": True, "drop_empty": True,
    }  # fmt: skip
    image = make_images(50, 40)
    file = write_tiny_file(tmp_path / "rules.stablehlo", Detect(**rules), nms=nms)
    expected = make_detector(**rules)(image, score_threshold=LOW)
    assert expected != make_detector()(image, score_threshold=LOW)
    assert_same_detections(load(file)(image, score_threshold=LOW), expected)


@pytest.mark.parametrize("count", [1, 3])
def test_file_with_a_fixed_batch_detects_in_any_number_of_images(tmp_path, file, count):
    fixed = reading.read_program(write_tiny_file(tmp_path / "two.stablehlo", batch=2))
    canvas, sizes = make_images(count, 64, 64), np.full(count, 50, np.int32)
    found = make_predict(fixed)(canvas, sizes, sizes)
    expected = make_predict(reading.read_program(file))(canvas, sizes, sizes)
    for ours, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, other, atol=1e-6)


def test_thresholds_and_limits_are_those_of_the_options(tmp_path):
    image = make_images(48, 48)
    file = write_tiny_file(tmp_path / "few.stablehlo", score_threshold=0.2, max_detections=5)
    expected = make_detector(score_threshold=0.2, max_detections=5)(image, score_threshold=0)
    assert len(expected) == 5
    assert_same_detections(load(file)(image, score_threshold=0), expected)
    assert reading.read_program(file).run(image[None]).boxes.shape == (1, 5, 4)
    assert load(file).config.detect == Detect(score_threshold=0.2, max_detections=5)


@pytest.mark.parametrize("nms", [True, False])
def test_image_without_detections_has_none(tmp_path, nms):
    file = write_tiny_file(tmp_path / "none.stablehlo", score_threshold=1.0, nms=nms)
    assert load(file)(make_images(40, 40), score_threshold=0) == []


def test_half_stores_float16_and_computes_with_the_rounded_weights(tmp_path, file):
    half = write_tiny_file(tmp_path / "half.stablehlo", half=True)
    weights = reading.read_program(half).weights
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float16)}
    assert half.stat().st_size < 0.62 * file.stat().st_size
    full = reading.read_program(file)
    full.weights = {name: array.astype(np.float16).astype(np.float32) for name, array in full.weights.items()}
    images = make_images(2, 40, 64)
    for ours, other in zip(reading.read_program(half).run(images), full.run(images), strict=True):
        np.testing.assert_allclose(ours, other, atol=1e-4)


# ---- content ----


def test_file_has_programs_for_cpus_gpus_and_tpus_and_all_weights(file):
    program = reading.read_program(file)
    assert set(program._exported.platforms) == {"cpu", "cuda", "rocm", "tpu"}
    names = {f"weights/{path}" for path in _list_paths(make_random_params())}
    with np.load(file) as archive:
        assert {name for name in archive.files if name.startswith("weights/")} == names
        assert json.loads(archive["metadata.json"])["source"] == {
            "name": "tiny", "step": 7, "checkpoint": "", "license": "",
        }  # fmt: skip


def _list_paths(tree: dict, prefix: str = "") -> list[str]:
    return [
        path
        for name, value in tree.items()
        for path in (_list_paths(value, f"{prefix}{name}/") if isinstance(value, dict) else [prefix + name])
    ]


def test_file_is_reproducible_and_names_no_file_of_this_machine(tmp_path, file):
    content = file.read_bytes()
    assert write_tiny_file(tmp_path / "again.stablehlo").read_bytes() == content
    assert str(Path(stablehlo_file.__file__).parent).encode() not in content and b".py" not in content


def test_replace_metadata_changes_nothing_else(tmp_path, file):
    copy = tmp_path / "copy.stablehlo"
    copy.write_bytes(file.read_bytes())
    metadata = msgspec.structs.replace(reading.read_program(file).metadata, writer="another")
    stablehlo_file.replace_metadata(copy, metadata)
    assert reading.read_program(copy).metadata == metadata
    with zipfile.ZipFile(file) as one, zipfile.ZipFile(copy) as other:
        assert one.namelist() == other.namelist()
        assert all(one.read(name) == other.read(name) for name in one.namelist() if name != "metadata.json")


def test_file_is_recognized_by_its_content_whatever_its_name(tmp_path, file):
    renamed = tmp_path / "detector.bin"
    renamed.write_bytes(file.read_bytes())
    assert reading.find_format(renamed) == "stablehlo" and load(renamed).step == 7
    (tmp_path / "weights.pth").write_bytes(b"PK\x03\x04 torch")
    assert reading.find_format(tmp_path / "weights.pth") is None and reading.find_format(tmp_path) is None


# ---- files that cannot be read ----


def test_damaged_files_are_rejected_in_one_line(tmp_path, file):
    damaged = tmp_path / "damaged.stablehlo"
    rejected = 0
    for damage, content in make_damaged_copies(file.read_bytes(), 40, seed=0):
        damaged.write_bytes(content)
        try:
            program = reading.read_program(damaged)
        except UserError as error:
            assert str(error).startswith(f"{damaged}: ") and "\n" not in str(error), damage
            rejected += 1
        else:  # unused bytes, such as the date of a member
            assert program.weights.keys() == reading.read_program(file).weights.keys(), damage
    assert rejected >= 30


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text", b"\0" * 1000])
def test_other_files_with_the_ending_are_rejected(tmp_path, content):
    (tmp_path / "a.stablehlo").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.stablehlo: the file is damaged.*again"):
        load(tmp_path / "a.stablehlo")


def rewrite(file: Path, to: Path, **changes: object) -> Path:
    """Write a copy of a file with other metadata or another member ``program``, and return its path.

    The copy has a right checksum.
    """
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["program.bin"] = changes.pop("program", members["program.bin"])  # type: ignore[assignment]
    members["metadata.json"] = json.dumps(json.loads(members["metadata.json"]) | changes).encode()
    stablehlo_file._write_members(to, members)
    return to


def test_file_with_compressed_members_is_rejected_before_it_is_unpacked(tmp_path, file):
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(tmp_path / "a.stablehlo", "w") as copy:
        for name in archive.namelist():
            copy.writestr(name, archive.read(name))
        copy.writestr("weights/zeros.npy", bytes(10**7), zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match=r"a\.stablehlo: .*compressed"):
        load(tmp_path / "a.stablehlo")


def test_exported_file_is_not_imported_as_weights(file):
    with pytest.raises(UserError, match=r"tiny\.stablehlo: is an exported file"):
        import_weights(file)


def test_file_of_another_jax_version_that_cannot_be_read_names_both_versions(tmp_path, file):
    newer = rewrite(file, tmp_path / "new.stablehlo", jax_version="9.8.7", program=b"what jax 9.8.7 writes")
    with pytest.raises(UserError, match=rf"9\.8\.7.*{jax.__version__}.*Install jax 9\.8\.7, or export") as error:
        load(newer)
    assert "\n" not in str(error.value) and str(newer) in str(error.value)


def test_newer_stablehlo_is_noticed_before_it_is_compiled(tmp_path, file, monkeypatch):
    monkeypatch.setattr("jaxlib.mlir.dialects.stablehlo.get_current_version", lambda: "0.9.0")
    with pytest.raises(UserError, match=r"StableHLO [0-9.]+ is newer than 0\.9\.0"):
        load(rewrite(file, tmp_path / "new.stablehlo", jax_version="9.8.7"))


def test_file_of_an_unknown_format_version_names_it(tmp_path, file):
    with pytest.raises(UserError, match=r"format version 2, written by ssd-jax 5"):
        load(rewrite(file, tmp_path / "new.stablehlo", format_version=2, writer="ssd-jax 5"))


def test_file_whose_config_is_not_valid_is_rejected(tmp_path, file):
    with pytest.raises(UserError, match=r"bad\.stablehlo: .*changed"):
        load(rewrite(file, tmp_path / "bad.stablehlo", config={"model": 3}))


def test_file_without_a_program_for_this_platform_is_rejected(file):
    with pytest.raises(UserError, match=r"cuda, tpu, not for cpu"):
        stablehlo_file.check_platform(file, ("cuda", "tpu"))
    stablehlo_file.check_platform(file, ("cuda", "cpu"))
