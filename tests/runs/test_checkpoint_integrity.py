"""Tests that corrupt checkpoints are detected, and that runs resume from the newest intact checkpoint."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.orbax_files import (
    break_checksums,
    break_metadata,
    empty_array_files,
    flip_bit_in_largest_file,
    remove_largest_file,
    truncate_largest_file,
)
from helpers.processes import start_workers, wait_until_finished

from ssd_jax.errors import UserError
from ssd_jax.runs.checkpoint import Checkpoints
from ssd_jax.runs.checkpoint_integrity import (
    CorruptCheckpointError,
    restore_newest_intact,
    verify_checksums,
    write_checksums,
)

NAMES = ("cat",)
METADATA = {"config": {"model": {"class_names": list(NAMES)}}}


def make_tree(step: int) -> dict:
    return {"params": {"conv": {"kernel": step + jnp.arange(1000, dtype=jnp.float32)}}}


@pytest.fixture(scope="module")
def saved_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    with Checkpoints(folder, for_writing=True) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, make_tree(step), METADATA)
    return folder


@pytest.fixture
def checkpoints_folder(saved_folder, tmp_path) -> Path:
    """Copy the folder with two checkpoints, so that a test may change it, and return the path of the copy."""
    return Path(shutil.copytree(saved_folder, tmp_path / "run" / "checkpoints"))


def break_metadata_and_its_checksum(small_checkpoint: Path) -> None:
    break_metadata(small_checkpoint)
    write_checksums(small_checkpoint)


def empty_array_files_and_remove_checksums(small_checkpoint: Path) -> None:
    empty_array_files(small_checkpoint)
    (small_checkpoint / "checksums.json").unlink()


CORRUPTIONS: list[Callable[[Path], None]] = [
    flip_bit_in_largest_file, truncate_largest_file, empty_array_files, remove_largest_file, break_metadata,
    break_checksums, break_metadata_and_its_checksum, empty_array_files_and_remove_checksums,
]  # fmt: skip


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda corrupt: corrupt.__name__)
def test_restore_error_names_the_corrupt_checkpoint(corrupt, checkpoints_folder):
    corrupt(checkpoints_folder / "2")
    with Checkpoints(checkpoints_folder) as checkpoints, pytest.raises(CorruptCheckpointError) as error:
        checkpoints.restore(2, make_tree(0), NAMES)
    assert str(checkpoints_folder / "2") in error.value.reason
    assert str(error.value).startswith(error.value.reason) and len(str(error.value)) > len(error.value.reason)


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda corrupt: corrupt.__name__)
def test_resume_moves_a_corrupt_checkpoint_and_restores_the_previous_one(corrupt, checkpoints_folder, caplog):
    corrupt(checkpoints_folder / "2")
    aside = checkpoints_folder.parent / "damaged_checkpoints" / "2"
    with Checkpoints(checkpoints_folder) as checkpoints:
        restored = checkpoints.resume(make_tree(0), NAMES)
        assert list(checkpoints.steps) == [1]
    assert restored is not None and restored.step == 1
    np.testing.assert_array_equal(restored.trees["params"]["conv"]["kernel"], make_tree(1)["params"]["conv"]["kernel"])
    (message,) = (record.getMessage() for record in caplog.records)
    assert str(checkpoints_folder / "2") in message and str(aside) in message
    assert aside.is_dir() and not (checkpoints_folder / "2").exists()


def test_resume_restores_the_latest_checkpoint_if_it_is_intact(checkpoints_folder, caplog):
    with Checkpoints(checkpoints_folder) as checkpoints:
        restored = checkpoints.resume(make_tree(0), NAMES)
        assert sorted(checkpoints.steps) == [1, 2]
    assert restored is not None and restored.step == 2
    assert not caplog.records and not (checkpoints_folder.parent / "damaged_checkpoints").exists()


def test_resume_returns_none_without_checkpoints(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.resume(make_tree(0), NAMES) is None


def test_resume_moves_no_checkpoint_if_all_checkpoints_are_corrupt(checkpoints_folder):
    for step in ("1", "2"):
        flip_bit_in_largest_file(checkpoints_folder / step)
    before = {file: file.read_bytes() for file in checkpoints_folder.rglob("*") if file.is_file()}
    with Checkpoints(checkpoints_folder) as checkpoints, pytest.raises(UserError, match="--workdir") as error:
        checkpoints.resume(make_tree(0), NAMES)
    assert not isinstance(error.value, CorruptCheckpointError)
    assert all(str(checkpoints_folder / step) in str(error.value) for step in ("1", "2"))
    assert {file: file.read_bytes() for file in checkpoints_folder.rglob("*") if file.is_file()} == before


def test_resume_does_not_move_a_checkpoint_of_another_architecture(checkpoints_folder):
    other = {"params": {"conv": {"kernel": jax.ShapeDtypeStruct((7,), np.float32)}}}
    with Checkpoints(checkpoints_folder) as checkpoints, pytest.raises(UserError, match="conv/kernel"):
        checkpoints.resume(other, NAMES)
    assert (checkpoints_folder / "2").is_dir()


def test_resume_restores_the_same_checkpoint_in_two_processes(tmp_path):
    ended = wait_until_finished(start_workers("save_and_resume", tmp_path))
    assert [process.code for process in ended] == [0, 0], ended
    for index in range(2):
        result = json.loads((tmp_path / f"{index}.json").read_text())
        assert (result["step"], result["steps"]) == (1, [1])
        assert (result["kernel"], result["split"]) == ([1.0], [8, 10.0])
    run = tmp_path / "run"
    assert (run / "checkpoints" / "1" / "checksums.json").is_file()
    assert [path.name for path in (run / "damaged_checkpoints").iterdir()] == ["2"]


# ---- the file with the metric of a checkpoint ----

GARBLED = [b"", b"\0" * 30, b'{"voc_map_', b"[]", b"{}", b'{"voc_map_area": "0.5"}', b'{"voc_map_area": NaN}', b"\xff"]


@pytest.fixture(scope="module")
def evaluated_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated") / "checkpoints"
    with Checkpoints(folder, for_writing=True) as checkpoints:
        for step, metric in ((1, 0.9), (2, 0.2), (3, 0.1)):
            checkpoints.save(step, make_tree(step), METADATA, metric)
    return folder


def garble_metric(folder: Path, step: int, content: bytes, *, with_checksums: bool) -> None:
    (folder / str(step) / "metrics" / "metrics").write_bytes(content)
    if not with_checksums:
        (folder / str(step) / "checksums.json").unlink()


@pytest.mark.parametrize("with_checksums", [True, False])
@pytest.mark.parametrize("content", GARBLED)
def test_restore_preferred_skips_a_checkpoint_with_a_garbled_metric(
    evaluated_folder, tmp_path, caplog, content, with_checksums
):
    folder = Path(shutil.copytree(evaluated_folder, tmp_path / "checkpoints"))
    garble_metric(folder, 3, content, with_checksums=with_checksums)
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.best == 1
        restore = partial(checkpoints.restore, target=make_tree(0), class_names=NAMES)
        assert checkpoints.restore_preferred("best", restore).step == 1
        assert not caplog.records
        assert checkpoints.restore_preferred("last", restore).step == 2
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith(f"{folder / '3'}: ") and "step 2 instead" in message
    assert checkpoints.steps == [1, 2, 3], "only training moves a checkpoint"


def test_restore_preferred_uses_the_next_best_checkpoint_if_the_best_is_corrupt(evaluated_folder, tmp_path, caplog):
    folder = Path(shutil.copytree(evaluated_folder, tmp_path / "checkpoints"))
    flip_bit_in_largest_file(folder / "1")
    with Checkpoints(folder) as checkpoints:
        restore = partial(checkpoints.restore, target=make_tree(0), class_names=NAMES)
        assert checkpoints.restore_preferred("best", restore).step == 2
        assert str(folder / "1") in caplog.text
        for step in (2, 3):
            flip_bit_in_largest_file(folder / str(step))
        with pytest.raises(UserError, match=r"(?s)/1: .*/2: .*/3: .*no other checkpoint"):
            checkpoints.restore_preferred("best", restore)
    with Checkpoints(tmp_path / "none") as checkpoints:
        assert checkpoints.restore_preferred("best", restore) is None


@pytest.mark.parametrize("damaged", [1, 3])
def test_training_continues_after_the_metric_of_a_checkpoint_was_garbled(evaluated_folder, tmp_path, caplog, damaged):
    folder = Path(shutil.copytree(evaluated_folder, tmp_path / "checkpoints"))
    garble_metric(folder, damaged, b"", with_checksums=damaged == 3)
    with Checkpoints(folder, for_writing=True) as checkpoints:
        restored = checkpoints.resume(make_tree(0), NAMES)
        assert restored is not None and restored.step == {1: 3, 3: 2}[damaged]
        checkpoints.save(4, make_tree(4), METADATA, 0.3)
    assert f"{folder / str(damaged)}: " in caplog.text
    assert (tmp_path / "damaged_checkpoints" / str(damaged)).is_dir()
    assert checkpoints.best == {1: 4, 3: 1}[damaged]


# ---- functions that do not use Orbax ----


@pytest.fixture
def small_checkpoint(tmp_path) -> Path:
    folder = tmp_path / "7"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "b.bin").write_bytes(b"abc")
    (folder / "c.json").write_bytes(b"{}")
    write_checksums(folder)
    return folder


def test_write_checksums_writes_the_sha256_of_each_file(small_checkpoint):
    assert json.loads((small_checkpoint / "checksums.json").read_text()) == {
        "a/b.bin": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",  # FIPS 180-2, appendix B.1
        "c.json": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    }
    verify_checksums(small_checkpoint)


@pytest.mark.parametrize("missing", ["a/b.bin", "c.json"])
def test_verify_checksums_error_names_the_missing_file(small_checkpoint, missing):
    (small_checkpoint / missing).unlink()
    with pytest.raises(CorruptCheckpointError, match=f"{small_checkpoint}: .*{missing}"):
        verify_checksums(small_checkpoint)


def test_verify_checksums_error_names_the_changed_file(small_checkpoint):
    (small_checkpoint / "a" / "b.bin").write_bytes(b"abd")
    with pytest.raises(CorruptCheckpointError, match=r"a/b\.bin"):
        verify_checksums(small_checkpoint)


def test_verify_checksums_accepts_a_checkpoint_without_checksums(small_checkpoint):
    (small_checkpoint / "checksums.json").unlink()
    (small_checkpoint / "c.json").unlink()
    verify_checksums(small_checkpoint)


def test_verify_checksums_accepts_an_additional_file(small_checkpoint):
    (small_checkpoint / "note.txt").write_text("of a user")
    verify_checksums(small_checkpoint)


def test_restore_newest_intact_replaces_a_checkpoint_that_was_moved_before(tmp_path):
    folder, aside = tmp_path / "checkpoints", tmp_path / "damaged_checkpoints"
    (folder / "3").mkdir(parents=True)
    (folder / "3" / "new").touch()
    (aside / "3").mkdir(parents=True)
    (aside / "3" / "old").touch()

    def restore(step: int) -> str:
        if step > 1:
            raise CorruptCheckpointError(f"{step} is corrupt")
        return f"restored {step}"

    (folder / "2").mkdir()
    assert restore_newest_intact(folder, [1, 3, 2], restore) == "restored 1"
    assert sorted(path.name for path in aside.rglob("*")) == ["2", "3", "new"]
