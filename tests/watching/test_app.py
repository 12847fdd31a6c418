"""Tests of the HTTP interface of ``ssd-jax watch``."""

import json
import re

import pytest
from helpers.pages import PageParser
from helpers.run_folders import make_finished_run, make_run
from starlette.testclient import TestClient

from ssd_jax.watching.app import make_watch_app, read_page_files
from ssd_jax.watching.watcher import Watcher, make_run_id


@pytest.fixture
def runs(tmp_path):
    """Return a folder with the finished run ``done`` and the stopped run ``new``."""
    make_finished_run(tmp_path / "runs" / "done")
    make_run(tmp_path / "runs" / "new", logged=3, seed=1)
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "runs"


@pytest.fixture
def client(runs):
    return TestClient(make_watch_app(Watcher(runs)))


def get_id(client: TestClient, name: str) -> str:
    (ident,) = (run["id"] for run in client.get("/api/runs").json()["runs"] if run["name"] == name)
    return ident


def test_page_loads_only_its_own_files_and_has_no_inline_script_or_style(client):
    answer = client.get("/")
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    page = PageParser(re.sub(r"<(link|input)([^>]*)>", r"<\1\2></\1>", answer.text).replace("<!DOCTYPE html>", ""))
    for tag, attributes in page.elements:
        assert tag != "style" and "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src"):
            if (url := attributes.get(name)) and url != "data:,":
                assert client.get(f"/{url}").status_code == 200
    assert [a["src"] for tag, a in page.elements if tag == "script"] == ["main.js"]


def test_scripts_import_only_files_of_the_page_and_never_parse_html(client):
    files = read_page_files()
    scripts = {name: data.decode() for name, data in files.items() if name.endswith(".js")}
    assert len(scripts) >= 5
    for name, text in scripts.items():
        for imported in re.findall(r'from "\./([^"]+)"', text):
            assert imported in scripts
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|https?://(?!www\.w3\.org)", text
        )
        answer = client.get(f"/{name}")
        assert answer.headers["content-type"].startswith("text/javascript") and answer.content == files[name]
    assert client.get("/page.css").headers["content-type"].startswith("text/css")


def test_overview_and_curves_are_json(client):
    answer = client.get("/api/runs")
    assert answer.headers["cache-control"] == "no-store"
    overview = answer.json()
    assert {run["name"]: run["status"] for run in overview["runs"]} == {"done": "finished", "new": "stopped"}
    assert len(overview["session"]) == 16
    done = get_id(client, "done")
    curves = client.get(f"/api/runs/{done}/curves").json()
    assert curves["train"]["values"]["loss"] == [10 / i for i in range(1, 11)]
    assert curves["val"]["steps"] == [50, 100] and curves["val"]["values"]["coco_ap"] == [0.5, None]
    known = f"{curves['train']['number']}.{curves['train']['fixed']}"
    assert client.get(f"/api/runs/{done}/curves?train={known}").json()["train"]["steps"] == []
    for odd in ("x", "-1.0", "0.99999", "1e5.3", "0.1.2", "9" * 50 + ".1", "%ff"):
        assert len(client.get(f"/api/runs/{done}/curves?train={odd}").json()["train"]["steps"]) == 10


def test_overview_of_odd_names_and_numbers_is_valid_json(tmp_path):
    run = make_run(tmp_path / "caf\udce9</script>")
    (run / "log.jsonl").write_text(
        '{"step": 1, "loss": NaN, "images_per_second": Infinity}\n{"step": 1' + "0" * 500 + "}\n"
    )
    client = TestClient(make_watch_app(Watcher(tmp_path)))
    (state,) = json.loads(client.get("/api/runs").text, parse_constant=pytest.fail)["runs"]
    assert state["name"] == "caf\\xe9</script>" and state["step"] == 1 and state["loss"] is None


def test_differences_are_json(client):
    idents = [get_id(client, name) for name in ("done", "new")]
    answer = client.get("/api/differences", params={"run": idents})
    assert answer.json() == [{"option": "train.seed", "values": ["0", "1"]}]
    assert client.get("/api/differences").json() == []


def test_report_page_has_its_own_policy_without_rights_on_this_server(client):
    done = get_id(client, "done")
    answer = client.get(f"/runs/{done}/report.html")
    assert answer.status_code == 200 and "report" in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and policy.endswith("; sandbox") and "script" not in policy
    picture = client.get(f"/runs/{done}/val_pred.jpg")
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/jpeg")


HOSTILE = (
    "..%2f..%2fsecret.txt", "..%5c..%5csecret.txt", "%2e%2e/secret.txt", "../secret.txt", "%2fetc%2fpasswd",
    "/etc/passwd", "report.html%00", "report.html/", "report.html%0a", "config.json", "log.jsonl", "checkpoints",
    ".", "%2e", "", "val_pred.jpg%2f..", "VAL_PRED.JPG", "link_pred.jpg", "%ff_pred.jpg", "..%2fdone%2freport.html",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_of_files_are_not_found(client, runs, name):
    (runs / "done" / "link_pred.jpg").symlink_to(runs.parent / "secret.txt")
    done = get_id(client, "done")
    assert client.get(f"/runs/{done}/{name}").status_code == 404
    if name not in ("", "/", ".", "%2e", "../secret.txt", "%2e%2e/secret.txt"):  # the client removes dots itself
        assert client.get(f"/{name}").status_code == 404


@pytest.mark.parametrize("run", ["..", "%2e%2e", "done", "..%2fruns%2fdone", "", "%00", "a" * 5000])
def test_hostile_identifiers_of_runs_are_not_found(client, run):
    assert client.get(f"/runs/{run}/report.html").status_code == 404
    assert client.get(f"/api/runs/{run}/curves").status_code == 404


def test_only_get_is_answered(client, runs):
    before = sorted(runs.rglob("*"))
    ident = make_run_id(runs, runs / "done")
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        for path in ("/", "/api/runs", f"/runs/{ident}/report.html"):
            assert client.request(method, path).status_code == 405
    assert sorted(runs.rglob("*")) == before
