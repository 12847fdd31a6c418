"""Tests of downloads from and uploads to a stand-in for the Hugging Face Hub."""

import os
import re
import socket
import sys
from pathlib import Path

import pytest
from helpers.fake_hub import READ_TOKEN, TOKEN, FakeHub, Repository

from ssd_jax.errors import UserError
from ssd_jax.model_zoo import hub

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "README.md": b"# cells"}
OTHER_FILES = {"model.bin": b"\x80pickle", ".gitattributes": b"x", "sub/config.json": b"{}"}


def read_folder(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def assert_refused(words: str, function, *arguments, **options) -> str:
    """Assert that a call raises a UserError in one line with the given words and without a token."""
    with pytest.raises(UserError, match=words) as caught:
        function(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 400
    assert TOKEN not in text and READ_TOKEN not in text
    return text


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Write the files of a model folder, and return their paths."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in (FILES | {"README.md": b"---\nlicense: mit\n---\n# cells\n"}).items():
        (folder / name).write_bytes(content)
    return sorted(folder.iterdir())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://mia/cells", True),
        (Path("hf://mia/cells"), True),
        ("hf://", False),
        ("runs/hf", False),
        ("hf", False),
        ("http://mia/cells", False),
    ],
)
def test_is_address(text, expected):
    assert hub.is_address(text) == expected


# ---- download ----


@pytest.mark.parametrize("address", ["hf://mia/cells", Path("hf://mia/cells"), "hf://models/mia/cells"])
def test_download_gets_only_the_files_of_a_model_folder(fake_hub: FakeHub, address):
    fake_hub.add("mia/cells", FILES | OTHER_FILES)
    assert read_folder(hub.download_model(address)) == FILES


def test_download_gets_the_revision_that_the_address_names(fake_hub: FakeHub):
    repository = fake_hub.add("mia/cells", FILES, tags={"v1": 0})
    repository.commits.append(FILES | {"model.safetensors": b"newer"})
    contents = [
        (hub.download_model(address) / "model.safetensors").read_bytes()
        for address in ("hf://mia/cells@v1", "hf://mia/cells", f"hf://mia/cells@{Repository.make_sha(0)}")
    ]
    assert contents == [b"weights", b"newer", b"weights"]


def test_download_gets_a_new_version_and_keeps_unchanged_files(fake_hub: FakeHub):
    repository = fake_hub.add("mia/cells", FILES)
    hub.download_model("hf://mia/cells")
    repository.commits.append(FILES | {"config.json": b'{"name": "new"}'})
    fake_hub.requests.clear()
    assert (hub.download_model("hf://mia/cells") / "config.json").read_bytes() == b'{"name": "new"}'
    assert not [path for path in fake_hub.list_paths() if path.startswith("GET") and path.endswith(".safetensors")]


@pytest.mark.parametrize("failure", ["server", "network"])
def test_download_uses_the_cache_if_the_hub_cannot_be_reached(fake_hub: FakeHub, monkeypatch, failure):
    fake_hub.add("mia/cells", FILES)
    folder = hub.download_model("hf://mia/cells")
    if failure == "server":
        fake_hub.failing = 500
    else:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", find_closed_address())
    assert hub.download_model("hf://mia/cells") == folder


def find_closed_address() -> str:
    """Return an address on this machine where no server listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}"


def test_download_without_a_network_names_the_address_of_the_hub(fake_hub: FakeHub, monkeypatch):
    closed = find_closed_address()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", closed)
    assert closed in assert_refused("hf://mia/cells.*cannot be reached", hub.download_model, "hf://mia/cells")


def test_download_in_offline_mode_is_refused(fake_hub: FakeHub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert_refused("HF_HUB_OFFLINE", hub.download_model, "hf://mia/cells")
    assert not fake_hub.requests


def test_download_with_a_failing_server_names_the_status(fake_hub: FakeHub):
    fake_hub.failing = 500
    assert_refused("hf://mia/cells.*500", hub.download_model, "hf://mia/cells")


@pytest.mark.parametrize(("token", "words"), [("", "hf auth login"), (READ_TOKEN, "no such repository")])
@pytest.mark.parametrize("private", [True, False])
def test_download_of_a_missing_or_private_repository(fake_hub: FakeHub, monkeypatch, token, words, private):
    monkeypatch.setenv("HF_TOKEN", token)
    if private:
        fake_hub.add("mia/cells", FILES, private=True)
    assert_refused(f"hf://mia/cells.*{words}", hub.download_model, "hf://mia/cells")


def test_download_of_a_private_repository_uses_the_token(fake_hub: FakeHub, monkeypatch):
    fake_hub.add("mia/cells", FILES, private=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert read_folder(hub.download_model("hf://mia/cells")) == FILES


def test_download_reads_the_token_that_login_stored(fake_hub: FakeHub, monkeypatch, tmp_path):
    fake_hub.add("mia/cells", FILES, private=True)
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    assert read_folder(hub.download_model("hf://mia/cells")) == FILES


def test_download_with_a_wrong_token_says_so(fake_hub: FakeHub, monkeypatch):
    fake_hub.add("mia/cells", FILES)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "hf_wrong" not in assert_refused("token is not valid", hub.download_model, "hf://mia/cells")


def test_download_of_a_gated_repository_tells_to_ask_for_access(fake_hub: FakeHub):
    fake_hub.add("mia/cells", FILES, gated=True)
    assert_refused("Ask for access", hub.download_model, "hf://mia/cells")


def test_download_of_an_unknown_revision(fake_hub: FakeHub):
    fake_hub.add("mia/cells", FILES)
    assert_refused("hf://mia/cells@v7.*revision", hub.download_model, "hf://mia/cells@v7")


def test_download_of_another_kind_of_model_is_refused(fake_hub: FakeHub):
    fake_hub.add("mia/cells", {"config.json": b"{}", "pytorch_model.bin": b"\x80pickle"})
    assert_refused("no model.safetensors", hub.download_model, "hf://mia/cells")
    assert not [path for path in fake_hub.list_paths() if path.endswith(".bin")]


@pytest.mark.parametrize(
    "address", ["hf://cells", "hf://mia/cells/file", "hf://datasets/mia/cells", "hf://mia/../x", "hf://mia/cells@"]
)
def test_download_refuses_a_wrong_address(fake_hub: FakeHub, address):
    assert_refused(re.escape(address), hub.download_model, address)
    assert not fake_hub.requests


# ---- upload ----


@pytest.fixture
def token(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a token that may write."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("private", [True, False])
def test_upload_creates_a_repository_with_one_commit(fake_hub: FakeHub, files, private):
    hub.check_can_upload("mia/cells")
    page = hub.upload_files(files, "mia/cells", private=private)
    assert page == f"{fake_hub.url}/mia/cells"
    repository = fake_hub.repositories["mia/cells"]
    assert repository.commits[1:] == [{file.name: file.read_bytes() for file in files}]
    assert repository.private == private


@pytest.mark.usefixtures("token")
def test_upload_to_an_existing_repository_adds_a_commit_and_keeps_other_files(fake_hub: FakeHub, files):
    repository = fake_hub.add("mia/cells", {"notes.txt": b"mine", "config.json": b"old"})
    hub.upload_files(files, "mia/cells")
    assert len(repository.commits) == 2
    assert repository.commits[1] == {"notes.txt": b"mine"} | {file.name: file.read_bytes() for file in files}


@pytest.mark.usefixtures("token")
def test_private_upload_to_a_public_repository_is_refused(fake_hub: FakeHub, files):
    repository = fake_hub.add("mia/cells", {})
    assert_refused("mia/cells.*public.*--private", hub.upload_files, files, "mia/cells", private=True)
    assert len(repository.commits) == 1 and not fake_hub.blobs
    fake_hub.add("mia/secret", {}, private=True)
    hub.upload_files(files, "mia/secret", private=True)


@pytest.mark.parametrize(
    ("token", "repository", "words"),
    [
        (READ_TOKEN, "mia/cells", "write access"),
        (TOKEN, "ada/cells", "write access.*organization"),
        ("hf_wrong", "mia/cells", "token is not valid"),
    ],
)
def test_upload_with_a_token_that_may_not_write(fake_hub: FakeHub, monkeypatch, files, token, repository, words):
    monkeypatch.setenv("HF_TOKEN", token)
    hub.check_can_upload(repository)
    assert token not in assert_refused(f"{repository}.*{words}", hub.upload_files, files, repository)
    assert not fake_hub.repositories


def test_upload_without_a_token_is_refused_before_any_request(fake_hub: FakeHub):
    assert_refused("HF_TOKEN", hub.check_can_upload, "mia/cells")
    assert not fake_hub.requests


@pytest.mark.usefixtures("token")
def test_upload_of_a_card_with_a_wrong_license_gives_the_reason(fake_hub: FakeHub, files):
    (card,) = (file for file in files if file.name == "README.md")
    card.write_text("---\nlicense: my own\n---\n")
    assert_refused('"license" must be one of', hub.upload_files, files, "mia/cells")
    assert len(fake_hub.repositories["mia/cells"].commits) == 1


@pytest.mark.usefixtures("token")
def test_answer_of_another_kind_of_server_is_an_error_in_one_line(fake_hub: FakeHub, monkeypatch, files):
    monkeypatch.setattr(fake_hub, "create", lambda body, token: {})
    assert_refused("mia/cells.*url", hub.upload_files, files, "mia/cells")


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("repository", ["cells", "a/b/c", "mia/", "mia/ce lls", "mia/a--b", "hf://mia/cells"])
def test_upload_refuses_a_wrong_name(fake_hub: FakeHub, repository):
    assert_refused(re.escape(repository), hub.check_can_upload, repository)


@pytest.mark.usefixtures("token")
def test_upload_without_a_network(fake_hub: FakeHub, monkeypatch, files):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", find_closed_address())
    assert_refused("cannot be reached", hub.upload_files, files, "mia/cells")


# ---- both ----


@pytest.mark.usefixtures("token")
def test_no_telemetry_is_sent(fake_hub: FakeHub, monkeypatch, files):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setenv("AI_AGENT", "unknown")
    hub.upload_files(files, "mia/cells")
    hub.download_model("hf://mia/cells")
    known = re.compile(r"/api/(repos/create|validate-yaml|models/mia/cells)|/mia/cells|/lfs/")
    assert all(known.match(path) for _, path, _ in fake_hub.requests), fake_hub.list_paths()
    assert not any("agent/" in headers.get("User-Agent", "") for _, _, headers in fake_hub.requests)
    assert not constants.HF_HUB_DISABLE_TELEMETRY and "HF_HUB_DISABLE_TELEMETRY" not in os.environ


@pytest.mark.parametrize(
    ("function", "argument"), [(hub.download_model, "hf://mia/cells"), (hub.check_can_upload, "mia/cells")]
)
def test_missing_extra_is_named(monkeypatch, function, argument):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert_refused(r"ssd-jax\[hub\]", function, argument)
