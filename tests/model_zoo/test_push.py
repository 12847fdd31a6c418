"""Tests of ``ssd-jax push`` and of models that are named hf://user/name, with a stand-in for the Hugging Face Hub."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from helpers.cli import run_command
from helpers.fake_hub import TOKEN, FakeHub
from PIL import Image
from safetensors.numpy import save

import ssd_jax
from ssd_jax.data.formats.shapes import CLASS_NAMES, ShapesSource
from ssd_jax.errors import UserError
from ssd_jax.metrics.average_precision import COCO_KEYS
from ssd_jax.model_zoo import save_model_folder
from ssd_jax.model_zoo.catalog import BUNDLED_FOLDER
from ssd_jax.model_zoo.publishing import push

RUN_FILES = {"config.json", "model.safetensors", "README.md", "detections.jpg"}


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    """Return a copy of a short run, whose config has paths of this machine."""
    folder = Path(shutil.copytree(trained_run, tmp_path / "run"))
    config = json.loads((folder / "config.json").read_text())
    config["data"]["tfds_dir"] = "/srv/mia/private"
    config["train"]["pretrained"] = "/srv/mia/private/vgg.pth"
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def token(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a token that may write."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def write_metrics(run: Path, step: int) -> None:
    """Write a metrics.json and a picture, as ``evaluate`` does."""
    one = {"objects": 9, "ignored_objects": 0, "detections": 9, "ap_11point": 0.5, "ap_area": 0.5}
    metrics = {"split": "test", "images": 6, "checkpoint_step": step, "voc_map_11point": 0.4321, "voc_map_area": 0.5}
    metrics |= dict.fromkeys(COCO_KEYS, 0.25) | {"voc_classes": dict.fromkeys(CLASS_NAMES, one)}
    (run / "metrics.json").write_text(json.dumps(metrics))
    Image.new("RGB", (8, 8), "red").save(run / "test_pred.jpg")


@pytest.mark.usefixtures("token")
def test_pushed_run_gives_the_same_detections(fake_hub: FakeHub, run, capsys):
    assert run_command("push", run, "mia/shapes", "--license", "mit") == 0
    printed = capsys.readouterr().out
    assert f"{fake_hub.url}/mia/shapes" in printed and "hf://mia/shapes" in printed and TOKEN not in printed
    files = fake_hub.repositories["mia/shapes"].commits[-1]
    assert files.keys() == RUN_FILES
    assert files["detections.jpg"] == (run / "val_pred.jpg").read_bytes()
    assert not any(b"/srv/mia" in content or str(run).encode() in content for content in files.values())
    expected, actual = ssd_jax.load(run), ssd_jax.load("hf://mia/shapes")
    assert actual.step == expected.step and actual.class_names == CLASS_NAMES
    image = ShapesSource(expected.config.data.shapes, "test").image(0)
    assert expected(image, score_threshold=0.02)
    assert actual(image, score_threshold=0.02) == expected(image, score_threshold=0.02)


@pytest.mark.parametrize("is_same_checkpoint", [True, False])
def test_card_has_the_metrics_of_the_pushed_checkpoint_only(run, tmp_path, capsys, is_same_checkpoint):
    step = ssd_jax.load(run).step
    write_metrics(run, step if is_same_checkpoint else step + 1)
    assert run_command("push", run, "mia/shapes", "--dry-run", tmp_path / "out") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert ("| 0.432 |" in card) == is_same_checkpoint
    assert ("evaluate" in capsys.readouterr().out) != is_same_checkpoint
    picture = (tmp_path / "out" / "detections.jpg").read_bytes()
    assert picture == (run / ("test_pred.jpg" if is_same_checkpoint else "val_pred.jpg")).read_bytes()
    assert "hf://mia/shapes" in card and "detections.jpg" in card and f"{step:,} of 30" in card


def test_dry_run_needs_neither_network_nor_extra(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for _ in range(2):  # the second time, the files are replaced
        assert run_command("push", run, "mia/shapes", "--dry-run", tmp_path / "out") == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == RUN_FILES
    assert ssd_jax.load(tmp_path / "out").class_names == CLASS_NAMES


def test_dry_run_keeps_other_files(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo.jpg").touch()
    assert run_command("push", run, "mia/shapes", "--dry-run", tmp_path / "out") == 2
    assert "photo.jpg" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["photo.jpg"]


def test_push_can_leave_out_the_picture(run, tmp_path):
    assert run_command("push", run, "mia/shapes", "--dry-run", tmp_path / "out", "--no-picture") == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == RUN_FILES - {"detections.jpg"}
    assert "detections.jpg" not in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.usefixtures("token")
def test_push_uploads_a_model_folder_as_it_is(fake_hub: FakeHub, trained_run, tmp_path):
    folder = save_model_folder(trained_run, tmp_path / "model", card="---\nlicense: mit\n---\n# my text\n")
    (folder / "notes.txt").write_text("not for the public")
    assert run_command("push", folder, "mia/shapes", "--private") == 0
    repository = fake_hub.repositories["mia/shapes"]
    assert repository.private
    names = ("config.json", "model.safetensors", "README.md")
    assert repository.commits[-1] == {name: (folder / name).read_bytes() for name in names}


@pytest.mark.usefixtures("token")
def test_push_checks_a_model_folder(fake_hub: FakeHub, trained_run, tmp_path, capsys):
    folder = save_model_folder(trained_run, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"\x80pickle")
    assert run_command("push", folder, "mia/shapes") == 2
    assert "model.safetensors" in capsys.readouterr().err
    assert not fake_hub.requests


def test_push_without_a_token_or_extra_does_no_work(fake_hub: FakeHub, tmp_path, monkeypatch, capsys):
    missing = tmp_path / "no_run"
    assert run_command("push", missing, "mia/shapes") == 2
    assert "hf auth login" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert run_command("push", missing, "mia/shapes") == 2
    assert "ssd-jax[hub]" in capsys.readouterr().err
    assert not fake_hub.requests


# ---- models of the Hub ----


def test_predict_takes_a_model_of_the_hub(fake_hub: FakeHub, trained_run, tmp_path):
    folder = save_model_folder(trained_run, tmp_path / "model")
    fake_hub.add("mia/shapes", {file.name: file.read_bytes() for file in folder.iterdir()}, tags={"v1": 0})
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    assert run_command("predict", "hf://mia/shapes@v1", tmp_path / "a.png", "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "predictions.json").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"\x80\x04pickle"),
        ("config.json", b'{"model": {"class_names": ["a"]}, "name": "\\u001b[2J"}'),
        ("config.json", b'{"name": "x", "surprise": {"data": 1'),
        ("config.json", b"[" * 100_000),
        ("model.safetensors", b"\x80\x04cposix\nsystem\n(S'true'\ntR."),
        ("model.safetensors", b"\xff" * 64),
        ("model.safetensors", save({})),
    ],
)
def test_hostile_repository_is_refused_in_one_line(fake_hub: FakeHub, trained_run, tmp_path, capsys, name, content):
    folder = save_model_folder(trained_run, tmp_path / "model")
    fake_hub.add("mia/shapes", {file.name: file.read_bytes() for file in folder.iterdir()} | {name: content})
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    capsys.readouterr()
    assert run_command("predict", "hf://mia/shapes", tmp_path / "a.png", "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if not line.startswith("downloading")]
    assert len(lines) == 1 and lines[0].startswith("error: ") and "\x1b" not in error


@pytest.mark.parametrize(
    "name", ["mex", "a/b/c", "/b", "a/", "a b/c", "me/x y", "me/a--b", "me/x.git", "me/-x", "me/é"]
)
def test_name_without_a_user_is_rejected(trained_run, tmp_path, name):
    with pytest.raises(UserError, match="Write USER/NAME"):
        push(trained_run, name, dry_run=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_license_leads_to_a_warning_with_similar_ones(trained_run, tmp_path, capsys):
    for license_id, words in (("cc-by-4", "Did you mean cc-by-4.0"), ("foo", "write other"), ("mit", "")):
        assert run_command("push", trained_run, "me/x", "--license", license_id, "--dry-run", tmp_path / "out") == 0
        assert (f"--license {license_id}: " in (printed := capsys.readouterr().err)) == bool(words) and words in printed


@pytest.mark.parametrize("source", ["shapes", BUNDLED_FOLDER / "shapes"])
def test_license_of_a_model_folder_is_not_replaced(tmp_path, source, capsys):
    assert run_command("push", source, "me/x", "--license", "mit", "--dry-run", tmp_path / "out") == 2
    assert "README.md" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_files_of_a_bundled_model_are_uploaded_unchanged(tmp_path):
    pushed = push("blood-cells", "me/cells", dry_run=tmp_path)
    assert pushed.has_accuracy
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (tmp_path / name).read_bytes() == (BUNDLED_FOLDER / "blood-cells" / name).read_bytes()
