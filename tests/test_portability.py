"""Tests that the package needs nothing that Windows lacks, and that its file names and texts are the same everywhere.

These tests imitate Windows on other systems. On Windows itself, only the workflow in .github runs.
"""

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import windows_like
from helpers.cli import TINY
from helpers.paths import ROOT, TESTS
from PIL import Image

from ssd_jax import portability
from ssd_jax.errors import UserError
from ssd_jax.predictions.targets import remove_common_folder
from ssd_jax.runs import run_folder
from ssd_jax.runs.plain_path import plain_path

SOURCES = sorted(
    file
    for pattern in ("*.py", "configs/*.py", "ssd_jax/**/*.py", "benchmarks/*.py", "docs/*.py")
    for file in ROOT.glob(pattern)
)
PORTABILITY = ROOT / "ssd_jax" / "portability.py"


# ---- the source ----


def find_calls(file: Path) -> Iterator[ast.Call]:
    """Yield the calls in a source file."""
    return (node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_source_uses_nothing_that_windows_lacks(file: Path):
    names = (*windows_like.FUNCTIONS, "kill", "symlink", "link", "rename", "O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK")
    functions = {f"os.{name}" for name in names}
    functions |= {f"signal.{name}" for name in windows_like.SIGNAL_FUNCTIONS}
    used = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            used |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        elif isinstance(node, ast.Attribute):
            used.add(ast.unparse(node))
            used |= {node.attr} & {"symlink_to", "hardlink_to", "st_blocks", "rename"}
    missing = {name for name in used if name.startswith("signal.SIG")} - {
        f"signal.{name}" for name in windows_like.SIGNALS
    }
    missing |= used & {
        *functions,
        *windows_like.MODULES,
        "_winapi",
        "shlex",
        "symlink_to",
        "hardlink_to",
        "st_blocks",
        "rename",
    }
    expected = (
        {"signal.pthread_kill", "symlink_to", "os.link", "resource", "_winapi", "shlex"}
        if file == PORTABILITY
        else set()
    )
    assert missing == expected


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_source_names_the_encoding_of_every_text(file: Path):
    """The default encoding of Windows lacks most characters, and differs from that of the other systems."""
    for call in find_calls(file):
        name = ast.unparse(call.func).rpartition(".")[2]
        texts = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        options = {keyword.arg for keyword in call.keywords}
        is_text_open = name == "open" and (not call.args or (set("".join(texts[-1:])) <= set("rwaxt+") and texts))
        if name in ("read_text", "write_text") and texts[:1] != ["utf-8"]:
            is_ours = isinstance(call.func, ast.Name) or ast.unparse(call.func) == "files.write_text"
            assert is_ours or "encoding" in options, f"{file}:{call.lineno}"
        if is_text_open or "text" in options:
            assert "encoding" in options, f"{file}:{call.lineno}"


# ---- a process like one on Windows ----


def run_like_windows(folder: Path, *words: str | Path) -> str:
    """Run commands in a folder, as described in helpers/windows_like.py, and return what they print."""
    program = [sys.executable, "-X", "warn_default_encoding", TESTS / "helpers" / "windows_like.py", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "cp1252"}
    result = subprocess.run(program, cwd=folder, env=environment, capture_output=True, encoding="cp1252")
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_modules_are_imported_and_data_is_checked_without_posix(tmp_path):
    run_like_windows(tmp_path, "import-all", "+", "check-data", TINY, "--out", "checked")
    assert (tmp_path / "checked" / "check.json").is_file()


@pytest.mark.slow
def test_commands_work_without_posix(tmp_path):
    """The run folder has a name for which Orbax needs a link where links are allowed."""
    Image.new("RGB", (64, 48), "red").save(tmp_path / "a.png")
    run, steps = "Läufe/é", ("--train.steps", "4", "--train.eval_every", "2")
    printed = run_like_windows(
        tmp_path, "train", TINY, "--workdir", run, *steps, "+", "train", TINY, "--workdir", run, *steps,
        "+", "evaluate", run, "--report", "+", "predict", run, "a.png", "--out", "found",
    )  # fmt: skip
    assert "is finished" in printed
    assert (tmp_path / run / "metrics.json").is_file() and (tmp_path / "found" / "a.png.jpg").is_file()


def test_process_like_windows_lacks_posix_modules_and_names_encodings(tmp_path):
    program = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from helpers import windows_like
windows_like.take_away()
import os, signal, subprocess
for statement in ("import fcntl", "import pwd", "from resource import getrlimit", "os.kill(1, 0)", "os.open('.', 0)",
                  "signal.SIGKILL", "os.fork()", "open('a.txt', 'w')", "import array_record.python"):
    try:
        exec(statement, {{**globals(), "__name__": "ssd_jax.x"}})
    except (ImportError, OSError, AttributeError, EncodingWarning):
        continue
    raise SystemExit(statement)
"""
    command = [sys.executable, "-X", "warn_default_encoding", "-c", program]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert (result.returncode, result.stderr) == (0, "")


# ---- fallbacks ----


@pytest.fixture
def like_windows(monkeypatch):
    """Make ``sys.platform`` that of Windows for the module portability."""
    monkeypatch.setattr(portability, "sys", SimpleNamespace(platform="win32"))
    return monkeypatch


def test_quote_argument_follows_the_shell(like_windows):
    assert portability.quote_argument(r"C:\my data") == r'"C:\my data"'
    assert portability.quote_argument("plain") == "plain"
    like_windows.undo()
    assert portability.quote_argument("/my data") == "'/my data'"


def test_folder_link_is_a_junction_where_symbolic_links_are_refused(like_windows, tmp_path):
    created = []
    like_windows.setattr("os.symlink", windows_like.refuse)
    like_windows.setitem(sys.modules, "_winapi", SimpleNamespace(CreateJunction=lambda *paths: created.append(paths)))
    portability.make_folder_link(tmp_path / "link", tmp_path)
    assert created == [(str(tmp_path), str(tmp_path / "link"))]
    like_windows.undo()
    like_windows.setattr("os.symlink", windows_like.refuse)
    with pytest.raises(OSError, match="privilege"):
        portability.make_folder_link(tmp_path / "link", tmp_path)


def test_plain_path_without_links_is_the_path_itself_unless_it_has_a_pattern(monkeypatch, tmp_path):
    monkeypatch.setattr("os.symlink", windows_like.refuse)
    for name in ("é", "a b!", "#1"):
        with plain_path(tmp_path / name / "c") as path:
            assert path == tmp_path / name / "c"
    for name in ("exp[1]", "a*", "{a}", os.fsdecode(b"\xe9")):
        with pytest.raises(UserError, match=r"privilege.*--workdir"), plain_path(tmp_path / name / "c"):
            pass


def test_plain_path_accepts_the_drive_of_a_windows_path():
    path = Path("C:/Users/ann/runs/checkpoints")
    with plain_path(path) as plain:
        assert plain is path


def test_lock_uses_a_file_where_folders_cannot_be_opened(monkeypatch, tmp_path):
    real_open = os.open

    def open_no_folder(path: str | Path, *arguments: int) -> int:
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied")
        return real_open(path, *arguments)

    monkeypatch.setattr("os.open", open_no_folder)
    run = tmp_path / "run"
    run.mkdir()
    assert not run_folder.is_locked(run) and not list(run.iterdir()), "only the process that locks creates the file"
    with run_folder.hold_exclusive_lock(run):
        assert run_folder.is_locked(run)
        assert [file.name for file in run.iterdir()] == [portability.LOCK_FILE]
        with pytest.raises(UserError, match="another process"):
            run_folder.hold_exclusive_lock(run).__enter__()
    with run_folder.hold_exclusive_lock(run):
        run_folder.create_or_resume_run(run, run_folder.Config())
    assert run_folder.is_run_folder(run)


def test_interrupt_of_the_main_thread_needs_no_posix_signals(monkeypatch):
    monkeypatch.delattr("signal.pthread_kill")
    # A process in the background inherits that SIGINT is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            portability.interrupt_main_thread()
            sum(range(1000))  # the signal is handled between two instructions
    finally:
        signal.signal(signal.SIGINT, before)


def test_child_process_gets_a_process_group_on_windows(like_windows):
    assert portability.make_detached_options() == {"creationflags": 0x200}


def test_relative_path_to_another_drive_is_absolute(monkeypatch, tmp_path):
    assert portability.make_relative_path(tmp_path / "a" / "b", tmp_path) == "a/b"

    def fail(*_: object) -> None:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr("os.path.relpath", fail)
    assert portability.make_relative_path(tmp_path / "a", "/x") == (tmp_path / "a").as_posix()
    monkeypatch.setattr("os.path.commonpath", fail)
    files = [Path("/x/a.png"), Path("/y/a.png")]
    assert remove_common_folder(files) == [Path("x/a.png"), Path("y/a.png")]
