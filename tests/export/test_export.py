"""Tests of the export of a detector: comparison with the original, options, and what is left after a failure."""

import dataclasses
import errno
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.cli import run_command, write_voc_folder
from helpers.stablehlo_files import make_images
from helpers.tiny_detector import CONFIG, make_random_params

from ssd_jax.errors import UserError
from ssd_jax.export import formats, pictures, run, stablehlo_writer
from ssd_jax.export.network import ExportOptions, Network, flatten_params, make_network
from ssd_jax.export.run import ParityError, _fill_in_defaults, export_model
from ssd_jax.exported.metadata import Metadata
from ssd_jax.files import convert_write_errors
from ssd_jax.inference import program
from ssd_jax.model_zoo.model_folder import write_model_folder
from ssd_jax.model_zoo.opening import load
from ssd_jax.runtime.task import Task

pytestmark = pytest.mark.usefixtures("few_pictures")


@pytest.mark.parametrize("options", [{}, {"nms": False, "batch": 2, "half": True, "max_detections": 9}])
def test_export_writes_a_file_with_the_numbers_of_its_comparison(model, tmp_path, options):
    exported = export_model(model, "stablehlo", tmp_path / "a b.stablehlo", ExportOptions(**options))
    assert [path.name for path in tmp_path.iterdir()] == ["a b.stablehlo"]
    metadata = exported.metadata
    assert exported.file == tmp_path / "a b.stablehlo" and exported.pictures == "photographs of the package"
    assert (metadata.nms, metadata.batch) == (options.get("nms", True), options.get("batch"))
    assert (metadata.source.name, metadata.source.step, metadata.weights) == (
        "tiny", 7, "float16" if options.get("half") else "float32",
    )  # fmt: skip
    parity = metadata.parity
    assert parity is not None and parity.pictures == 3 and parity.detections > 20 and parity.alone == 0
    assert 0 <= parity.boxes < 1e-2 and 0 <= parity.scores < 1e-5
    assert parity.logits is not None and parity.logits < 1e-4
    assert (parity.unrounded_scores is not None) == ("half" in options)
    if "half" in options:
        assert 1e-6 < parity.unrounded_scores < 0.05, "the difference that rounding makes is reported, not hidden"
    from ssd_jax.exported.reading import read_program

    assert read_program(exported.file).metadata == metadata


def break_mean(config: Any) -> Any:
    """Return a config in which the means of red and blue are exchanged."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, mean=config.model.mean[::-1]))


@pytest.fixture
def broken_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the writer of StableHLO subtract a wrong mean."""
    make_predict = program.make_predict
    monkeypatch.setattr(
        stablehlo_writer, "make_predict", lambda config, *args, **kw: make_predict(break_mean(config), *args, **kw)
    )


def test_file_that_computes_something_else_is_removed(model, tmp_path, broken_writer):
    with pytest.raises(ParityError, match=r"tiny\.stablehlo: .*removed.*largest differences: .*0\.1 px and 0\.0001"):
        export_model(model, "stablehlo", tmp_path / "tiny.stablehlo")
    assert list(tmp_path.iterdir()) == []


def test_export_command_fails_with_exit_code_1_and_keeps_an_older_file(model, tmp_path, broken_writer, capsys):
    file = tmp_path / "tiny.stablehlo"
    file.write_bytes(b"older")
    assert run_command("export", model, "--out", file) == 1
    assert file.read_bytes() == b"older" and len(list(tmp_path.iterdir())) == 1
    printed = capsys.readouterr()
    assert "error:" in printed.err and "Traceback" not in printed.err and printed.out == ""


def test_interrupted_export_leaves_no_file(model, tmp_path, monkeypatch):
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stablehlo_writer, "compute_logits", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_model(model, "stablehlo", tmp_path / "tiny.stablehlo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--batch", "0"], "--batch is 0"),
        (["--score-threshold", "1.5"], "--score-threshold is 1.5"),
        (["--max-detections", "0"], "--max-detections is 0"),
        (["--int8"], "no option --int8"),
        (["--out", "a.onnx"], "a.onnx: expected a name with the ending .stablehlo"),
    ],
)
def test_export_command_rejects_options_before_it_writes(model, tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    assert run_command("export", model, *options) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1 and list(tmp_path.iterdir()) == []


def test_export_command_names_the_file_like_the_model(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_command("export", model, "--quiet") == 0
    printed = capsys.readouterr()
    assert (tmp_path / "tiny.stablehlo").is_file() and printed.err == ""
    for words in ("tiny.stablehlo: stablehlo of", "logits ", "boxes ", "scores ", "ssd-jax predict tiny.stablehlo"):
        assert words in printed.out
    assert run_command("export", "tiny.stablehlo") == 2
    assert "is an exported file" in capsys.readouterr().err
    assert load("tiny.stablehlo").params is None


def test_error_about_writing_names_the_file_and_not_a_temporary_one(model, tmp_path, monkeypatch):
    def fail(file: Path, *arguments: object) -> None:
        with convert_write_errors(file):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stablehlo_writer, "write_file", fail)
    with pytest.raises(UserError, match="No space left") as caught:
        export_model(model, "stablehlo", tmp_path / "tiny.stablehlo")
    assert str(caught.value).startswith(f"{tmp_path / 'tiny.stablehlo'}: ") and ".ssd_jax_" not in str(caught.value)


def test_stages_of_an_export_are_shown(model, tmp_path, monkeypatch):
    stages = []
    monkeypatch.setattr(Task, "start_stage", lambda task, stage: stages.append(stage))
    export_model(model, "stablehlo", tmp_path / "tiny.stablehlo")
    assert [stage.split()[0] for stage in stages] == ["writing", "comparing"]


def test_rounding_of_the_weights_is_explained(model, tmp_path, capsys):
    assert run_command("export", model, "--half", "--out", tmp_path / "tiny.stablehlo", "--quiet") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "rounding itself" in line]
    assert re.search(r"boxes [0-9.]+ px, scores [0-9.e-]+; \d+ detections", line)


def test_int8_is_calibrated_on_pictures_that_are_named(model, tmp_path, monkeypatch, capsys):
    """A writer that leaves the integers out gets the pictures."""
    seen = []

    def write(network: Network, metadata: Metadata, file: Path) -> None:
        seen.append(len(network.calibration))
        stablehlo_writer.write(network, metadata, file)

    writer = SimpleNamespace(write=write, compute_logits=lambda *arguments: None)
    monkeypatch.setattr(run, "import_writer", lambda name: writer)
    entry = formats.WRITERS["stablehlo"]
    monkeypatch.setitem(formats.WRITERS, "stablehlo", entry._replace(options=entry.options | {"int8"}))
    assert run_command("export", model, "--int8", "--out", tmp_path / "tiny.stablehlo", "--quiet") == 0
    assert seen == [3, 3], "also the file in float32 for the comparison"
    assert "from 3 pictures (photographs of the package)" in capsys.readouterr().out


def test_half_rejects_numbers_that_float16_cannot_hold():
    params = make_random_params(dataclasses.replace(CONFIG.model, norm="none"))
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, norm="none"))
    params["vgg"]["fc6"]["bias"][0] = 1e5
    make_network(config, params, 0, ExportOptions())
    with pytest.raises(UserError, match=r"vgg/fc6/bias.*--half"):
        make_network(config, params, 0, ExportOptions(half=True))


def test_network_has_standardized_kernels_and_the_limits_of_the_options():
    network = make_network(CONFIG, make_random_params(), 0, ExportOptions(score_threshold=0.3))
    kernel = flatten_params(network.params)["vgg/conv2_1/kernel"]
    np.testing.assert_allclose(kernel.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose((kernel**2).sum((0, 1, 2)), 1, rtol=1e-5)
    assert network.config.detect == dataclasses.replace(CONFIG.detect, score_threshold=0.3)


def test_pictures_are_those_of_the_val_split_if_it_can_be_read(tmp_path):
    root = write_voc_folder(tmp_path / "data", {"train": 4, "val": 5})
    data = dataclasses.replace(CONFIG.data, root=str(root), max_image_size=48)
    names = dataclasses.replace(CONFIG.model, class_names=("circle", "square", "star", "triangle"))
    config = dataclasses.replace(CONFIG, data=data, model=names)
    chosen, place = pictures.choose_pictures(config, 3)
    assert place == "val split" and [picture.shape for picture in chosen] == [(48, 48, 3)] * 3
    for file in (root / "JPEGImages").glob("val0.png"):
        file.write_bytes(b"no image")
    assert len(pictures.choose_pictures(config, 3)[0]) == 2, "the first of the three cannot be read"
    gone = dataclasses.replace(config, data=dataclasses.replace(data, root=str(tmp_path / "nowhere")))
    assert pictures.choose_pictures(gone)[1] == "photographs of the package"


def test_bundled_pictures_have_several_sizes(monkeypatch):
    monkeypatch.setattr(pictures, "COUNT", 8)
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, root="", max_image_size=640))
    chosen, _ = pictures.choose_pictures(config)
    assert len(chosen) == 8 and len({picture.shape for picture in chosen}) >= 3
    assert len({picture.tobytes() for picture in chosen}) == 8


def test_place_on_canvases_puts_pictures_in_the_upper_left():
    images = [make_images(3, 5), make_images(6, 2)]
    canvas, height, width = pictures.place_on_canvases(images, 7)
    assert canvas.shape == (2, 7, 7, 3) and height.tolist() == [3, 6] and width.tolist() == [5, 2]
    np.testing.assert_array_equal(canvas[1, :6, :2], images[1])
    assert canvas[0, 3:].sum() == canvas[0, :, 5:].sum() == 0


def test_batches_of_canvases_are_the_pictures_without_their_canvas():
    images = [make_images(3, 5), make_images(6, 2)]
    batches = list(pictures.place_on_canvases(images, 7).make_batches(2))
    for batch, image in zip(batches, images, strict=True):
        np.testing.assert_array_equal(batch, [image, image])


def test_formats_that_compute_in_float32_reject_a_network_in_bfloat16(tmp_path):
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, dtype="bfloat16"))
    write_model_folder(config, make_random_params(), 0, tmp_path / "model", dtype="float32", card="-")
    with pytest.raises(UserError, match=r"model\.dtype"):
        export_model(tmp_path / "model", "onnx", tmp_path / "a.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_tflite_has_a_fixed_batch_and_no_suppression_by_default():
    assert _fill_in_defaults("tflite", ExportOptions()) == ExportOptions(nms=False, batch=1)
    assert _fill_in_defaults("tflite", ExportOptions(batch=4)) == ExportOptions(nms=False, batch=4)
    assert _fill_in_defaults("onnx", ExportOptions()) == ExportOptions()
