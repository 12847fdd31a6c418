"""Tests of the endpoints: detections, forms, options, errors, and what is said about the server."""

import contextlib
import dataclasses
import html.parser
import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from helpers.cli import run_command
from helpers.http_servers import serve_in_thread
from helpers.serving import encode_image, make_bomb, open_client
from helpers.stablehlo_files import write_tiny_file
from helpers.tiny_detector import CONFIG, make_detector
from PIL import Image
from starlette.testclient import TestClient

import ssd_jax
from ssd_jax.inference.detector import Detector
from ssd_jax.model_zoo.saving import save_model_folder
from ssd_jax.serving import images
from ssd_jax.serving.app import make_app
from ssd_jax.serving.limits import Batching, Limits
from ssd_jax.serving.protection import protect

PHOTOGRAPHS = sorted((Path(ssd_jax.__file__).parent / "model_zoo" / "photographs").glob("*.jpg"))
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 255, (50, 40, 3), np.uint8)
IMAGE = encode_image(PIXELS)
TURNED = Image.Exif()
TURNED[0x0112] = 6
LIMITS = Limits(body_bytes=30_000, held_bytes=100_000, files=3, pixels=1_000_000, waiting=8)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector()


@pytest.fixture(scope="module")
def client(detector: Detector) -> Any:
    with open_client(detector, LIMITS, protection=partial(protect, host="127.0.0.1")) as opened:
        yield opened


def list_answers(answer: dict[str, Any]) -> list[tuple[str, float, tuple[float, ...]]]:
    """Return the detections of an answer like those of a detector."""
    return [(row["class_name"], row["score"], tuple(row["box"])) for row in answer["detections"]]


# ---- detections ----


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the bundled photographs, and images of other formats, sizes and orientations."""
    folder = tmp_path_factory.mktemp("images")
    pixels = RNG.integers(0, 255, (90, 131, 3), np.uint8)
    for name, content in {
        "small.png": encode_image(PIXELS[:9, :7]),
        "grey.webp": encode_image(PIXELS[..., 0], "webp"),
        "turned.jpg": encode_image(pixels, "jpeg", exif=TURNED),
        "large.bmp": encode_image(pixels, "bmp"),
    }.items():
        (folder / name).write_bytes(content)
    return [*PHOTOGRAPHS, *sorted(folder.iterdir())]


@pytest.mark.parametrize("kind", ["model folder", "exported file"])
def test_boxes_of_server_predict_and_load_are_the_same_bits(tmp_path, files, kind):
    if kind == "model folder":
        model = save_model_folder(make_detector(), tmp_path / "model")
    else:
        model = write_tiny_file(tmp_path / "model.stablehlo")
        files = files[2:4]  # which runs more slowly
    loaded = ssd_jax.load(model)
    with open_client(loaded) as client:
        answers = [client.post("/detect?score=0.02", content=file.read_bytes()).json() for file in files]
        form = client.post("/detect?score=0.02", files=[("file", (f.name, f.read_bytes())) for f in files]).json()
    assert [list_answers(answer) for answer in form["images"]] == [list_answers(answer) for answer in answers]
    assert [entry["name"] for entry in form["images"]] == [file.name for file in files]
    assert run_command("predict", model, *files, "--score", "0.02", "--save", "json", "--out", tmp_path / "out") == 0
    predicted = json.loads((tmp_path / "out" / "predictions.json").read_text(encoding="utf-8"))["images"]
    for file, answer, prediction in zip(files, answers, predicted, strict=True):
        found = loaded(file, score_threshold=0.02)
        assert len(found) > 3 and list_answers(answer) == [tuple(detection) for detection in found]
        assert (answer["width"], answer["height"]) == (prediction["width"], prediction["height"])
        assert [tuple(row["box"]) for row in prediction["detections"]] == [row[2] for row in list_answers(answer)]


def test_answer_states_classes_time_and_notes(client, detector):
    answer = client.post("/detect?score=0", content=IMAGE).json()
    assert (answer["width"], answer["height"], answer["notes"]) == (40, 50, [])
    assert answer["milliseconds"] > 0 and "name" not in answer
    classes = {(row["class_index"], row["class_name"]) for row in answer["detections"]}
    assert classes == {(0, "a"), (1, "b")}
    whole = encode_image(np.tile(PIXELS, (4, 4, 1)), "jpeg")
    assert "end marker" in client.post("/detect", content=whole[:-2]).json()["notes"][0]


@pytest.mark.parametrize("content_type", ["image/png", "application/x-www-form-urlencoded", "text/plain", "", "???"])
def test_content_type_of_an_image_does_not_matter(client, content_type):
    assert client.post("/detect", content=IMAGE, headers={"Content-Type": content_type}).status_code == 200


def test_parameters_select_detections(client):
    everything = client.post("/detect?score=0", content=IMAGE).json()["detections"]
    scores = [row["score"] for row in everything]
    assert scores == sorted(scores, reverse=True) and len(everything) > 5
    middle = scores[len(scores) // 2]

    def ask(query: str) -> list[Any]:
        return client.post(f"/detect?{query}", content=IMAGE).json()["detections"]

    assert ask(f"score={middle}") == [row for row in everything if row["score"] >= middle]
    assert ask("score=0&classes=b") == [row for row in everything if row["class_name"] == "b"]
    assert ask("score=0&classes=b,a") == ask("score=0&classes=b&classes=a") == everything
    assert ask("score=0&max_detections=2") == everything[:2]
    assert ask("") == [row for row in everything if row["score"] >= 0.5]


def test_name_of_a_class_may_contain_a_comma(detector):
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, class_names=("a, b", "c")))
    with open_client(Detector(config, detector._detect, 0, batching="single")) as client:
        rows = client.post("/detect?score=0&classes=a,+b", content=IMAGE).json()["detections"]
    assert {row["class_name"] for row in rows} == {"a, b"}


# ---- errors ----


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("scores=0.3", "scores"),
        ("score=high", "high"),
        ("score=nan", "score"),
        ("score=-0.1", "score"),
        ("classes=zebra", "zebra"),
        ("classes=", "class"),
        ("max_detections=0", "max_detections"),
        ("max_detections=2.5", "max_detections"),
        ("max_detections=" + "9" * 5000, "max_detections"),
    ],
)
def test_wrong_parameters_are_named(client, query, word):
    response = client.post(f"/detect?{query}", content=IMAGE)
    assert response.status_code == 422 and word in response.json()["detail"]


BROKEN = {
    "empty": b"",
    "text": b"hello",
    "cut": encode_image(np.tile(PIXELS, (3, 3, 1)))[:5000],
    "script": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "pointer": b"version https://git-lfs.github.com/spec/v1\n",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_files_get_422_with_one_line(client, content):
    response = client.post("/detect", content=content)
    assert response.status_code == 422
    detail = response.json()["detail"]
    assert detail and "\n" not in detail and "Copy" not in detail


@pytest.mark.parametrize("side", [1001, 9000, 15_000])
def test_images_of_too_many_pixels_get_413(client, side):
    response = client.post("/detect", content=make_bomb(side))
    assert response.status_code == 413 and "limit of 1000000" in response.json()["detail"]


@pytest.mark.parametrize("is_declared", [True, False])
def test_large_bodies_get_413(client, is_declared):
    content = IMAGE + bytes(LIMITS.body_bytes)
    response = client.post("/detect", content=content if is_declared else iter([content[:9000], content[9000:]]))
    assert response.status_code == 413 and "30000 bytes" in response.json()["detail"]


def test_client_that_first_sends_everything_reads_413(detector):
    app, _ = make_app(detector, "tiny", limits=LIMITS)
    with serve_in_thread(app) as port, contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("POST", "/detect", bytes(20_000_000))
        response = connection.getresponse()
        assert response.status == 413 and response.read()
        connection.request("POST", "/detect?score=0", IMAGE)
        assert json.load(connection.getresponse())["detections"]


def test_compressed_bodies_get_415(client):
    assert client.post("/detect", content=IMAGE, headers={"Content-Encoding": "gzip"}).status_code == 415


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/detect", 405), ("PUT", "/", 405), ("GET", "/x", 404)])
def test_other_methods_and_paths_get_json_errors(client, method, path, status):
    response = client.request(method, path)
    assert response.status_code == status and response.json()["detail"]


# ---- forms ----


def post_form(client: TestClient, *contents: bytes, **options: Any) -> Any:
    """Send a form of files."""
    return client.post("/detect?score=0", files=[("file", (f"{i}.png", c)) for i, c in enumerate(contents)], **options)


def test_broken_files_of_a_form_do_not_harm_the_others(client):
    alone = client.post("/detect?score=0", content=IMAGE).json()["detections"]
    response = post_form(client, BROKEN["text"], IMAGE, make_bomb(1200))
    assert response.status_code == 200
    first, second, third = response.json()["images"]
    assert second["detections"] == alone and second["name"] == "1.png"
    assert (first["status"], third["status"]) == (422, 413) and first["error"] and third["error"]


def test_form_of_broken_files_gets_the_status_of_the_first(client):
    response = post_form(client, make_bomb(1200), BROKEN["text"])
    assert response.status_code == 413
    assert response.json()["detail"] == response.json()["images"][0]["error"]


def make_form(*parts: tuple[str, bytes], end: bytes = b"--x--\r\n") -> bytes:
    """Return a form with the boundary x, from the value of Content-Disposition and the content of each part."""
    return b"".join(b"--x\r\nContent-Disposition: %s\r\n\r\n%s\r\n" % (h.encode(), c) for h, c in parts) + end


FILE = 'form-data; name="f"; filename="a.png"'
FORMS = {
    "no boundary": ("multipart/form-data", b"hello", 422, "boundary"),
    "other boundary": ("multipart/form-data; boundary=y", make_form((FILE, IMAGE)), 422, "form"),
    "not a form": ("multipart/form-data; boundary=x", IMAGE, 422, "form"),
    "cut": ("multipart/form-data; boundary=x", make_form((FILE, IMAGE), end=b""), 422, "last boundary"),
    "no files": ("multipart/form-data; boundary=x", b"--x--\r\n", 422, "form"),
    "field": ("multipart/form-data; boundary=x", make_form(('form-data; name="score"', b"0.3")), 422, "score"),
    "too many": ("Multipart/Form-Data; boundary=x", make_form(*[(FILE, IMAGE[:99])] * 4), 413, "3"),
}


@pytest.mark.parametrize(("content_type", "body", "status", "word"), FORMS.values(), ids=FORMS)
def test_wrong_forms_are_refused(client, content_type, body, status, word):
    response = client.post("/detect", content=body, headers={"Content-Type": content_type})
    assert response.status_code == status and word in response.json()["detail"]


def test_names_of_files_are_only_repeated(client, monkeypatch):
    opened = []
    monkeypatch.setattr("builtins.open", lambda *arguments, **_: opened.append(arguments))
    monkeypatch.setattr("os.stat", lambda *arguments, **_: opened.append(arguments))
    names = ["../../../etc/passwd", "/etc/passwd", "version", "a\u202e.png"]
    responses = [client.post("/detect", files=[("f", (name, content))]) for name in names for content in (IMAGE, b"x")]
    responses += [client.get(path) for path in ("/../etc/passwd", "/%2e%2e/x", "//etc/x", "/static/", "/page.css/")]
    monkeypatch.undo()
    assert opened == []
    assert [response.status_code for response in responses] == [200, 422] * 4 + [404] * 5
    assert [response.json()["images"][0]["name"] for response in responses[:8:2]] == names


# ---- many requests ----


class BlockedDetect:
    """A function of a detector that waits until it is released."""

    def __init__(self, detector: Detector) -> None:
        self.release, self.started, self.sizes = threading.Event(), threading.Event(), []
        self._detect = detector._detect

    def __call__(self, canvas, height, width):
        self.sizes.append(len(canvas))
        self.started.set()
        assert self.release.wait(20)
        return self._detect(canvas, height, width)


def test_health_is_ready_after_the_network_is_compiled(detector):
    blocked = BlockedDetect(detector)
    with open_client(Detector(CONFIG, blocked, 0, batching="any")) as client:
        early = client.get("/health")
        blocked.release.set()
        assert client.post("/detect", content=IMAGE).status_code == 200
        late = client.get("/health")
    assert (early.status_code, early.json()) == (503, {"status": "starting"})
    assert (late.status_code, late.json()) == (200, {"status": "ready"})


def test_requests_are_batched_and_further_ones_get_503(detector):
    blocked = BlockedDetect(detector)
    limits = dataclasses.replace(LIMITS, waiting=5)
    expected = [detector(PIXELS[i:], score_threshold=0.1) for i in range(5)]
    stacked = Detector(CONFIG, blocked, 0, batching="any")
    with (
        open_client(stacked, limits, batching=Batching(batch=5, wait_ms=300)) as client,
        ThreadPoolExecutor(5) as threads,
    ):
        assert blocked.started.wait(20)
        answers = threads.map(
            lambda i: client.post("/detect?score=0.1", content=encode_image(PIXELS[i:])).json(), range(5)
        )
        while client.service.waiting < 5:
            pass
        refused = client.post("/detect", content=IMAGE)
        waiting = client.get("/metrics").text
        blocked.release.set()
        for answer, found in zip(answers, expected, strict=True):
            assert [row[0] for row in list_answers(answer)] == [row.name for row in found]
            # In a batch, XLA adds in another order.
            np.testing.assert_allclose([row[2] for row in list_answers(answer)], [row.box for row in found], atol=1e-3)
        metrics = client.get("/metrics").text
        assert client.post("/detect", content=IMAGE).status_code == 200
    assert refused.status_code == 503 and refused.headers["retry-after"] == "1" and refused.json()["detail"]
    assert max(blocked.sizes) > 1 and sum(blocked.sizes) == 7, "with the compilation, and the last image"
    assert "ssd_jax_waiting_images 5.0" in waiting and "ssd_jax_waiting_images 0.0" in metrics
    assert 'ssd_jax_requests_total{path="/detect",status="200"} 5.0' in metrics
    assert 'ssd_jax_requests_total{path="/detect",status="503"} 1.0' in metrics
    assert f"ssd_jax_batch_images_count {len(blocked.sizes) - 2:.1f}" in metrics
    assert "ssd_jax_batch_images_sum 5.0" in metrics
    assert "ssd_jax_request_seconds_count 6.0" in metrics


def test_large_images_do_not_keep_small_ones_waiting(detector, monkeypatch):
    monkeypatch.setattr(images, "LARGE_PIXELS", 2000)
    trims: list[int] = []
    monkeypatch.setattr(images, "return_free_memory", lambda: trims.append(1))
    started, release = threading.Event(), threading.Event()
    decode = Detector.decode

    def decode_slowly(self, data, name):
        if len(data) > len(IMAGE):
            started.set()
            assert release.wait(5)
        return decode(self, data, name)

    monkeypatch.setattr(Detector, "decode", decode_slowly)
    large = encode_image(np.tile(PIXELS, (2, 2, 1)))
    with open_client(detector) as client, ThreadPoolExecutor(8) as threads:
        slow = [threads.submit(client.post, "/detect", content=large) for _ in range(8)]
        assert started.wait(5)
        assert client.post("/detect", content=IMAGE).status_code == 200
        release.set()
        assert [future.result().status_code for future in slow] == [200] * 8
    assert len(trims) == 8, "after each large image"


def test_failure_of_the_network_is_one_answer_with_500(detector):
    is_broken = False

    def detect(*batch):
        if is_broken:
            raise RuntimeError("secret")
        return detector._detect(*batch)

    with open_client(Detector(CONFIG, detect, 0, batching="single")) as client:
        assert client.post("/detect", content=IMAGE).status_code == 200
        is_broken = True
        failed = client.post("/detect", content=IMAGE)
        is_broken = False
        assert client.post("/detect", content=IMAGE).status_code == 200
    assert failed.status_code == 500 and "secret" not in failed.text and failed.json()["detail"]


def test_failed_compilation_stops_the_server():
    def detect(*batch):
        raise RuntimeError("no memory")

    stopped = threading.Event()
    app, service = make_app(Detector(CONFIG, detect, 0, batching="single"), "tiny", stop=stopped.set)
    with TestClient(app) as client:
        assert stopped.wait(20)
        assert client.get("/health").status_code == 503
    assert "no memory" in str(service.failure)


# ---- what is said about the server ----


class LinkParser(html.parser.HTMLParser):
    """Collect the tags of a page, and its attributes that name addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses += [value for name, value in attrs if name in ("href", "src")]


def test_page_and_its_files_are_served(client):
    response = client.get("/")
    parser = LinkParser()
    parser.feed(response.text)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy and "frame-ancestors 'none'" in policy
    kinds = {
        address: client.get(f"/{address}").headers["content-type"].partition(";")[0] for address in parser.addresses
    }
    assert kinds.items() >= {"main.js": "text/javascript", "page.css": "text/css", "icon.svg": "image/svg+xml"}.items()
    config = client.get("/config.json").json()
    assert (config["backend"], config["name"], config["class_names"]) == ("server", "tiny", ["a", "b"])
    assert len(client.post(f"/{config['detect_url']}", content=IMAGE).json()["detections"]) > 5


def test_api_page_loads_only_files_of_the_server(client):
    response = client.get("/docs")
    parser = LinkParser()
    parser.feed(response.text)
    assert "script" not in parser.tags and "style" not in parser.tags | parser.attributes
    assert [client.get(f"/{address}").status_code for address in parser.addresses] == [200] * len(parser.addresses)
    assert "unsafe" not in client.get("/docs").headers["content-security-policy"]
    for text in ("/detect", "max_detections", "x_min", "503"):
        assert text in response.text


def test_openapi_describes_the_answers(client):
    document = client.get("/openapi.json").json()

    def check(answer: Any, path: str, status: str, method: str = "get") -> None:
        content = document["paths"][path][method]["responses"][status]["content"]["application/json"]
        jsonschema.Draft202012Validator({**content["schema"], "components": document["components"]}).validate(answer)

    check(client.post("/detect?score=0", content=IMAGE).json(), "/detect", "200", "post")
    check(post_form(client, IMAGE, b"x").json(), "/detect", "200", "post")
    check(client.post("/detect", content=b"x").json(), "/detect", "422", "post")
    check(client.get("/model").json(), "/model", "200")
    check(client.get("/health").json(), "/health", "200")
    with pytest.raises(jsonschema.ValidationError):
        check({"width": 3}, "/detect", "200", "post")
    assert set(document["paths"]) == {"/detect", "/model", "/health", "/metrics", "/openapi.json"}
    assert all(client.get(path).status_code == 200 for path in document["paths"] if path != "/detect")


def test_model_describes_the_detector(client, detector):
    assert client.get("/model").json() == {
        "name": "tiny", "config": "tiny", "step": 0, "class_names": ["a", "b"], "image_size": 32, "max_image_size": 64,
        "score_threshold": detector.config.detect.score_threshold, "max_detections": 200,
    }  # fmt: skip
