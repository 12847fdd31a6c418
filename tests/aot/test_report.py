"""Tests of the roofline, of memory limits, and of reports as text and as a table."""

from pathlib import Path

import msgspec
import pytest
from helpers.cli import run_command

from ssd_jax.aot import programs
from ssd_jax.aot.compiled import (
    Collective,
    Costs,
    Memory,
    read_out_of_memory_error,
)
from ssd_jax.aot.report import compute_roofline, describe_memory_problem, format_report, format_table
from ssd_jax.aot.targets import CHIPS, GIB


@pytest.mark.parametrize(
    ("chip", "dtype", "flops", "bytes_accessed", "compute", "traffic", "seconds"),
    [
        ("v5e", "bfloat16", 197e12, 1638e9, 1.0, 2.0, 2.0),
        ("v5e", "float32", 394e12, 819e9, 2.0, 1.0, 2.0),
        ("h100", "bfloat16", None, None, 0.1, None, 0.1),
        ("h100", "float32", None, None, 98.95 / 494.5, None, 98.95 / 494.5),
        # The compiler counts a loop's body once, so its count can be too small.
        ("v5e", "bfloat16", 1e12, 819e6, 98.95 / 197, 1e-3, 98.95 / 197),
    ],
)
def test_compute_roofline_equals_hand_computed_times(
    chip: str,
    dtype: str,
    flops: float | None,
    bytes_accessed: float | None,
    compute: float,
    traffic: float | None,
    seconds: float,
):
    limit = compute_roofline(
        Costs(model_flops=98.95e12, flops=flops, bytes_accessed=bytes_accessed), CHIPS[chip], dtype
    )
    assert limit.compute == pytest.approx(compute) and limit.seconds == pytest.approx(seconds)
    assert limit.traffic == (None if traffic is None else pytest.approx(traffic))


# This message is from libtpu 0.0.42.
TEMPORARY_MEMORY_MESSAGE = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (46.96G) exceeds "
    "available HBM (15.75G)."
)
# This message is from the GitHub issue LargeWorldModel/LWM#60.
ALL_MEMORY_MESSAGE = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 21.95G of "
    "15.48G hbm.\n Exceeded hbm capacity by 6.47G.\n\nTotal hbm usage >= 22.47G:"
)


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (TEMPORARY_MEMORY_MESSAGE, "does not fit: needs 47.0 of 15.8 GiB"),
        (ALL_MEMORY_MESSAGE, "does not fit: needs 21.9 of 15.5 GiB"),
        ("RESOURCE_EXHAUSTED: Attempting to allocate", "does not fit: the compiler ran out of the device's memory"),
    ],
)
def test_read_out_of_memory_error_returns_needed_and_available_memory(message: str, problem: str):
    costs = read_out_of_memory_error(RuntimeError(message), 1e9, 2.0)
    assert costs is not None and (costs.model_flops, costs.compile_seconds, costs.memory) == (1e9, 2.0, None)
    assert describe_memory_problem(costs, CHIPS["v5e"]) == problem
    assert read_out_of_memory_error(RuntimeError("INTERNAL: Used 2G of 1G hbm"), 1e9, 2.0) is None


def test_describe_memory_problem_returns_none_up_to_the_memory_of_the_chip():
    def find_memory_problem(temporaries: int) -> str | None:
        return describe_memory_problem(Costs(1.0, memory=Memory(3 * GIB, temporaries, 2 * GIB, 2 * GIB)), CHIPS["v5e"])

    assert find_memory_problem(13 * GIB) is None, "fits exactly"
    assert find_memory_problem(13 * GIB + 1) == "does not fit: needs 16.0 of 16.0 GiB"


def make_report(target: str, **costs) -> programs.Report:
    return programs.Report(
        target=target, devices=8, config="ssd300_voc0712", image_size=300, num_classes=21, dtype="bfloat16",
        batch_size=256, jax="0.10.2", compiler="libtpu 0.0.42", programs={"train": Costs(**costs)},
    )  # fmt: skip


ON_TPU = make_report(
    "v5e:2x4",
    model_flops=5.744e12,
    flops=5.91e12,
    bytes_accessed=32.76e9,
    memory=Memory(2 * GIB, 4 * GIB, GIB, GIB),
    collectives=(
        Collective("all-reduce", ("s32[]",)),
        Collective("all-reduce", ("f32[64]", "bf16[3,3,512,512]")),
    ),
    compile_seconds=140.2,
)
ON_GPU = make_report(
    "h100x8", model_flops=5.744e12, memory=Memory(2 * GIB, 5 * GIB, GIB, GIB), host_transfers=("outfeed",)
)
TOO_LARGE = make_report("v5e:2x4", model_flops=5.744e12, needed_memory=20 * GIB, available_memory=15.75 * GIB)


def test_format_report_lists_costs_and_the_speed_limit():
    # 32.76e9 bytes at 819e9 bytes/s take 40 ms; 32 images in this time are 800 images/s. 5.91e12 FLOPs at
    # 197e12 FLOP/s take only 30 ms.
    assert format_report(ON_TPU).splitlines() == [
        "ssd300_voc0712 on v5e:2x4: 8 x TPU v5e, 300 px, 21 classes with background, bfloat16, 256 images, "
        "32 per device",
        "jax 0.10.2, libtpu 0.0.42. Costs of one device:",
        "",
        "training step (compiled in 140 s)",
        "  FLOPs           5.91e+12, 1.029 times the 5.744e+12 of convolutions and matrix products",
        "  bytes accessed  32.8 GB",
        "  memory          6.00 GiB of 16.0: arguments 2.00 + temporaries 4.00 + outputs 1.00 - aliased 1.00",
        "  collectives     all-reduce of 4.72 MB: bf16[3,3,512,512] and 1 more",
        "                  all-reduce of 4 bytes: s32[]",
        "  host transfers  none",
        "  max. images/s   800, 6400 on all 8: FLOPs take 30.0 ms, bytes take 40.0 ms",
    ]


def test_format_report_omits_numbers_that_the_compiler_does_not_report():
    rows = dict(line.strip().split("  ", 1) for line in format_report(ON_GPU).splitlines()[4:])
    assert "5.744e+12" in rows["FLOPs"] and "bytes accessed" not in rows
    assert rows["host transfers"].strip() == "outfeed" and rows["collectives"].strip() == "none"
    assert "7.00 GiB" in rows["memory"] and "cuDNN" in rows["memory"]
    assert rows["max. images/s"].strip().startswith("5513, 44100 on all 8")
    assert "needs 20.0 of 15.8 GiB" in format_report(TOO_LARGE).splitlines()[-1]


def test_aot_table_formats_saved_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    files = []
    for number, written in enumerate((ON_TPU, ON_GPU, TOO_LARGE)):
        files.append(tmp_path / f"{number}.json")
        files[-1].write_bytes(msgspec.json.encode(written))
    assert run_command("aot", "--table", *files) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows == format_table([ON_TPU, ON_GPU, TOO_LARGE]).splitlines() and len(rows) == 5
    assert len({row.count("|") for row in rows}) == 1
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]
    network, no_room = "SSD300, 21 classes, bfloat16", "does not fit: needs 20.0 of 15.8 GiB"
    assert cells == [
        [network, "32", "8 x TPU v5e", "training step", "5.91e+12", "32.8 GB", "6.0 GiB", "4.72 MB", "800"],
        [
            network,
            "32",
            "8 x H100 SXM",
            "training step",
            "5.74e+12 (in the program)",
            "unknown",
            "7.0 GiB",
            "0 bytes",
            "5513",
        ],
        [network, "32", "8 x TPU v5e", "training step", "5.74e+12 (in the program)", "unknown", no_room, "", ""],
    ]
