"""Tests of downloads into the cache, from a server on the loopback address."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.file_server import FileServer, run_file_server
from helpers.paths import ROOT

from ssd_jax.errors import UserError
from ssd_jax.files import find_cache_folder
from ssd_jax.model_zoo import download
from ssd_jax.model_zoo.catalog import CatalogModel
from ssd_jax.runtime import download as runtime_download

CONTENT = bytes(range(256)) * 4096  # 1 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with run_file_server(CONTENT) as running:
        yield running


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache folder. The pauses between tries are short."""
    monkeypatch.setenv("SSD_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime_download, "_WAITS_S", (0.01, 0.01))
    return tmp_path / "cache"


def make_model(server: FileServer | None, behavior: str = "good", digest: str = f"sha256:{SHA256}") -> CatalogModel:
    url = f"{server.url if server else 'http://127.0.0.1:1/'}{behavior}/weights.pth"
    return CatalogModel("some-net", "SSD300", 20, "VOC", "MIT (someone)", "", "", url, digest, megabytes=1)


def list_cache(cache: Path) -> set[str]:
    """Return the names of the files in the cache, without locks."""
    return {file.name for file in cache.rglob("*") if file.is_file() and file.suffix != ".lock"}


# ---- files that arrive ----


@pytest.mark.parametrize("behavior", ["good", "redirect", "busy", "slow"])
def test_fetch_model_writes_the_file_once_and_prints_its_license(server, cache, capsys, behavior):
    model = make_model(server, behavior)
    file = download.fetch_model(model)
    assert file == cache / "models" / "weights.pth" and file.read_bytes() == CONTENT
    error = capsys.readouterr().err
    assert "MIT (someone)" in error and model.url in error
    count = len(server.requests)
    assert download.fetch_model(model) == file and len(server.requests) == count
    assert capsys.readouterr().err == ""
    assert list_cache(cache) == {"weights.pth"}


@pytest.mark.parametrize("behavior", ["cut", "stall"])
def test_an_interrupted_download_continues_where_it_stopped(server, monkeypatch, behavior):
    if behavior == "stall":
        monkeypatch.setattr(runtime_download, "_TIMEOUTS_S", (10, 0.5))
    assert download.fetch_model(make_model(server, behavior)).read_bytes() == CONTENT
    assert server.requests == [(behavior, None), (behavior, f"bytes={len(CONTENT) // 2}-")]


@pytest.mark.parametrize("behavior", ["no_range", "refuse_range"])
def test_a_server_without_ranges_sends_the_whole_file_again(server, cache, behavior):
    (cache / "models").mkdir(parents=True)
    (cache / "models" / "weights.pth.part").write_bytes(CONTENT[:1000])
    assert download.fetch_model(make_model(server, behavior)).read_bytes() == CONTENT
    assert server.requests[0] == (behavior, "bytes=1000-")


def test_a_download_continues_in_another_process_and_starts_again_if_its_beginning_was_wrong(server, cache):
    part = cache / "models" / "weights.pth.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:5000])
    download.fetch_model(make_model(server)).unlink()
    assert server.requests == [("good", "bytes=5000-")]
    part.write_bytes(b"x" * 5000)
    assert download.fetch_model(make_model(server)).read_bytes() == CONTENT
    assert server.requests[1:] == [("good", "bytes=5000-"), ("good", None)]


def test_a_complete_part_is_used_without_a_download(server, cache):
    part = cache / "models" / "weights.pth.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    assert download.fetch_model(make_model(server, "refuse_range")).read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_changed_file_in_the_cache_is_replaced(server):
    model = make_model(server)
    file = download.fetch_model(model)
    file.write_bytes(CONTENT[:-1] + b"?")
    assert download.fetch_model(model).read_bytes() == CONTENT and len(server.requests) == 2


@pytest.mark.parametrize("digest", [f"sha256:{SHA256[:8]}", f"md5:{hashlib.md5(CONTENT).hexdigest()}"])
def test_prefixes_and_other_algorithms_are_checked(server, digest):
    assert download.fetch_model(make_model(server, digest=digest)).read_bytes() == CONTENT
    wrong = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    with pytest.raises(UserError, match="hash"):
        download.fetch_model(make_model(server, digest=wrong))


def test_two_processes_download_once(server, cache):
    program = f"""
import sys
from ssd_jax.model_zoo import download
from ssd_jax.model_zoo.catalog import CatalogModel
model = CatalogModel("some-net", "", 0, "", "", "", "", sys.argv[1], "sha256:{SHA256}", megabytes=1)
print(download.fetch_model(model))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, f"{server.url}slow/weights.pth"]
    processes = [
        subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [out for out, _ in outputs] == [f"{cache / 'models' / 'weights.pth'}\n"] * 2, outputs
    assert len(server.requests) == 1 and list_cache(cache) == {"weights.pth"}


# ---- files that do not arrive ----


def fail_to_fetch(model: CatalogModel) -> str:
    """Return the message of a failed download, which must have one line and name the model, the address and a way."""
    with pytest.raises(UserError) as error:
        download.fetch_model(model)
    message = str(error.value)
    assert "\n" not in message and model.name in message and model.url in message
    return message


def test_a_file_with_a_wrong_hash_is_deleted(server, cache):
    message = fail_to_fetch(make_model(server, digest="sha256:0123456789abcdef"))
    assert SHA256 in message and "sha256:0123456789abcdef" in message
    assert list_cache(cache) == set()


def test_a_missing_file_is_not_tried_again(server, cache):
    message = fail_to_fetch(make_model(server, "gone"))
    assert "404" in message and "--from FILE" in message
    assert len(server.requests) == 1 and list_cache(cache) == set()


def test_a_connection_that_always_breaks_is_given_up_and_keeps_what_has_arrived(server, cache):
    message = fail_to_fetch(make_model(server, "cut_always"))
    assert "lost" in message and "--from FILE" in message
    assert len(server.requests) == 3
    kept = (cache / "models" / "weights.pth.part").read_bytes()
    assert CONTENT.startswith(kept) and len(kept) >= len(CONTENT) * 6 // 8
    assert download.fetch_model(make_model(server)).read_bytes() == CONTENT
    assert server.requests[-1] == ("good", f"bytes={len(kept)}-")


def test_without_a_network_the_message_says_how_to_bring_the_file(cache):
    message = fail_to_fetch(make_model(None))
    assert "no connection to 127.0.0.1:1" in message and "ssd-jax models some-net --from FILE" in message


def test_a_file_that_never_ends_is_refused(server):
    assert "more than" in fail_to_fetch(make_model(server, "endless"))


def test_a_cache_that_cannot_be_written_is_named(server, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SSD_JAX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="SSD_JAX_CACHE"):
        download.fetch_model(make_model(server))
    assert server.requests == []


def test_a_read_only_cache_is_used_if_it_has_the_file(server, monkeypatch):
    model = make_model(server)
    file = download.fetch_model(model)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(runtime_download.filelock.FileLock, "acquire", refuse)
    assert download.fetch_model(model) == file
    file.unlink()
    with pytest.raises(UserError, match=r"Permission denied.*SSD_JAX_CACHE"):
        download.fetch_model(model)


# ---- files from elsewhere ----


def test_add_to_cache_takes_only_the_right_file(server, cache, tmp_path):
    model = make_model(None)
    (tmp_path / "right.bin").write_bytes(CONTENT)
    (tmp_path / "wrong.bin").write_bytes(CONTENT[1:])
    for name in ("wrong.bin", "missing.bin"):
        with pytest.raises(UserError, match=name):
            download.add_to_cache(model, tmp_path / name)
    assert list_cache(cache) == set()
    assert download.add_to_cache(model, tmp_path / "right.bin").read_bytes() == CONTENT
    assert download.fetch_model(model).read_bytes() == CONTENT


def test_the_cache_folder_follows_the_platform_unless_the_variable_names_one(monkeypatch, tmp_path):
    monkeypatch.setenv("SSD_JAX_CACHE", "~/weights")
    assert find_cache_folder() == Path.home() / "weights"
    monkeypatch.delenv("SSD_JAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name, appauthor: f"{tmp_path}/{name}")
    assert find_cache_folder() == tmp_path / "ssd-jax"
