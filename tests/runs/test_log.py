"""Tests of log.jsonl, results.csv and TensorBoard's event file."""

import json
import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from ssd_jax.errors import UserError
from ssd_jax.runs.log import RunLog, read_log, read_results


def test_run_log_removes_entries_after_the_step_that_the_run_resumes_from(tmp_path):
    with RunLog(tmp_path, 0) as log:
        for step in (1, 2, 3):
            log.log_step(step, {"loss": step / 3})
        log.log_evaluation(2, {"loss": 2 / 3, "voc_map_area": 0.25, "coco_ap": None})
        log.log_evaluation(3, {"loss": 1.0, "voc_map_area": 0.5, "coco_ap": 0.125})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # an incomplete line, as a killed run leaves it
    with RunLog(tmp_path, 2) as log:
        log.log_step(3, {"loss": 9.0})
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 1 / 3}, {"step": 2, "loss": 2 / 3}, {"step": 3, "loss": 9.0}]
    assert read_results(tmp_path) == [{"step": 2, "loss": 2 / 3, "voc_map_area": 0.25, "coco_ap": None}]
    text = (tmp_path / "results.csv").read_text()
    assert text == "step,loss,voc_map_area,coco_ap\n2,0.6666666666666666,0.25,\n"


def test_read_log_and_read_results_return_empty_lists_for_a_new_run(tmp_path):
    assert read_log(tmp_path) == []
    assert read_results(tmp_path) == []


def read_events(folder: Path) -> list[Event]:
    """Return the events in the TFRecord files of a folder.

    A record consists of a length (8 bytes), a checksum (4 bytes), the event, and another checksum (4 bytes).
    """
    events = []
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            events.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return events


def test_run_log_writes_scalars_for_tensorboard(tmp_path):
    with RunLog(tmp_path, 6) as log:
        log.log_step(7, {"loss": 0.5})
        log.log_evaluation(8, {"voc_map_area": 0.25, "coco_ap": None})
        events = read_events(tmp_path / "tensorboard")  # each event is written at once, not only when the log is closed
    scalars = [(e.step, value.tag, value.simple_value) for e in events for value in e.summary.value]
    assert scalars == [(7, "train/loss", 0.5), (8, "val/voc_map_area", 0.25)]
    # TensorBoard discards the scalars from step 7 on, because the run resumes from the checkpoint of step 6.
    assert [e.step for e in events if e.session_log.status == SessionLog.START] == [7]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full of Linux, which is always full")
def test_run_log_reports_a_full_disk(tmp_path):
    with RunLog(tmp_path, 0) as log:
        log.log_file = tmp_path / "full.jsonl"
        log.log_file.symlink_to("/dev/full")
        with pytest.raises(UserError, match=r"full\.jsonl: .*\(No space left on device\)"):
            log.log_step(1, {"loss": 0.5})
