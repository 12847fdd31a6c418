"""Tests of exported pages, with an imitation of onnxruntime-web from a server on the loopback address."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.cli import run_command
from helpers.file_server import FileServer, run_file_server
from helpers.web_runtime import write_package

from ssd_jax.errors import UserError
from ssd_jax.export import web_runtime
from ssd_jax.exported.reading import read_program
from ssd_jax.runtime import download
from ssd_jax.web_page.page import read_page_files

pytestmark = pytest.mark.usefixtures("few_pictures")
CONTENTS: dict[str, bytes | tarfile.TarInfo] = {
    "package/../../outside.txt": b"not to be written",
    **{member: f"content of {name}".encode() for name, member in web_runtime.MEMBERS.items()},
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an imitation of the npm package, whose hash is the expected one. The cache is empty."""
    file = tmp_path / "package.tgz"
    monkeypatch.setattr(web_runtime, "DIGEST", write_package(file, CONTENTS))
    monkeypatch.setattr(download, "_WAITS_S", (0.01,))
    monkeypatch.setenv("SSD_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:1/")
    return file


@pytest.fixture
def server(package: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Run an npm registry that has the package."""
    with run_file_server(package.read_bytes()) as running:
        monkeypatch.setenv("npm_config_registry", f"{running.url}good/")
        yield running


def test_export_command_writes_a_page_that_can_be_served_anywhere(model, server, tmp_path, capsys):
    folder = tmp_path / "my page"
    assert run_command("export", model, "--format", "web", "--out", folder, "--score-threshold", "0.03", "--quiet") == 0
    printed = capsys.readouterr()
    assert "MIT (Microsoft)" in printed.err, "the license of the download"
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert f"{size / 1e6:.1f} MB" in printed.out and "scores " in printed.out
    assert "python -m http.server" in printed.out and "'" in printed.out
    names = {file.name for file in folder.iterdir()}
    others = {"config.json", "detector.onnx", "onnxruntime_license.txt"}
    assert names == {*read_page_files(), *web_runtime.MEMBERS, *others}
    assert (folder / "onnxruntime.js").read_bytes() == b"content of onnxruntime.js"
    license_text = (folder / "onnxruntime_license.txt").read_text(encoding="utf-8")
    assert license_text.startswith("MIT License") and "Microsoft" in license_text and len(license_text) > 100_000
    metadata = read_program(folder / "detector.onnx").metadata
    assert metadata.format == "onnx" and metadata.parity is not None and metadata.parity.alone == 0
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (config["backend"], config["model"], config["name"]) == ("onnx", "detector.onnx", "tiny")
    assert (config["class_names"], config["max_image_size"], config["score_threshold"]) == (["a", "b"], 64, 0.03)
    assert not list(tmp_path.rglob("outside.txt"))

    (folder / "config.json").write_text(json.dumps(config | {"name": "older"}), encoding="utf-8")
    assert run_command("export", model, "--format", "web", "--out", folder, "--quiet") == 0
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["name"] == "tiny"
    assert [path for path, _ in server.requests] == ["good"], "the cache has it"
    assert {file.name for file in folder.iterdir()} == names


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--no-nms"], "no option --nms"),
        (["--batch", "2"], "no option --batch"),
        (["--format", "onnx", "--runtime", "x.tgz"], "no option --runtime"),
        (["--out", "photos"], "photos: the folder has files"),
        (["--runtime", "photos/a.jpg"], "a.jpg: is not the file onnxruntime-web-"),
        ([], "no connection to 127.0.0.1:1). If you get the file in another way: ssd-jax export"),
    ],
)
def test_export_command_rejects_what_it_cannot_do_and_writes_nothing(
    model, package, tmp_path, monkeypatch, capsys, options, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"mine")
    assert run_command("export", model, "--format", "web", "--quiet", *options) == 2
    *_, error = capsys.readouterr().err.splitlines()
    assert words in error
    assert {file.name for file in tmp_path.rglob("*") if file.is_file()} <= {
        "a.jpg", "package.tgz", f"onnxruntime-web-{web_runtime.VERSION}.tgz.lock",
    }  # fmt: skip


def test_file_of_the_user_is_kept_in_the_cache(package):
    cached = web_runtime.provide_archive(package)
    assert cached.read_bytes() == package.read_bytes() and cached != package
    assert web_runtime.provide_archive() == cached, "without the network"


def test_archive_gives_only_regular_files_with_the_expected_names(tmp_path):
    first, second = web_runtime.MEMBERS.values()
    link = tarfile.TarInfo(first)
    link.type, link.linkname = tarfile.SYMTYPE, second.rpartition("/")[2]
    for number, members in enumerate([{first: b"x"}, {first: link, second: b"x"}]):
        file = tmp_path / f"{number}.tgz"
        write_package(file, members)
        with pytest.raises(UserError, match=rf"{number}\.tgz"):
            web_runtime.read_runtime_files(file)
    (tmp_path / "cut.tgz").write_bytes((tmp_path / "0.tgz").read_bytes()[:40])
    with pytest.raises(UserError, match=r"cut\.tgz"):
        web_runtime.read_runtime_files(tmp_path / "cut.tgz")


def test_public_registry_is_used_unless_the_variable_names_another(monkeypatch):
    monkeypatch.delenv("npm_config_registry", raising=False)
    url = web_runtime.find_remote_file().url
    assert url == f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{web_runtime.VERSION}.tgz"
    monkeypatch.setenv("npm_config_registry", "https://example.org/npm/")
    assert web_runtime.find_remote_file().url.startswith("https://example.org/npm/onnxruntime-web/-/")
