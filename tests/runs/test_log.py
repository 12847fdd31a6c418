"""Tests of log.jsonl, results.csv and TensorBoard's event file."""

import json
import struct
import time
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
    assert [abs(line.pop("time") - time.time()) < 60 for line in lines] == [True] * 3
    assert lines == [{"step": 1, "loss": 1 / 3}, {"step": 2, "loss": 2 / 3}, {"step": 3, "loss": 9.0}]
    assert read_results(tmp_path) == [{"step": 2, "loss": 2 / 3, "voc_map_area": 0.25, "coco_ap": None}]
    text = (tmp_path / "results.csv").read_text()
    assert text == "step,loss,voc_map_area,coco_ap\n2,0.6666666666666666,0.25,\n"


def test_read_log_and_read_results_return_empty_lists_for_a_new_run(tmp_path):
    assert read_log(tmp_path) == []
    assert read_results(tmp_path) == []


ODD_LINES = (
    b"\xff\xfe",
    b"\0" * 40,
    b"5",
    b'{"loss": 1}',
    b'{"step": "x"}',
    b'{"step": 1, "loss": []}',
    b"[" * 9000,
    b"",
)


@pytest.mark.parametrize("odd", ODD_LINES, ids=range(len(ODD_LINES)))
def test_run_log_keeps_the_good_lines_and_a_copy_of_a_damaged_log(tmp_path, caplog, odd):
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1, "loss": 2.0}\n' + odd + b'\n{"step": 2, "loss": 1.0}\n{"st')
    before = (tmp_path / "log.jsonl").read_bytes()
    with RunLog(tmp_path, 2):
        pass
    assert read_log(tmp_path) == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
    assert (tmp_path / "log.jsonl.damaged").read_bytes() == before
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith(f"{tmp_path / 'log.jsonl'}: 1 of 3 lines") and "log.jsonl.damaged" in message


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (b"step,coco_ap\n1,0.5\n\xff,0.1\n2,\n", [{"step": 1, "coco_ap": 0.5}, {"step": 2, "coco_ap": None}]),
        (b"step,coco_ap\n1,0.5,7\n2,0\0.5\n,1\ninf,1\n", []),
        (b"st\xffep,coco_ap\n1,0.5\n", []),
        (b"\0" * 100 + b"\n1\n", []),
    ],
    ids=range(4),
)
def test_run_log_continues_after_a_damaged_results_file(tmp_path, caplog, text, good):
    (tmp_path / "results.csv").write_bytes(text)
    assert read_results(tmp_path) == good
    with RunLog(tmp_path, 2) as log:
        log.log_evaluation(3, {"voc_map_area": 0.25})
    assert [row["step"] for row in read_results(tmp_path)] == [*(row["step"] for row in good), 3]
    assert read_results(tmp_path)[-1]["voc_map_area"] == 0.25
    assert (tmp_path / "results.csv.damaged").read_bytes() == text
    assert all("results.csv: " in record.getMessage() for record in caplog.records) and caplog.records


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
