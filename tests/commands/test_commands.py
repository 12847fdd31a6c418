"""The program from end to end, as a user types it: train, stop, go on, evaluate, predict, and every mistake."""

import json
import re
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import pytest
from helpers.cli import ROOT, TINY, assert_ended_alike, command, last_step, start, train_stopped_at, write_voc_folder
from matplotlib.figure import Figure
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ssd_jax.commands import show
from ssd_jax.config import Shapes
from ssd_jax.data.formats.shapes import CLASS_NAMES, ShapesSource
from ssd_jax.data.image import read_image
from ssd_jax.data.loader import Batch, Batches
from ssd_jax.inference import detector
from ssd_jax.inference.program import detect
from ssd_jax.metrics.average_precision import COCO_KEYS
from ssd_jax.runs import run_folder
from ssd_jax.runs.checkpoint import Checkpoints
from ssd_jax.runs.log import read_log, read_results
from ssd_jax.training import loop, train_step


def refused(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    """The message of a command that must end with exit code 2 and no traceback."""
    capsys.readouterr()
    assert command(*argv) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    return captured.err + captured.out


def write_config(folder: Path, text: str) -> Path:
    file = folder / "my_config.py"
    file.write_text(text)
    return file


# ---- train ----


def test_a_run_leaves_what_the_docs_say(trained_run):
    files = {file.name for file in trained_run.iterdir()}
    assert files >= {
        "config.json", "checkpoints", "log.jsonl", "results.csv", "tensorboard",
        "train_batch.jpg", "val_truth.jpg", "val_pred.jpg", "curves.png",
    }  # fmt: skip
    config = json.loads((trained_run / "config.json").read_text())
    assert config["model"]["class_names"] == list(CLASS_NAMES), "found in the data"
    lines = read_log(trained_run)
    assert [line["step"] for line in lines] == list(range(1, 31))
    assert all(np.isfinite(line["loss"]) and line["learning_rate"] > 0 for line in lines[:-1])
    assert [row["step"] for row in read_results(trained_run)] == [14, 28, 30]
    for file in trained_run.glob("*.jpg"):
        assert read_image(file).std() > 10


def test_what_train_prints(trained_run, capsys):
    """Of a run that is done, too: nothing is trained again."""
    before = (trained_run / "log.jsonl").read_text()
    assert command("train", TINY, "--workdir", trained_run) == 0
    printed = capsys.readouterr().out
    assert f"Resuming {trained_run}: 64 px, 336 default boxes, 4 classes (circle, square, star, triangle)" in printed
    assert "train: 24 images\nval: 6 images\n" in printed
    assert f"Done. Next: evaluate.py {trained_run}, predict.py {trained_run} IMAGES" in printed
    assert (trained_run / "log.jsonl").read_text() == before


class Stopped(NamedTuple):
    """What was left when a run was interrupted, then killed, then went on to its end."""

    run: Path
    interrupted: tuple[int, str]
    """Exit code of the first start, and what it printed as errors."""
    killed_at: int
    """Last step of the log after the second start."""
    checkpoint_then: int


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    run = tmp_path_factory.mktemp("stopped") / "run"
    argv = (TINY, "--workdir", run)
    first = train_stopped_at(3, signal.SIGINT, *argv)
    second = train_stopped_at(10, signal.SIGKILL, *argv, awaited=run / "checkpoints" / "7")  # the next is 14's
    assert second.returncode == -signal.SIGKILL, second.stderr
    killed_at = last_step(run)
    with Checkpoints(run / "checkpoints") as checkpoints:
        checkpoint = checkpoints.latest
    assert checkpoint is not None
    assert command("train", TINY, "--workdir", run) == 0
    return Stopped(run, (first.returncode, first.stderr), killed_at, checkpoint)


def test_ctrl_c_is_one_line(stopped_run):
    code, errors = stopped_run.interrupted
    assert code == 130
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("Stopped.")


def test_killed_and_started_again_ends_as_never_stopped(stopped_run, trained_run):
    assert (stopped_run.killed_at, stopped_run.checkpoint_then) == (10, 7), "between two checkpoints"
    assert [line["step"] for line in read_log(stopped_run.run)] == list(range(1, 31))
    assert_ended_alike(stopped_run.run, trained_run)
    assert (stopped_run.run / "results.csv").read_text() == (trained_run / "results.csv").read_text()
    with Checkpoints(stopped_run.run / "checkpoints") as here, Checkpoints(trained_run / "checkpoints") as there:
        assert (here.latest, here.best, sorted(here.steps)) == (there.latest, there.best, sorted(there.steps))


def test_each_program_is_traced_once_in_a_run(tmp_path, monkeypatch):
    """Whatever the batches hold: two measurements whose last batch is half empty, an image that can't be read."""
    monkeypatch.setattr(train_step, "_apply", chex.assert_max_traces(train_step._apply, 1))
    monkeypatch.setattr("ssd_jax.inference.program.detect", chex.assert_max_traces(detect, 1))
    data = write_voc_folder(tmp_path / "data", {"train": 7, "val": 6})
    cut = sorted((data / "JPEGImages").iterdir())[0]
    cut.write_bytes(cut.read_bytes()[:200])
    options = ("--data.root", data, "--train.steps", "6", "--train.eval_every", "3", "--model.class-names")
    assert command("train", TINY, "--workdir", tmp_path / "run", *options) == 0
    assert len(read_results(tmp_path / "run")) == 2


def test_what_train_prints_where_data_are_slow(tmp_path, monkeypatch, capsys):
    read = Batches.__next__

    def slowly(batches: Batches) -> Batch:
        time.sleep(1)
        return read(batches)

    monkeypatch.setattr(Batches, "__next__", slowly)
    monkeypatch.setattr(loop, "DATA_WAIT_WARNING", 0.001)  # of seconds in which the step is compiled, too
    assert command("train", TINY, "--workdir", tmp_path / "run", "--train.steps", "5", "--train.eval_every", "0") == 0
    printed = capsys.readouterr().out
    waited, seconds = map(int, re.search(r"The steps waited (\d+) of (\d+) s for data", printed).groups())
    assert 5 <= waited <= seconds
    assert "## Where input becomes the limit" in (ROOT / "docs" / "scale.md").read_text()


def test_other_overrides_than_the_run_was_started_with(trained_run, capsys):
    message = refused(capsys, "train", TINY, "--workdir", trained_run, "--train.steps", "31", "--train.seed", "5")
    assert "train.steps: 30 -> 31" in message
    assert "train.seed: 0 -> 5" in message
    assert len([line for line in message.splitlines() if "->" in line]) == 3, "a header and two differences"


def test_loss_that_breaks_stops_the_run_and_leaves_its_checkpoint(tmp_path, capsys):
    run = tmp_path / "run"
    options = ("--optimizer.learning-rate", "1e30", "--train.checkpoint-every", "1", "--train.eval-every", "0")
    message = refused(capsys, "train", TINY, "--workdir", run, *options)
    broken = re.search(r"step (\d): the loss is (nan|inf)", message)
    assert broken, message
    sound = int(broken[1]) - 1
    assert message.count("train_0") == 4, "the images of the step"
    assert "try a lower --optimizer.learning_rate" in message
    assert sound > 0 and detector.load(run, "last").step == sound
    assert last_step(run) == sound


# ---- configs and options ----


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--train.step", "5"], ["--train.step"]),
        (["--train.steps", "many"], ["--train.steps", "many"]),
        (["--train.steps", "0"], ["train.steps is 0", ">= 1"]),
        (["--train.seed=-1"], ["train.seed is -1", ">= 0"]),
        (["--data.shapes.seed=-1"], ["data.shapes.seed is -1"]),
        (["--data.shapes.val-images", "0"], ["data.shapes.val_images is 0"]),
        (["--data.shapes.image-size", "0"], ["data.shapes.image_size is 0"]),
        (["--match.iou-threshold=-1"], ["match.iou_threshold is -1.0"]),
        (["--loss.neg-pos-ratio=-1"], ["loss.neg_pos_ratio is -1.0"]),
        (["--detect.max-detections=-1"], ["detect.max_detections is -1"]),
        (["--detect.score-threshold", "5"], ["detect.score_threshold is 5.0"]),
        (["--optimizer.momentum", "5"], ["optimizer.momentum is 5.0"]),
        (["--optimizer.warmup-steps=-3"], ["optimizer.warmup_steps is -3"]),
        (["--optimizer.learning-rate", "inf"], ["optimizer.learning_rate is inf", "finite"]),
        (["--optimizer.name", "sdg"], ["--optimizer.name", "sdg"]),
        (["--augment.flip-probability", "1.5"], ["augment.flip_probability is 1.5"]),
        (["--model.default-boxes.image-size", "128"], ["feature_maps is (8, 4, 2)", "(16, 8, 4)"]),
        (["stray"], ["stray"]),
    ],
)
def test_mistaken_options(capsys, tmp_path, options, words):
    message = refused(capsys, "train", TINY, "--workdir", tmp_path / "run", *options)
    for word in words:
        assert word in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\ndef get_config(:\n", ["SyntaxError", "line 2"]),
        ("x = 1\n", ["get_config"]),
        ("def get_config():\n    return {}\n", ["must return a ssd_jax.config.Config, not dict"]),
        ("def get_config():\n    return Confg()\n", ["NameError", "Confg", "line 2"]),
        ("import ssd_jax.confg\n", ["ModuleNotFoundError", "line 1"]),
        ("import sys\nsys.exit(0)\n", ["SystemExit", "line 2"]),
        (
            "from ssd_jax.config import Config, Train\ndef get_config():\n    return Config(train=Train(stepz=1))\n",
            ["stepz", "line 3"],
        ),
        (
            "from ssd_jax.config import Config, Train\ndef get_config():\n    return Config(train=Train(steps=0))\n",
            ["train.steps is 0"],
        ),
        (
            # As Data(root=7) outside the tests, where nothing checks a dataclass's types.
            "from ssd_jax.config import Config\ndef get_config():\n    config = Config()\n"
            "    object.__setattr__(config.data, 'root', 7)\n    return config\n",
            ["data.root is 7", "str"],
        ),
    ],
)
def test_mistaken_config_files(capsys, tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    file = write_config(tmp_path, text).name
    message = refused(capsys, "train", file, "--workdir", tmp_path / "run")
    for word in (file, *words):
        assert word.lower() in message.lower()
    assert not (tmp_path / "run").exists()


def test_config_file_that_is_none(capsys, tmp_path):
    assert "typo.py: no such config file" in refused(capsys, "train", tmp_path / "typo.py")
    assert f"{tmp_path}: no such config file" in refused(capsys, "train", tmp_path)
    (tmp_path / "config.yaml").write_text("steps: 5")
    assert "config.yaml: not a Python file" in refused(capsys, "train", tmp_path / "config.yaml")
    assert "configs/shapes.py" in refused(capsys, "train")
    assert "configs/shapes.py" in refused(capsys, "train", "--train.steps", "5")


# ---- help ----


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["--help"],
            ["train CONFIG [--workdir RUN]", "evaluate RUN", "predict RUN IMAGES", "show RUN", "COMMAND --help"],
        ),
        (["train", "--help"], ["usage: ssd-jax train CONFIG", "resumes", "--data.root FOLDER"]),
        (["train", "-h"], ["usage: ssd-jax train CONFIG"]),
        (["train", TINY, "--help"], ["--train.steps", "30", "--workdir", "Run folder"]),
        (["evaluate", "--help"], ["RUN", "--split", "--checkpoint", "best,last", "--data.root"]),
        (["predict", "--help"], ["RUN", "IMAGES", "--out", "--score"]),
        (["show", "--help"], ["RUN", "--image", "--epoch", "--out", "--data.root"]),
    ],
)
def test_help(capsys, argv, words):
    assert command(*argv) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    for word in words:
        assert word in printed.out


@pytest.mark.filterwarnings("default")
def test_warnings_of_libraries_that_ask_for_nothing_are_not_shown(monkeypatch, recwarn, tmp_path):
    file = tmp_path / "a.png"
    Image.new("RGB", (64, 48)).save(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 64 - 1)

    def run(argv: Sequence[str]) -> None:
        read_image(file)
        Figure().text(0, 0, "猫").figure.savefig(tmp_path / "glyph.png")

    monkeypatch.setattr(show, "run", run)
    assert command("show") == 0
    assert [str(warning.message) for warning in recwarn] == []


def test_no_command_and_unknown_command(capsys):
    assert "usage: ssd-jax COMMAND" in refused(capsys)
    message = refused(capsys, "trian", "configs/shapes.py")
    assert message.startswith("error: no command 'trian'")
    assert "train CONFIG" in message


# ---- data ----


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return write_voc_folder(tmp_path / "data", {"train": 8, "val": 4, "test": 6})


def remove(file: str) -> Any:
    return lambda root: (root / file).unlink()


def rename_class(root: Path) -> None:
    """In an image of val only: the classes are those of the whole folder, so name them in the config of a run."""
    file = root / "Annotations" / "val0.xml"
    file.write_text(file.read_text().replace("<name>", "<name>un", 1))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: shutil.rmtree(root), ["data.root: ", "--data.root FOLDER"]),
        (lambda root: (root / "ImageSets/Main/train.txt").write_text(""), ["split 'train'"]),
        (
            remove("ImageSets/Main/val.txt"),
            ["no split 'val'", "test, train", "--data.val_split", "--train.eval_every 0"],
        ),
        (remove("Annotations/train3.xml"), ["train.txt line 4: ", "train3.xml"]),
        (remove("JPEGImages/train3.png"), ["train3.xml: ", "no train3 with .jpg"]),
        (lambda root: (root / "Annotations/val0.xml").write_text("<annotation>\n<object>"), ["val0.xml", "line 2"]),
        (lambda root: shutil.rmtree(root / "Annotations"), ["data.root: ", "voc: ", "coco: "]),
    ],
)
def test_mistakes_in_the_data(capsys, tmp_path, voc, damage, words):
    damage(voc)
    message = refused(capsys, "train", TINY, "--workdir", tmp_path / "run", "--data.root", voc)
    for word in words:
        assert word in message
    assert not (tmp_path / "run").exists(), "the same command must work once the data are mended"


def test_no_folder_named(capsys, tmp_path):
    message = refused(capsys, "train", ROOT / "configs" / "own_data.py", "--workdir", tmp_path / "run")
    assert "--data.root FOLDER" in message


def test_other_classes_than_the_runs(capsys, trained_run, voc):
    rename_class(voc)
    message = refused(capsys, "evaluate", trained_run, "--data.root", voc, "--split", "val")
    assert "val0.xml: object 1 is of class 'un" in message
    assert "circle, square, star, triangle" in message


def test_workdir_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    message = refused(capsys, "train", TINY, "--workdir", tmp_path / "file" / "run")
    assert "file/run: can't be written" in message and "--workdir" in message


class Folder(NamedTuple):
    root: Path
    run: Path
    printed: str
    errors: str


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Training on a folder with one cut image in train and one in val, and an image with too many objects."""
    base = tmp_path_factory.mktemp("own")
    many = [("star", (x, y, x + 9.5, y + 9.0)) for x in (0, 20, 40) for y in (0, 20, 40, 55)]
    root = write_voc_folder(base / "data", {"train": 24, "val": 6, "test": 6}, extra_objects=many)
    for stem in ("train5", "val1"):
        file = root / "JPEGImages" / f"{stem}.png"
        file.write_bytes(file.read_bytes()[:600])
    process = start("train.py", TINY, "--workdir", base / "run", "--data.root", root)
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    return Folder(root, base / "run", printed, errors)


def test_cut_images_are_named_and_training_goes_on(folder_run):
    assert last_step(folder_run.run) == 30
    lines = re.split(r"[\r\n]+", folder_run.errors)
    told = sorted(line for line in lines if "could not" in line or "can't" in line)
    images = folder_run.root / "JPEGImages"
    assert told[2].startswith("warning: 1 of 6 images could not be read; nothing is found in them, and their objects")
    assert told[0].startswith(f"warning: {images}/train5.png: can't be read as an image"), "train_batch.jpg has it, too"
    assert told[1].startswith(f"warning: {images}/val1.png: can't be read as an image"), "measured on thrice"
    assert len(told) == 3, "once each"
    assert "Traceback" not in folder_run.errors and "WARNING" not in folder_run.errors
    train, first, val, second = folder_run.printed.splitlines()[-5:-1]
    assert train == "1 of 24 train images could not be used:" and first.startswith(f"  {images}/train5.png: can't be")
    assert val == "1 of 6 val images could not be used:" and second.startswith(f"  {images}/val1.png: can't be")


def test_strict_stops_at_a_cut_image(folder_run, tmp_path, capsys):
    argv = "train", TINY, "--workdir", tmp_path / "run", "--data.root", folder_run.root, "--strict"
    assert "train5.png" in (message := refused(capsys, *argv)) and "as --strict asks" in message
    assert "val1.png" in refused(capsys, "evaluate", folder_run.run, "--split", "val", "--strict")


def test_val_images_that_are_trained_on_are_told(folder_run, tmp_path, capsys):
    argv = "train", TINY, "--workdir", tmp_path / "run", "--data.root", folder_run.root, "--train.steps", "1"
    assert command(*argv, "--data.train-split", "train+val[:2]") == 0
    assert "note: 2 of the 6 val images" in capsys.readouterr().out


def test_images_without_objects_that_would_teach_nothing_are_told(tmp_path, voc, capsys):
    (voc / "Annotations" / "train0.xml").write_text("<annotation></annotation>")
    argv = "train", TINY, "--data.root", voc, "--train.steps", "1"
    message = "note: 1 images"
    assert command(*argv, "--workdir", tmp_path / "a") == 0 and message in (printed := capsys.readouterr().out)
    assert "--loss.min_negatives" in printed
    assert command(*argv, "--workdir", tmp_path / "b", "--loss.min-negatives", "3") == 0
    assert message not in capsys.readouterr().out


def test_the_same_folder_typed_otherwise_is_the_same_run(folder_run, monkeypatch, capsys):
    monkeypatch.chdir(folder_run.root.parent)
    assert command("train", TINY, "--workdir", "run", "--data.root", "data/", "--train.log-every", "5") == 0
    assert "  changed: train.log_every: 1 -> 5\ntrain: 24 images" in capsys.readouterr().out


def test_objects_beyond_the_padding_are_counted(folder_run):
    first = (folder_run.root / "Annotations" / "train0.xml").read_text().count("<object>")
    assert f"note: {first - 8} objects" in folder_run.printed
    assert "raise --data.max_objects" in folder_run.printed


# ---- evaluate ----


def read_metrics(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())


@pytest.fixture
def later_and_worse(trained_run, tmp_path) -> Path:
    """A run that was best before its last checkpoint, whose parameters are noise."""
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    params, step = detector.restore_params(run, run_folder.read_config(run), "best")
    noise = jax.tree.map(lambda p: p + jax.random.normal(jax.random.key(0), p.shape), params)
    with Checkpoints(run / "checkpoints", for_writing=True) as checkpoints:
        metadata = {"config": json.loads((run / "config.json").read_text())}
        checkpoints.save(step + 100, {"params": noise}, metadata, best_metric=-1.0)
    return run


def test_evaluate_takes_the_best_checkpoint_and_the_test_split(later_and_worse, capsys):
    assert command("evaluate", later_and_worse) == 0
    printed = capsys.readouterr().out
    best = read_metrics(later_and_worse)
    with Checkpoints(later_and_worse / "checkpoints") as checkpoints:
        assert best["checkpoint_step"] == checkpoints.best != checkpoints.latest
    assert (best["split"], best["images"]) == ("test", 6)
    for key in ("voc_map_11point", "voc_map_area", "coco_ap"):
        assert 0 <= best[key] <= 1
    assert set(best["voc_classes"]) == set(CLASS_NAMES)
    for words in (*CLASS_NAMES, "AP 11-point", "COCO", "AP @ IoU .50:.95", "AR, large", "metrics.json"):
        assert words in printed
    assert (later_and_worse / "test_truth.jpg").exists() and (later_and_worse / "test_pred.jpg").exists()
    assert command("evaluate", later_and_worse, "--checkpoint", "last") == 0
    last = read_metrics(later_and_worse)
    assert last["checkpoint_step"] == best["checkpoint_step"] + 100
    assert last["voc_map_area"] != best["voc_map_area"]


def test_evaluate_agrees_with_the_row_of_its_checkpoint(trained_run):
    assert command("evaluate", trained_run, "--split", "val", "--checkpoint", "last") == 0
    row = read_results(trained_run)[-1]
    measured = json.loads((trained_run / "metrics_val.json").read_text())
    for key in ("voc_map_11point", "voc_map_area", "coco_ap"):
        assert measured[key] == row[key]


def test_evaluate_where_there_is_no_test_split(folder_run, tmp_path, capsys):
    root = tmp_path / "data"
    shutil.copytree(folder_run.root, root)
    (root / "ImageSets" / "Main" / "test.txt").unlink()
    assert command("evaluate", folder_run.run, "--data.root", root) == 0
    printed = capsys.readouterr()
    assert "has no split 'test'" in printed.out and "'val' instead" in printed.out
    assert "warning: 1 of 6 images could not be read" in printed.err
    assert read_metrics(folder_run.run)["split"] == "val"


def test_evaluate_with_a_broken_test_split_measures_nothing_else(folder_run, tmp_path, capsys):
    root = tmp_path / "data"
    shutil.copytree(folder_run.root, root)
    (root / "Annotations" / "test2.xml").unlink()
    assert "test2.xml" in refused(capsys, "evaluate", folder_run.run, "--data.root", root)


@pytest.fixture(scope="module")
def coco_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated pictures as COCO has its own: ids apart, a val split, and a test-dev split without boxes."""
    root = tmp_path_factory.mktemp("coco")
    source = ShapesSource(Shapes(val_images=6, image_size=64), "val")
    for folder in ("annotations", "val2017", "test2017"):
        (root / folder).mkdir()
    images, objects = [], []
    for i in range(6):
        annotation, name = source.annotation(i), f"{i:012d}.png"
        for folder in ("val2017", "test2017"):
            Image.fromarray(np.array(source.image(i))).save(root / folder / name)
        images.append({"id": 900 - 7 * i, "file_name": name, "width": 64, "height": 64})
        for label, (x1, y1, x2, y2) in zip(annotation.labels.tolist(), annotation.boxes_px.tolist(), strict=True):
            box = [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)]
            ids = {"id": len(objects) + 1, "image_id": images[-1]["id"], "category_id": 10 * label}
            objects.append({**ids, "bbox": box, "area": 0.7 * box[2] * box[3], "iscrowd": int(len(objects) == 3)})
    listed = {"images": images, "categories": [{"id": 10 * k, "name": n} for k, n in enumerate(CLASS_NAMES, start=1)]}
    (root / "annotations" / "image_info_test-dev2017.json").write_text(json.dumps(listed))
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps({**listed, "annotations": objects}))
    return root


def test_evaluate_on_coco_says_what_pycocotools_says_of_its_result_file(trained_run, coco_root, tmp_path, capsys):
    run = Path(shutil.copytree(trained_run, tmp_path / "tiny"))
    assert command("evaluate", run, "--data.root", coco_root, "--split", "val2017", "--results") == 0
    file = run / "results" / "detections_val2017_tiny_results.json"
    assert str(file) in capsys.readouterr().out
    measured = json.loads((run / "metrics_val2017.json").read_text())
    truth = COCO(coco_root / "annotations" / "instances_val2017.json")
    evaluation = COCOeval(truth, truth.loadRes(str(file)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] > 0
    assert [-1 if measured[key] is None else measured[key] for key in COCO_KEYS] == list(evaluation.stats)


def test_evaluate_where_only_the_server_has_the_boxes(trained_run, coco_root, tmp_path, capsys):
    run = Path(shutil.copytree(trained_run, tmp_path / "tiny"))
    before = {file.name for file in run.iterdir()}
    assert command("evaluate", run, "--data.root", coco_root, "--split", "test-dev2017") == 0
    assert "test-dev2017" in capsys.readouterr().out
    assert {file.name for file in run.iterdir()} == before | {"results"}
    (file,) = (run / "results").iterdir()
    assert file.name == "detections_test-dev2017_tiny_results.json"
    assert {entry["category_id"] for entry in json.loads(file.read_text())} <= {10, 20, 30, 40}


def test_evaluate_writes_files_for_vocs_server(trained_run, tmp_path, capsys):
    run = Path(shutil.copytree(trained_run, tmp_path / "tiny"))
    assert command("evaluate", run, "--results") == 0
    assert "comp4_det_test_circle.txt and 3 others" in capsys.readouterr().out
    assert {file.name for file in (run / "results").iterdir()} == {f"comp4_det_test_{n}.txt" for n in CLASS_NAMES}
    assert "metrics.json" in {file.name for file in run.iterdir()}


@pytest.mark.parametrize("part", ["train", "val"])
def test_training_needs_boxes(capsys, tmp_path, coco_root, part):
    splits = {"train": "val2017", "val": "val2017"} | {part: "test-dev2017"}
    options = [word for name, split in splits.items() for word in (f"--data.{name}_split", split)]
    message = refused(capsys, "train", TINY, "--workdir", tmp_path / "run", "--data.root", coco_root, *options)
    assert "the split 'test-dev2017'" in message
    assert not (tmp_path / "run").exists()


def test_evaluate_refuses(capsys, tmp_path, trained_run):
    assert "config.json is missing" in refused(capsys, "evaluate", tmp_path)
    assert "no split 'tset'" in refused(capsys, "evaluate", trained_run, "--split", "tset")
    assert "first" in refused(capsys, "evaluate", trained_run, "--checkpoint", "first")


# ---- predict ----


@pytest.fixture
def photographs(tmp_path: Path, trained_run: Path) -> Path:
    """A folder below which lie images of two sizes, one of them larger than the run's canvas of 64."""
    source = ShapesSource(run_folder.read_config(trained_run).data.shapes, "test")
    folder = tmp_path / "photographs"
    (folder / "holiday" / "sea").mkdir(parents=True)
    small = Image.fromarray(np.array(source.image(0)))
    large = small.resize((256, 128), Image.Resampling.NEAREST)
    small.save(folder / "a.png")
    small.save(folder / "a.bmp")
    large.save(folder / "a.jpg", quality=95)
    large.save(folder / "holiday" / "sea" / "b.PNG")
    return folder


def test_predict_on_a_folder(trained_run, photographs, tmp_path, capsys):
    out = tmp_path / "out"
    assert command("predict", trained_run, photographs, "--out", out, "--score", "0.02") == 0
    predictions = json.loads((out / "predictions.json").read_text())
    images = {Path(image["file"]).relative_to(photographs).as_posix(): image for image in predictions["images"]}
    assert list(images) == ["a.bmp", "a.jpg", "a.png", "holiday/sea/b.PNG"]
    pictures = {file.relative_to(out).as_posix() for file in out.rglob("*.jpg")}
    assert pictures == {"a.bmp.jpg", "a.jpg", "a.png.jpg", "holiday/sea/b.PNG.jpg"}, "one does not overwrite another"
    for image in images.values():
        with Image.open(image["picture"]) as picture:
            assert picture.size == (image["width"], image["height"])
        for found in image["detections"]:
            assert found["name"] in CLASS_NAMES and found["score"] >= 0.02
            x1, y1, x2, y2 = found["box"]
            assert 0 <= x1 <= x2 <= image["width"] and 0 <= y1 <= y2 <= image["height"]
    assert images["a.png"]["detections"] == images["a.bmp"]["detections"] != []
    assert (images["a.jpg"]["width"], images["a.jpg"]["height"]) == (256, 128)
    reach = max(x2 for found in images["holiday/sea/b.PNG"]["detections"] for x2 in found["box"][2:3])
    assert reach > 64, "in pixels of the original, not of the canvas or the network"
    count = sum(len(image["detections"]) for image in images.values())
    assert f"{count} detections in 4 images" in capsys.readouterr().out


def test_predict_on_one_image_shows_from_a_half_up(trained_run, photographs, tmp_path):
    out = tmp_path / "out"
    assert command("predict", trained_run, photographs / "a.png", "--out", out) == 0
    (image,) = json.loads((out / "predictions.json").read_text())["images"]
    assert all(found["score"] >= 0.5 for found in image["detections"])
    assert (out / "a.png.jpg").exists()


def test_predict_takes_several_and_tells_the_best_score_where_it_shows_none(trained_run, photographs, tmp_path, capsys):
    argv = (photographs / "a.png", photographs / "holiday", "--out", tmp_path / "out")
    assert command("predict", trained_run, *argv, "--score", "1") == 0
    printed = capsys.readouterr().out
    assert re.search(r"0 detections in 2 images .*\(the best score is 0\.\d\d; .*--score", printed)
    assert {p.name for p in (tmp_path / "out").rglob("*.jpg")} == {"a.png.jpg", "b.PNG.jpg"}


def test_predict_never_replaces_a_photograph(trained_run, photographs, tmp_path, monkeypatch, capsys):
    before = {file: file.read_bytes() for file in photographs.rglob("*.*")}
    monkeypatch.chdir(photographs)
    for images, out in ((".", "."), ("a.jpg", "."), ("holiday/sea", photographs), (photographs, "holiday/sea")):
        assert "Name another --out" in refused(capsys, "predict", trained_run, images, "--out", out)
    assert {file: file.read_bytes() for file in photographs.rglob("*.*")} == before
    shutil.copy(photographs / "a.jpg", photographs / "holiday")
    message = refused(capsys, "predict", trained_run, "a.jpg", "holiday/a.jpg", "--out", tmp_path / "out")
    assert "a.jpg and holiday/a.jpg have the same output file" in message


def test_predict_goes_on_past_a_cut_image(trained_run, photographs, tmp_path, capsys):
    whole = (photographs / "a.jpg").read_bytes()
    (photographs / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out"
    message = refused(capsys, "predict", trained_run, photographs, "--out", out)
    assert "1 of 5 images could not be read" in message
    assert f"{photographs / 'cut.jpg'}: can't be read as an image" in message
    assert len(json.loads((out / "predictions.json").read_text())["images"]) == 4


def test_predict_does_not_read_what_it_wrote(trained_run, photographs):
    out = photographs / "predictions"
    for _ in range(2):
        assert command("predict", trained_run, photographs, "--out", out) == 0
        assert len(json.loads((out / "predictions.json").read_text())["images"]) == 4


def test_predict_refuses(capsys, tmp_path, trained_run, photographs):
    (tmp_path / "file").write_text("")
    message = refused(capsys, "predict", trained_run, photographs, "--out", tmp_path / "file" / "out")
    assert "file/out: can't be written (Not a directory). Name another --out" in message
    out = tmp_path / "out"
    (tmp_path / "notes.txt").write_text("no image")
    message = refused(capsys, "predict", trained_run, tmp_path / "notes.txt", "--out", tmp_path / "other")
    assert "1 of 1 images could not be read" in message and "detections" not in message
    assert "name at least one image" in refused(capsys, "predict", trained_run, "--out", out)
    assert "--score is 1.5" in refused(capsys, "predict", trained_run, photographs, "--score", "1.5", "--out", out)
    assert "no such file or folder" in refused(capsys, "predict", trained_run, tmp_path / "typo", "--out", out)
    (tmp_path / "empty").mkdir()
    assert "no images in it" in refused(capsys, "predict", trained_run, tmp_path / "empty", "--out", out)
    assert "config.json is missing" in refused(capsys, "predict", tmp_path, photographs, "--out", out)
    assert not out.exists(), "nothing is made before everything is there"
