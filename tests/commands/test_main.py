"""Tests of the command line: the list of commands, help, warnings, and the time until help is printed."""

import gc
import importlib
import io
import logging
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.cli import ROOT, TINY, run_command
from matplotlib.figure import Figure
from PIL import Image

import ssd_jax
from ssd_jax.commands import predict, show
from ssd_jax.commands.main import COMMANDS
from ssd_jax.commands.options import parse_options
from ssd_jax.commands.output import escape_output
from ssd_jax.data.image import read_image
from ssd_jax.data.run_splits import with_data_root
from ssd_jax.errors import UserError
from ssd_jax.runs.config_file import load_config
from ssd_jax.runtime import progress
from ssd_jax.runtime.progress import show_progress

HEAVY = {"jax", "flax", "grain", "orbax", "matplotlib", "tensorboardX", "tensorflow", "tensorflow_datasets", "torch"}
CPU_SECONDS = 1.0  # on an idle machine, a quarter of this time is needed


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_module_with_a_run_function(name):
    assert callable(importlib.import_module(f"ssd_jax.commands.{COMMANDS[name].module}").run)


def test_help_lists_all_commands(capsys):
    assert run_command("--help") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    for name in COMMANDS:
        assert any(line.startswith(f"  {name} ") for line in lines), name
    assert "COMMAND --help" in printed.out


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        (["train"], ["CONFIG", "--data.root", "--workdir", "--help-all"]),
        (["configs"], ["NAME", "--copy"]),
        (["check-data"], ["CONFIG", "--no-images", "--fix"]),
        (["aot"], ["CONFIG", "--target", "h100x8", "--table"]),
        (["evaluate"], ["RUN", "--split", "--checkpoint", "best,last", "--data.root", "--distributed"]),
        (["predict"], ["RUN", "SOURCES", "--out", "--score", "--batch", "--save"]),
        (["show"], ["RUN", "--image", "--epoch", "--out", "--data.root"]),
        (["import-weights"], ["FILE", "--out", "--class-names", "--channels"]),
        (["export-weights"], ["RUN", "--out", "--layout"]),
        (["verify"], ["FILE", "--image"]),
        (["prepare-data"], ["tfds:NAME", "--archives"]),
    ],
    ids=lambda value: value[0],
)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_each_command_lists_important_options(capsys, argv, options, flag):
    assert run_command(*argv, flag) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    for option in options:
        assert option in printed.out


@pytest.mark.parametrize("argv", [["--help"], ["evaluate", "--help"], ["train", TINY, "--help"]], ids=str)
def test_help_imports_no_heavy_package_and_takes_less_than_one_second(argv):
    program = f"""
import sys
from ssd_jax.__main__ import main
try:
    main({argv!r})
except SystemExit:
    pass
loaded = {HEAVY!r} & set(sys.modules)
assert not loaded, loaded
"""
    before = os.times()
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    after = os.times()
    assert result.returncode == 0, result.stderr
    # On Windows, the times of child processes are always 0.
    assert after.children_user + after.children_system - before.children_user - before.children_system < CPU_SECONDS


def test_version_names_what_a_bug_report_needs(monkeypatch, capsys):
    devices = [SimpleNamespace(device_kind="H100", platform="gpu")] * 2 + [
        SimpleNamespace(device_kind="cpu", platform="cpu")
    ]
    monkeypatch.setattr("jax.devices", lambda: devices)
    assert run_command("--version") == 0
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert printed["ssd-jax"] == ssd_jax.__version__ and printed["Python"] == platform.python_version()
    for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"):
        assert printed[name] == version(name)
    assert printed["devices"] == "2 x H100 (gpu), 1 x cpu"
    assert platform.system() in printed["system"]

    def fail() -> None:
        raise RuntimeError("no driver\nsecond line")

    monkeypatch.setattr("jax.devices", fail)
    assert run_command("--version") == 0
    assert re.search(r"^devices +none \(no driver\)$", capsys.readouterr().out, re.MULTILINE)


def test_public_names_are_imported_on_first_use():
    program = """
import sys, ssd_jax
assert not {"jax", "numpy", "msgspec"} & set(sys.modules)
assert ssd_jax.__version__
assert ssd_jax.Config().name == "ssd" and "jax" not in sys.modules
for name in ssd_jax.__all__:
    assert getattr(ssd_jax, name) is not None, name
assert {"load", "Detector", "Detection", "train", "evaluate", "Config", "load_config"} <= set(dir(ssd_jax))
# tensorboardX imports torch if it is installed; each of these takes from a tenth of a second to several.
unneeded = {"tensorboardX", "torch", "tensorflow", "tensorflow_datasets", "matplotlib"} & set(sys.modules)
assert not unneeded, unneeded
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.filterwarnings("default")
def test_library_warnings_about_large_images_and_missing_glyphs_are_hidden(monkeypatch, recwarn, tmp_path):
    file = tmp_path / "a.png"
    Image.new("RGB", (64, 48)).save(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 64 - 1)

    def cause_warnings(argv: Sequence[str]) -> None:
        read_image(file)
        Figure().text(0, 0, "猫").figure.savefig(tmp_path / "glyph.png")

    monkeypatch.setattr(show, "run", cause_warnings)
    assert run_command("show") == 0
    assert [str(warning.message) for warning in recwarn] == []


HOSTILE = "\x1b]0;title\x07\x1b[31mred\r\udce9\u202e"


def test_output_of_commands_contains_no_control_codes_of_names(monkeypatch, capfd):
    """The line break in the name is escaped, too, in error messages and warnings, which have one line each."""

    def run(argv: Sequence[str]) -> None:
        print(f"Reading {HOSTILE}")
        logging.getLogger("ssd_jax.data").warning("%s\nerror: forged", HOSTILE)
        with show_progress(HOSTILE, stage="reading"):
            time.sleep(0.05)
        raise UserError(f"{HOSTILE}\nerror: forged", "Rename it.")

    monkeypatch.setattr(progress, "LINE_SECONDS", 0.01)
    monkeypatch.setattr(progress._next_line, "time", 0.0)  # an earlier test may have printed a line
    monkeypatch.setattr(show, "run", run)
    assert run_command("show") == 2
    printed = capfd.readouterr()
    escaped = r"\x1b]0;title\x07\x1b[31mred\x0d\xe9\u202e"
    assert printed.out == f"Reading {escaped}\n"
    lines = printed.err.splitlines()
    assert lines[0] == rf"warning: {escaped}\x0aerror: forged"
    assert rf"{escaped}: 0:00  reading" in lines, "the progress"
    assert lines[-2:] == [rf"error: {escaped}\x0aerror: forged", "Rename it."]
    assert "\x1b" not in printed.err and "\u202e" not in printed.err


def test_output_escapes_characters_that_the_terminal_cannot_encode(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), "ascii"))
    monkeypatch.setattr(show, "run", lambda argv: print("Kätzchen 猫"))
    assert run_command("show") == 0
    assert sys.stdout.buffer.getvalue() == b"K\\xe4tzchen \\u732b\n"


def test_missing_and_unknown_commands_print_the_list_of_commands(run_failing_command):
    assert "usage: ssd-jax COMMAND" in run_failing_command()
    message = run_failing_command("trian", "configs/shapes.py")
    assert message.startswith("error:") and "'trian'" in message
    assert "train CONFIG" in message


def test_ctrl_c_ends_a_command_with_a_message_of_one_line(monkeypatch, capsys):
    def raise_keyboard_interrupt(argv: Sequence[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(show, "run", raise_keyboard_interrupt)
    assert run_command("show") == 130
    printed = capsys.readouterr()
    assert printed.err.strip() == "Stopped." and not printed.out


def test_ctrl_c_in_garbage_collector_callback_is_not_lost(monkeypatch):
    def interrupt(*_: object) -> None:
        gc.callbacks.remove(interrupt)
        signal.raise_signal(signal.SIGINT)

    def run(argv: Sequence[str]) -> None:
        gc.callbacks.append(interrupt)
        gc.collect()
        time.sleep(600)

    handler, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    monkeypatch.setattr(show, "run", run)
    start = time.monotonic()
    assert run_command("show") == 130
    assert time.monotonic() - start < 300
    assert (signal.getsignal(signal.SIGINT), sys.unraisablehook) == (handler, hook)


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal, which Windows lacks")
def test_second_ctrl_c_ends_command_at_once():
    program = """
import time
from ssd_jax.__main__ import main
from ssd_jax.commands import show

def run(argv):
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaning up", flush=True)
        time.sleep(60)

show.run = run
main(["show"])
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        for line in (b"ready\n", b"cleaning up\n"):
            while process.stdout.readline() != line:
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT


# ---- pipes ----


def run_without_reader(*argv: str, stderr_too: bool = False) -> subprocess.CompletedProcess[bytes]:
    """Run ``ssd-jax ARGV`` with its output in a pipe that is closed at the other end, as after `head` has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "ssd_jax", *argv]
        errors = writer if stderr_too else subprocess.PIPE
        return subprocess.run(command, cwd=ROOT, stdout=writer, stderr=errors, check=False)
    finally:
        os.close(writer)


@pytest.mark.parametrize("stderr_too", [False, True])
def test_command_without_reader_of_its_output_writes_its_files(tmp_path, stderr_too):
    result = run_without_reader("check-data", TINY, "--out", str(tmp_path / "out"), stderr_too=stderr_too)
    assert result.returncode in (0, 1)
    assert b"Error" not in (result.stderr or b"")
    assert (tmp_path / "out" / "check.json").exists()


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"], ["evaluate", "--help"], ["train", TINY, "--help"]])
def test_help_without_reader_of_its_output_ends_quietly(argv):
    result = run_without_reader(*argv)
    assert (result.returncode, result.stderr) == (0, b"")


# ---- paths ----


@pytest.fixture
def home(monkeypatch, tmp_path):
    """Return a home folder, which is that of this process during the test."""
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    return tmp_path


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_command_whose_output_cannot_be_written_writes_its_files_and_says_so(tmp_path):
    arguments = ["configs", "own_data", "--copy", str(tmp_path / "mine.py")]
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "ssd_jax", *arguments], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert result.returncode == 2 and (tmp_path / "mine.py").exists()
    assert result.stderr.startswith("error: not all of the output could be printed: No space left")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_help_that_cannot_be_printed_fails(monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert run_command("models", "--help") == 2
    assert "could be printed: No space left" in capsys.readouterr().err


def test_home_folder_is_expanded_in_paths_and_only_there(home):
    argv = ["~/a b", "--image=~/x", "--epoch=0", "--out=~/b.jpg"]
    options = parse_options(show.ShowOptions, "show", argv)
    assert (options.run, options.image, options.out) == (home / "a b", "~/x", home / "b.jpg")
    argv = ["~nobody-of-this-name/r", "a/~", "~/c.png"]
    predicted = parse_options(predict.PredictOptions, "predict", argv)
    assert predicted.run == argv[0] and predicted.sources == ("a/~", "~/c.png")  # not only paths


def test_home_folder_is_expanded_in_the_paths_of_a_config(home, monkeypatch, capsys):
    shutil.copy(TINY, home / "tiny.py")
    monkeypatch.setattr("ssd_jax.commands.check_data.check_data", lambda options: print(options.out) or 0)
    assert run_command("check-data", "~/tiny.py", "--out=~/o", "--data.root=~/d") == 0
    assert capsys.readouterr().out == f"{home / 'o'}\n"
    assert with_data_root(load_config(TINY), "~/d").data.root == str(home / "d")


def test_lines_in_a_narrow_terminal_are_broken_between_words():
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    primary, secondary = pty.openpty()
    termios.tcsetwinsize(secondary, (24, 30))
    with os.fdopen(secondary, "w") as terminal, redirect_stdout(terminal), escape_output():
        print("The run in runs/own_data is finished: all", 30, "steps are done")
        terminal.flush()
        shown = b""
        while shown.count(b"\n") < 2:
            shown += os.read(primary, 1000)
    os.close(primary)
    assert shown.decode().splitlines() == ["The run in runs/own_data is", "finished: all 30 steps are done"]
