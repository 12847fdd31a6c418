"""Tests of functions for runs of several processes. Two processes call the functions, without training."""

import ast
import json
import re
import signal
import sys
import time
import types
from pathlib import Path

import pytest
from helpers.paths import ROOT
from helpers.processes import FinishedProcess, find_free_address, start_worker, start_workers, wait_until_finished

from ssd_jax.errors import UserError
from ssd_jax.runtime import distributed
from ssd_jax.runtime.distributed_options import DistributedOptions

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals that Windows lacks")


def wait_for_files(files: list[Path], processes: list) -> None:
    while not all(file.exists() for file in files):
        assert all(process.poll() is None for process in processes), wait_until_finished(processes)
        time.sleep(0.02)


# ---- two processes that connect to each other ----


@pytest.fixture(scope="module")
def two_process_results(tmp_path_factory) -> tuple[list[dict], list[FinishedProcess]]:
    """Return the results of call_functions in two processes, and the finished processes."""
    out = tmp_path_factory.mktemp("two")
    ended = wait_until_finished(start_workers("call_functions", out, devices=2))
    assert [process.code for process in ended] == [0, 0], ended
    return [json.loads((out / f"{index}.json").read_text()) for index in range(2)], ended


def test_is_primary_returns_true_only_in_process_0(two_process_results):
    results, _ = two_process_results
    assert [r["primary"] for r in results] == [True, False]
    assert [r["multi"] for r in results] == [True, True]


def test_only_the_primary_process_prints_to_stdout(two_process_results):
    _, (first, second) = two_process_results
    assert "printed by process 0" in first.out
    assert "printed by process 1" not in second.out
    assert (first.err, second.err) == ("", "")


def test_run_on_primary_returns_none_in_the_other_processes(two_process_results):
    results, _ = two_process_results
    assert [r["on_primary"] for r in results] == [5, None]


def test_share_integers_returns_those_of_the_primary_process_in_all_processes(two_process_results):
    results, _ = two_process_results
    assert [r["shared"] for r in results] == [[3, 4], [3, 4]]


def test_run_on_primary_raises_a_failure_in_all_processes(two_process_results):
    first, second = (r["failure"] for r in two_process_results[0])
    assert first == "only process 0 knows why"
    assert "process 0" in second


def test_assert_same_text_raises_in_all_processes_if_texts_differ(two_process_results):
    for result in two_process_results[0]:
        assert result["same"] is None
        assert "the config of process 1" in result["differs"]


def test_local_positions_of_two_processes_contain_each_image_of_a_batch_once(two_process_results):
    rows = [r["rows"] for r in two_process_results[0]]
    assert sorted(rows[0] + rows[1]) == list(range(8)) and len(rows[0]) == len(rows[1]) == 4


def test_map_images_and_fetch_return_the_whole_batch(two_process_results):
    expected = [[2.0 * (3 * row + column) for column in range(3)] for row in range(8)]
    assert [r["doubled"] for r in two_process_results[0]] == [expected, expected]


def test_jitted_sums_include_the_images_of_all_processes(two_process_results):
    assert [r["sums"] for r in two_process_results[0]] == [[276.0, 276.0]] * 2


def test_fetch_gathers_arrays_that_are_split_over_devices(two_process_results):
    assert [r["split"] for r in two_process_results[0]] == [[False, 0.0]] * 2


def test_start_together_compiles_in_all_processes_before_the_first_call(two_process_results):
    (first, second), _ = two_process_results
    assert [first["value"], second["value"]] == [4, 4]
    compiled, called = max(r["times"][0] for r in (first, second)), min(r["times"][1] for r in (first, second))
    assert called >= compiled


def test_should_stop_returns_true_at_the_same_step_in_all_processes(tmp_path):
    processes = start_workers("step_until_stopped", tmp_path)
    wait_for_files([tmp_path / "started.0", tmp_path / "started.1"], processes)
    processes[1].terminate()
    ended = wait_until_finished(processes, timeout=60)
    assert [process.code for process in ended] == [0, 0], ended
    first, second = (json.loads((tmp_path / f"{index}.json").read_text())["stopped"] for index in range(2))
    assert first == second and first >= 3


def test_exit_message_is_printed_if_process_0_is_killed(tmp_path):
    """JAX aborts process 1 at once, from C++, because process 0 ran JAX's coordination service."""
    processes = start_workers("wait_to_be_killed", tmp_path)
    wait_for_files([tmp_path / "started.0", tmp_path / "started.1"], processes)
    processes[0].kill()
    first, second = wait_until_finished(processes, timeout=100)
    assert first.code == -signal.SIGKILL and first.err.endswith("Start it again.\n")
    assert second.code not in (0, -signal.SIGKILL) and second.err.endswith("Start it again.\n")


@pytest.mark.slow
def test_exit_message_is_printed_if_the_heartbeat_of_a_process_stops(tmp_path):
    seconds = 10
    processes = start_workers("wait_to_be_killed", tmp_path, SSD_JAX_HEARTBEAT_SECONDS=seconds)
    wait_for_files([tmp_path / "started.0", tmp_path / "started.1"], processes)
    processes[1].kill()
    killed = time.monotonic()
    first, _ = wait_until_finished(processes, timeout=120)
    assert time.monotonic() - killed < 60, "less than the default of 100 s"
    assert first.code not in (0, -signal.SIGKILL) and first.err.endswith("Start it again.\n")


# ---- processes that cannot connect to each other ----


@pytest.mark.parametrize("counts", [(2, 3), (3, 2)])
def test_initialize_rejects_different_process_counts(counts, tmp_path):
    ended = wait_until_finished(start_workers("count_processes", tmp_path, counts, SSD_JAX_JOIN_SECONDS=6))
    for process in ended:
        # JAX aborts a process that notices the end of the other one before it has ended itself. It has printed the
        # message by then.
        assert process.code in (2, -signal.SIGABRT), process
        assert "--process-count" in process.err and "Traceback" not in process.err
    if counts == (2, 3):
        assert "3 for process 1, but 2 for process 0" in ended[1].err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("index", [0, 1])
def test_initialize_ends_the_process_if_other_processes_do_not_start(index, tmp_path):
    options = {"coordinator": find_free_address(), "process_index": index, "process_count": 2}
    (ended,) = wait_until_finished(
        [start_worker("count_processes", tmp_path, options, SSD_JAX_JOIN_SECONDS=3)], timeout=90
    )
    assert ended.code == 2
    assert options["coordinator"] in ended.out, "the address at which it waits"
    (message,) = ended.err.strip().splitlines()
    assert f"3 s waiting for the other processes at {options['coordinator']}" in message


def test_ctrl_c_ends_a_process_that_waits_for_other_processes(tmp_path):
    options = {"coordinator": find_free_address(), "process_index": 0, "process_count": 2}
    process = start_worker("count_processes", tmp_path, options)
    assert process.stdout is not None and str(options["coordinator"]) in process.stdout.readline()
    time.sleep(1)  # time for JAX to start waiting in C++
    process.send_signal(signal.SIGINT)
    (ended,) = wait_until_finished([process], timeout=30)
    assert ended.code == -signal.SIGINT
    assert "timed out" in ended.err and "Traceback" not in ended.err


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "soon", ""])
def test_initialize_rejects_a_time_limit_that_is_not_a_positive_integer(text, monkeypatch):
    monkeypatch.setenv("SSD_JAX_JOIN_SECONDS", text)
    options = DistributedOptions(coordinator="localhost:1", process_index=0, process_count=1)
    with pytest.raises(UserError, match=f"SSD_JAX_JOIN_SECONDS is '{re.escape(text)}'"):
        distributed.initialize(options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"process_index": 0}, ["--coordinator", "--process-index", "--process-count"]),
        ({"coordinator": "localhost:1", "process_count": 2}, ["--process-index"]),
        ({"coordinator": "localhost:1", "process_index": 2, "process_count": 2}, ["--process-index is 2"]),
        ({"coordinator": "localhost:1", "process_index": -1, "process_count": 2}, ["--process-index is -1"]),
        ({"coordinator": "localhost", "process_index": 0, "process_count": 2}, ["HOST:PORT"]),
        ({"coordinator": ":1", "process_index": 0, "process_count": 2}, ["HOST:PORT"]),
        ({"coordinator": "localhost:65536", "process_index": 0, "process_count": 2}, ["HOST:PORT"]),
        ({"coordinator": "localhost:0", "process_index": 0, "process_count": 2}, ["HOST:PORT"]),
    ],
)
def test_distributed_options_error_names_the_wrong_option(options, words):
    with pytest.raises(UserError) as error:
        DistributedOptions(**options)
    assert all(name in str(error.value) for name in words)


# ---- a run of one process ----


def test_functions_return_without_communication_in_a_run_of_one_process():
    program = abs
    distributed.initialize(DistributedOptions())
    assert distributed.is_primary() and not distributed.is_multi_process()
    assert distributed.run_on_primary(lambda: 5) == 5
    assert distributed.start_together(program) is program
    distributed.assert_same_text("a", "the config")
    distributed.exit_now(3)


# ---- JAX's private coordination service ----


def test_process_counts_are_not_checked_if_jax_moves_its_coordination_service(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax._src.distributed", None)
    assert distributed._find_coordination() is None
    distributed._check_process_count()
    monkeypatch.setitem(sys.modules, "jax._src.distributed", types.ModuleType("jax._src.distributed"))
    assert distributed._find_coordination() is None
    distributed._check_process_count()


def test_private_jax_modules_are_imported_in_only_one_function():
    uses = []
    for path in (ROOT / "ssd_jax").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        inside = {id(node): function.name for function in functions for node in ast.walk(function)}
        for node in ast.walk(tree):
            imports = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imports += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            uses += [(path.name, inside.get(id(node))) for name in imports if name.startswith("jax._src")]
    assert uses == [("distributed.py", "_find_coordination")]
