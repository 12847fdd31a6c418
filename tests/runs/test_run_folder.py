"""config.json, log.jsonl, results.csv and TensorBoard's file: what is written is read back, whatever came between."""

import dataclasses
import json
import struct
from pathlib import Path

import pytest
from helpers import tiny_config
from helpers.paths import ROOT
from tensorboardX.proto.event_pb2 import Event, SessionLog

from ssd_jax import config
from ssd_jax.errors import UserError
from ssd_jax.runs import run_folder
from ssd_jax.runs.config_file import load_config
from ssd_jax.runs.log import RunLog, read_log, read_results

CONFIGS = sorted((ROOT / "configs").glob("*.py"))
TINY = tiny_config.get_config()


def with_steps(steps: int) -> config.Config:
    return dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, steps=steps))


def write_run(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(text)
    return folder


# ---- config.json ----


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_config_is_read_back_equal(tmp_path, file):
    written = load_config(file)
    run_folder.create_or_resume(tmp_path / "run", written)
    assert run_folder.read_config(tmp_path / "run") == written


def test_config_of_another_librarys_post_processing_is_read_back_equal(tmp_path):
    detect = config.Detect(top_k_per="map", log_scale_bounds=(None, 4.0), clip_before_nms=True, drop_empty=True)
    written = dataclasses.replace(TINY, detect=detect)
    run_folder.create_or_resume(tmp_path / "run", written)
    assert run_folder.read_config(tmp_path / "run") == written


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ["config.json"]),
        ('{"train": {"steps": "many"}}', ["config.json", "train.steps"]),
        ('{"train": {"steps": 0}}', ["config.json", "train.steps is 0"]),
    ],
)
def test_changed_config_is_named(tmp_path, text, words):
    with pytest.raises(UserError) as error:
        run_folder.read_config(write_run(tmp_path / "run", text))
    assert all(word in str(error.value) for word in words)


def test_not_a_run(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        run_folder.read_config(tmp_path / "typo")
    with pytest.raises(UserError, match=r"config\.json is missing"):
        run_folder.read_config(tmp_path)


def test_start_anew_and_again(tmp_path):
    run = tmp_path / "deep" / "run"
    assert run_folder.create_or_resume(run, TINY) == (False, [])
    assert run_folder.create_or_resume(run, TINY) == (False, []), "nothing to go on from yet"
    (run / "checkpoints" / "7.orbax-checkpoint-tmp").mkdir(parents=True)
    assert run_folder.create_or_resume(run, TINY) == (False, []), "cut short"
    (run / "checkpoints" / "7").mkdir()
    assert run_folder.create_or_resume(run, TINY) == (True, [])


def test_a_run_without_a_checkpoint_takes_other_options(tmp_path):
    run_folder.create_or_resume(tmp_path / "run", TINY)
    assert run_folder.create_or_resume(tmp_path / "run", with_steps(31)) == (False, [])
    assert run_folder.read_config(tmp_path / "run") == with_steps(31)


def test_a_run_goes_on_with_its_data_elsewhere_and_other_intervals(tmp_path):
    begun(tmp_path / "run")
    moved = dataclasses.replace(
        TINY,
        data=dataclasses.replace(TINY.data, root="/elsewhere"),
        train=dataclasses.replace(TINY.train, log_every=3),
    )
    changed = ["data.root: 'shapes' -> '/elsewhere'", "train.log_every: 1 -> 3"]
    assert run_folder.create_or_resume(tmp_path / "run", moved) == (True, changed)
    assert run_folder.read_config(tmp_path / "run") == moved


def begun(run: Path) -> None:
    run_folder.create_or_resume(run, TINY)
    (run / "checkpoints" / "7").mkdir(parents=True)


def test_other_options_are_listed_and_nothing_is_changed(tmp_path):
    begun(tmp_path / "run")
    before = (tmp_path / "run" / "config.json").read_text()
    other = dataclasses.replace(with_steps(31), name="tiny2")
    with pytest.raises(UserError) as error:
        run_folder.create_or_resume(tmp_path / "run", other)
    changed = [line.strip() for line in str(error.value).splitlines() if line.startswith("  ")]
    assert changed == ["name: 'tiny' -> 'tiny2'", "train.steps: 30 -> 31"]
    assert (tmp_path / "run" / "config.json").read_text() == before


def test_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("dear to someone")
    with pytest.raises(UserError, match="not empty"):
        run_folder.create_or_resume(tmp_path, TINY)
    with pytest.raises(UserError, match="is a file"):
        run_folder.create_or_resume(tmp_path / "thesis.tex", TINY)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run: can't be written \(Not a directory\). Name another --workdir"):
        run_folder.create_or_resume(tmp_path / "file" / "run", TINY)


# ---- logs ----


def test_log_goes_on_after_a_step(tmp_path):
    with RunLog(tmp_path, 0) as log:
        for step in (1, 2, 3):
            log.log_step(step, {"loss": step / 3})
        log.log_evaluation(2, {"loss": 2 / 3, "voc_map_area": 0.25, "coco_ap": None})
        log.log_evaluation(3, {"loss": 1.0, "voc_map_area": 0.5, "coco_ap": 0.125})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # where a kill cut it
    with RunLog(tmp_path, 2) as log:
        log.log_step(3, {"loss": 9.0})
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 1 / 3}, {"step": 2, "loss": 2 / 3}, {"step": 3, "loss": 9.0}]
    assert read_results(tmp_path) == [{"step": 2, "loss": 2 / 3, "voc_map_area": 0.25, "coco_ap": None}]
    text = (tmp_path / "results.csv").read_text()
    assert text == "step,loss,voc_map_area,coco_ap\n2,0.6666666666666666,0.25,\n"


def test_logs_of_a_fresh_run_are_empty(tmp_path):
    assert read_log(tmp_path) == []
    assert read_results(tmp_path) == []


def read_events(folder: Path) -> list[Event]:
    """TFRecord: length (8 bytes) and its checksum (4), the record and its checksum (4)."""
    events = []
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            events.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return events


def test_tensorboard_has_the_scalars(tmp_path):
    with RunLog(tmp_path, 6) as log:
        log.log_step(7, {"loss": 0.5})
        log.log_evaluation(8, {"voc_map_area": 0.25, "coco_ap": None})
        events = read_events(tmp_path / "tensorboard")  # on the disk at once, not only at the end
    scalars = [(e.step, value.tag, value.simple_value) for e in events for value in e.summary.value]
    assert scalars == [(7, "train/loss", 0.5), (8, "val/voc_map_area", 0.25)]
    # What lies after the checkpoint that the run goes on from is forgotten.
    assert [e.step for e in events if e.session_log.status == SessionLog.START] == [7]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full, a disk that is always full")
def test_log_on_a_full_disk(tmp_path):
    with RunLog(tmp_path, 0) as log:
        log.log_file = tmp_path / "full.jsonl"
        log.log_file.symlink_to("/dev/full")
        with pytest.raises(UserError, match=r"full.jsonl: can't be written \(No space left on device\)"):
            log.log_step(1, {"loss": 0.5})


def test_a_folder_is_for_one_process(tmp_path):
    with run_folder.exclusive_lock(tmp_path):
        with pytest.raises(UserError, match=r"another process .*--workdir.*--distributed"):
            run_folder.exclusive_lock(tmp_path).__enter__()
        with run_folder.exclusive_lock(tmp_path.parent):
            pass
    with pytest.raises(ValueError, match="fails"), run_folder.exclusive_lock(tmp_path):
        raise ValueError("fails")
    with run_folder.exclusive_lock(tmp_path):
        pass


def test_a_system_without_locks_has_none(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with run_folder.exclusive_lock(tmp_path), run_folder.exclusive_lock(tmp_path):
        pass
