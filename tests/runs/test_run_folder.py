"""Tests of run folders: creation, config.json and the lock. Tests of the logs are in test_log.py."""

import dataclasses
from pathlib import Path

import pytest
from helpers import tiny_config
from helpers.orbax_files import incomplete_checkpoint_path
from helpers.paths import ROOT

from ssd_jax import config
from ssd_jax.errors import UserError
from ssd_jax.runs import run_folder
from ssd_jax.runs.config_file import load_config

CONFIGS = sorted((ROOT / "configs").glob("*.py"))
TINY = tiny_config.get_config()


def make_config_with_steps(steps: int) -> config.Config:
    return dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, steps=steps))


def write_config_json(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(text)
    return folder


# ---- config.json ----


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_read_config_returns_the_written_config(tmp_path, file):
    written = load_config(file)
    run_folder.create_or_resume_run(tmp_path / "run", written)
    assert run_folder.read_config(tmp_path / "run") == written


def test_read_config_restores_options_that_imitate_other_libraries(tmp_path):
    detect = config.Detect(top_k_per="map", log_scale_bounds=(None, 4.0), clip_before_nms=True, drop_empty=True)
    written = dataclasses.replace(TINY, detect=detect)
    run_folder.create_or_resume_run(tmp_path / "run", written)
    assert run_folder.read_config(tmp_path / "run") == written


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ["config.json"]),
        ('{"train": {"steps": "many"}}', ["config.json", "train.steps"]),
        ('{"train": {"steps": 0}}', ["config.json", "train.steps is 0"]),
    ],
)
def test_read_config_error_names_the_file_and_the_invalid_option(tmp_path, text, words):
    with pytest.raises(UserError) as error:
        run_folder.read_config(write_config_json(tmp_path / "run", text))
    assert all(word in str(error.value) for word in words)


def test_read_config_rejects_a_folder_without_config_json(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        run_folder.read_config(tmp_path / "typo")
    with pytest.raises(UserError, match=r"config\.json is missing"):
        run_folder.read_config(tmp_path)


def test_create_or_resume_run_resumes_only_from_a_complete_checkpoint(tmp_path):
    run = tmp_path / "deep" / "run"
    assert run_folder.create_or_resume_run(run, TINY) == (False, [])
    assert run_folder.create_or_resume_run(run, TINY) == (False, []), "no checkpoint yet"
    incomplete_checkpoint_path(run / "checkpoints", 7).mkdir(parents=True)
    assert run_folder.create_or_resume_run(run, TINY) == (False, []), "an incomplete checkpoint"
    (run / "checkpoints" / "7").mkdir()
    assert run_folder.create_or_resume_run(run, TINY) == (True, [])


def test_create_or_resume_run_accepts_any_options_without_a_checkpoint(tmp_path):
    run_folder.create_or_resume_run(tmp_path / "run", TINY)
    assert run_folder.create_or_resume_run(tmp_path / "run", make_config_with_steps(31)) == (False, [])
    assert run_folder.read_config(tmp_path / "run") == make_config_with_steps(31)


def test_create_or_resume_run_accepts_options_that_may_change_on_resume(tmp_path):
    create_run_with_checkpoint(tmp_path / "run")
    moved = dataclasses.replace(
        TINY,
        data=dataclasses.replace(TINY.data, root="/elsewhere"),
        train=dataclasses.replace(TINY.train, log_every=3),
    )
    changed = ["data.root: 'shapes' -> '/elsewhere'", "train.log_every: 1 -> 3"]
    assert run_folder.create_or_resume_run(tmp_path / "run", moved) == (True, changed)
    assert run_folder.read_config(tmp_path / "run") == moved


def create_run_with_checkpoint(run: Path) -> None:
    """Create a run folder with a checkpoint."""
    run_folder.create_or_resume_run(run, TINY)
    (run / "checkpoints" / "7").mkdir(parents=True)


@pytest.mark.parametrize(
    ("saved", "given", "refused"),
    [
        ({"minutes": 1.0, "steps": None}, {"minutes": 3.0, "steps": None}, []),
        ({"minutes": 1.0, "steps": None}, {"minutes": None, "steps": 300}, []),
        ({"minutes": 1.0, "steps": 40}, {"minutes": 3.0, "steps": 40}, []),
        ({"minutes": 1.0, "steps": 7}, {"minutes": 3.0, "steps": 7}, ["train.minutes: 1.0 -> 3.0"]),
        ({"minutes": 1.0, "steps": 40}, {"minutes": None, "steps": 40}, ["train.minutes: 1.0 -> None"]),
    ],
    ids=["not planned", "not planned, to steps", "planned", "finished", "planned, to steps"],
)
def test_minutes_of_a_run_may_change_until_it_is_finished(tmp_path, saved, given, refused):
    run = tmp_path / "run"
    old, new = (
        dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, **options)) for options in (saved, given)
    )
    run_folder.create_or_resume_run(run, old)
    (run / "checkpoints" / "7").mkdir(parents=True)
    if refused:
        with pytest.raises(UserError) as error:
            run_folder.create_or_resume_run(run, new)
        assert [line.strip() for line in str(error.value).splitlines() if line.startswith("  ")] == refused
    else:
        assert run_folder.create_or_resume_run(run, new).resumed and run_folder.read_config(run) == new


def test_create_or_resume_run_rejects_and_lists_changed_options(tmp_path):
    create_run_with_checkpoint(tmp_path / "run")
    before = (tmp_path / "run" / "config.json").read_text()
    other = dataclasses.replace(make_config_with_steps(31), name="tiny2")
    with pytest.raises(UserError) as error:
        run_folder.create_or_resume_run(tmp_path / "run", other)
    changed = [line.strip() for line in str(error.value).splitlines() if line.startswith("  ")]
    assert changed == ["name: 'tiny' -> 'tiny2'", "train.steps: 30 -> 31"]
    assert (tmp_path / "run" / "config.json").read_text() == before


def test_create_or_resume_run_rejects_a_folder_that_is_not_a_run_folder(tmp_path):
    (tmp_path / "thesis.tex").write_text("a file of a user")
    with pytest.raises(UserError, match="not empty"):
        run_folder.create_or_resume_run(tmp_path, TINY)
    with pytest.raises(UserError, match="is a file"):
        run_folder.create_or_resume_run(tmp_path / "thesis.tex", TINY)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_create_or_resume_run_rejects_a_run_folder_in_which_no_checkpoint_can_be_saved(tmp_path):
    run_folder.create_or_resume_run(tmp_path, TINY)
    checkpoints = tmp_path / "checkpoints"
    for make in (checkpoints.touch, lambda: checkpoints.symlink_to("nowhere")):
        make()
        with pytest.raises(UserError, match="checkpoints is not a folder"):
            run_folder.create_or_resume_run(tmp_path, TINY)
        checkpoints.unlink()
    (tmp_path / "disk").mkdir()
    checkpoints.symlink_to("disk")
    run_folder.create_or_resume_run(tmp_path, TINY)


def test_create_or_resume_run_error_names_a_folder_that_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run: .*\(Not a directory\).*--workdir"):
        run_folder.create_or_resume_run(tmp_path / "file" / "run", TINY)


# ---- lock ----


def test_exclusive_lock_creates_the_folder(tmp_path):
    with run_folder.hold_exclusive_lock(tmp_path / "deep" / "run"):
        assert (tmp_path / "deep" / "run").is_dir()
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match=r"file.*--workdir"):
            run_folder.hold_exclusive_lock(folder).__enter__()


def test_exclusive_lock_can_be_held_only_once(tmp_path):
    with run_folder.hold_exclusive_lock(tmp_path):
        with pytest.raises(UserError, match=r"another process .*--workdir.*--distributed"):
            run_folder.hold_exclusive_lock(tmp_path).__enter__()
        with run_folder.hold_exclusive_lock(tmp_path.parent):
            pass
    with pytest.raises(ValueError, match="fails"), run_folder.hold_exclusive_lock(tmp_path):
        raise ValueError("fails")
    with run_folder.hold_exclusive_lock(tmp_path):
        pass


def test_is_locked_tells_whether_the_lock_is_held(tmp_path):
    assert not run_folder.is_locked(tmp_path)
    with run_folder.hold_exclusive_lock(tmp_path):
        assert run_folder.is_locked(tmp_path)
    assert not run_folder.is_locked(tmp_path)
    assert not run_folder.is_locked(tmp_path / "missing")


def test_exclusive_lock_waits_for_a_process_that_only_looks(tmp_path, monkeypatch):
    answers = iter([False, False, True])
    monkeypatch.setattr(run_folder, "lock_descriptor", lambda *_, **__: next(answers))
    with run_folder.hold_exclusive_lock(tmp_path):
        assert not list(answers)


def test_exclusive_lock_does_nothing_on_a_file_system_without_locks(tmp_path, monkeypatch):
    def raise_not_supported(*_: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr("fcntl.flock", raise_not_supported)
    with run_folder.hold_exclusive_lock(tmp_path), run_folder.hold_exclusive_lock(tmp_path):
        pass
