"""Tests of the page of ``ssd-jax watch`` in a browser, on runs that change while they are shown."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from helpers.browser import Page, run_browser
from helpers.http_servers import serve_in_thread
from helpers.run_folders import make_finished_run, make_log_line, make_run
from PIL import Image

from ssd_jax.serving.protection import protect
from ssd_jax.watching.app import make_watch_app
from ssd_jax.watching.watcher import Watcher

DASH = "\N{EN DASH}"
HOSTILE = "<b onmouseover=alert(1)>&amp;"


class Shown(NamedTuple):
    """A page that shows the runs ``done``, ``going`` and one with a hostile name."""

    page: Page
    runs: Path
    url: str


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    runs = tmp_path_factory.mktemp("runs")
    done = make_finished_run(runs / "done")
    Image.new("RGB", (40, 30), "red").save(done / "val_pred.jpg")
    (done / "report.html").write_text("<!DOCTYPE html><style>p { color: rgb(1, 2, 3) }</style><p>the report</p>")
    make_run(runs / "going", logged=4, seed=1)
    (make_run(runs / HOSTILE) / "config.json").write_text("{")
    app = protect(make_watch_app(Watcher(runs)), "127.0.0.1")
    with run_browser() as page, serve_in_thread(app) as port:
        page.set_size(1200, 900)
        url = f"http://127.0.0.1:{port}/"
        page.open(url)
        page.wait_for("document.querySelectorAll('#charts path.run').length > 3")
        yield Shown(page, runs, url)
        assert [url for url in page.requests if not url.startswith((f"http://127.0.0.1:{port}/", "data:"))] == []
        assert page.problems == []


def read_values(page: Page, title: str) -> list[list[str]]:
    """Return the names and the values below the chart with a title."""
    return page.evaluate(
        f"""[...document.querySelectorAll('figure')].filter(f => f.querySelector('b')?.textContent === {title!r})
        .flatMap(f => [...f.querySelectorAll('li')].map(
            li => [li.querySelector('.name').textContent, li.querySelector('b').textContent]))"""
    )


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key)


def test_page_shows_the_state_of_all_runs(shown: Shown):
    rows = shown.page.evaluate("[...document.querySelectorAll('#runs tr')].map(row => row.innerText)")
    assert len(rows) == 3
    texts = {name: next(row for row in rows if name in row) for name in ("done", "going", HOSTILE)}
    assert all(word in texts["done"] for word in ("finished", "100 / 100", "0.750", "0.500", "test: 0.625", "50 s"))
    assert all(word in texts["going"] for word in ("stopped", "40 / 100", "2.5"))
    assert "broken" in texts[HOSTILE] and "config.json" in texts[HOSTILE]


def test_curves_have_a_line_for_each_run_and_differ_without_color(shown: Shown):
    assert dict(read_values(shown.page, "loss")) == {"done": "1", "going": "2.5", HOSTILE: "1"}
    assert read_values(shown.page, "mAP (VOC, area) on val") == [["done", "0.5"]]
    lines = "[...document.querySelectorAll('#charts figure:first-child path.run')]"
    dashes = shown.page.evaluate(f"{lines}.map(line => line.getAttribute('stroke-dasharray'))")
    assert len(set(dashes)) >= 3


def test_arrow_keys_move_the_cursor_of_a_chart(shown: Shown):
    shown.page.evaluate("document.querySelector('svg.chart').focus()")
    press(shown.page, "Home")
    assert dict(read_values(shown.page, "loss")) == {"done": "10", "going": "10", HOSTILE: "10"}
    press(shown.page, "ArrowRight")
    assert dict(read_values(shown.page, "loss"))["done"] == "5"
    assert shown.page.evaluate("document.querySelector('figcaption span').textContent") == "step 20"
    press(shown.page, "End")
    assert dict(read_values(shown.page, "loss")) == {"done": "1", "going": DASH, HOSTILE: "1"}, (
        "going has not got there"
    )
    press(shown.page, "Escape")
    assert dict(read_values(shown.page, "loss"))["going"] == "2.5"


def test_page_follows_a_training_without_being_loaded_again(shown: Shown):
    with (shown.runs / "going" / "log.jsonl").open("a") as file:
        file.write(make_log_line(50, 0.625))
    shown.page.wait_for("document.querySelector('#runs').innerText.includes('50 / 100')")
    shown.page.wait_for("document.querySelector('.values').innerText.includes('0.625')")
    known = [url for url in shown.page.requests if "/curves?" in url][-1]
    assert "train=0.4" in known, "only new points are asked for"
    lines = "[...document.querySelectorAll('#charts figure:first-child path.run')]"
    assert 5 in shown.page.evaluate(f"{lines}.map(line => line.getAttribute('d').split('L').length)")


def test_smoothing_and_logarithmic_scale_change_the_curves(shown: Shown):
    page = shown.page
    path = "document.querySelector('#charts figure path.run').getAttribute('d')"
    before = page.evaluate(path)
    page.evaluate("document.querySelector('#log').click()")
    logarithmic = page.evaluate(path)
    page.evaluate("document.querySelector('#log').click()")
    assert page.evaluate(path) == before != logarithmic
    page.evaluate("s = document.querySelector('#smoothing'); s.value = 0.5; s.dispatchEvent(new Event('input'))")
    assert all("(" in value for _, value in read_values(page, "loss"))
    assert page.evaluate("document.querySelectorAll('#charts path.raw').length") > 0
    page.evaluate("s.value = 0; s.dispatchEvent(new Event('input'))")
    assert page.evaluate(path) == before


def test_ticks_choose_the_runs_of_curves_pictures_and_differences(shown: Shown):
    page = shown.page
    page.evaluate("document.querySelector('#choose-none').click()")
    assert page.evaluate("document.querySelectorAll('#charts path.run').length") == 0
    for name in ("done", "going"):
        label = f"[...document.querySelectorAll('#runs label')].find(label => label.textContent === {name!r})"
        page.evaluate(f"{label}.click()")
    page.wait_for("document.querySelectorAll('#differences thead th').length === 3")
    rows = page.evaluate(
        "[...document.querySelectorAll('#differences tbody tr')].map(row => row.innerText.split('\\t'))"
    )
    assert rows == [["train.seed", "0", "1"]]
    assert dict(read_values(page, "loss")).keys() == {"done", "going"}
    assert page.wait_for("document.querySelector('#pictures img').naturalWidth") == 40
    assert "There is no such picture" in page.evaluate("document.querySelector('#pictures').innerText")


@pytest.mark.parametrize("width", [390, 1200])
def test_page_is_not_wider_than_the_window(shown: Shown, width: int):
    shown.page.set_size(width, 800, mobile=width < 400)
    shown.page.wait_for(f"innerWidth === {width}")
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= width


def test_functions_of_scales_equal_slow_ones(shown: Shown):
    def call(expression: str) -> object:
        return shown.page.evaluate(f"import('{shown.url}scales.js').then(m => {expression})")

    rng = random.Random(0)
    values = [rng.choice([None, rng.random()]) for _ in range(30)]
    present = [value for value in values if value is not None]
    expected, count = [], 0
    for value in values:
        count += value is not None
        weights = 0.8 ** np.arange(count - 1, -1, -1)
        expected.append(None if value is None else float(weights @ present[:count] / weights.sum()))
    smoothed = call(f"m.smooth({json.dumps(values)}, 0.8)")
    assert [x is None for x in smoothed] == [x is None for x in expected]
    np.testing.assert_allclose([x for x in smoothed if x is not None], [x for x in expected if x is not None])
    steps = sorted(rng.sample(range(1000), 40))
    for target in (-5, 0, 333.3, 500, 2000):
        index = call(f"m.findNearest({steps}, {target})")
        assert abs(steps[index] - target) == min(abs(step - target) for step in steps)
    assert call("m.findNearest([], 1)") == -1
    assert call("m.makeTicks(0, 1, 5)") == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert call("m.makeTicks(0.13, 0.42, 3)") == [0.2, 0.3, 0.4]
    assert call("m.makeTicks(0, 123456, 4)") == [0, 50000, 100000]
    assert call("m.makeLogTicks(0.02, 300)") == [0.1, 1, 10, 100]
    assert call("m.findRange([null, 3, 4], false)") == pytest.approx([2.95, 4.05])
    assert call("m.findRange([null, 0.5, 4], false)")[0] == 0
    assert call("m.findRange([0, -1], true)") is None


def test_report_page_is_shown_with_its_style_and_without_rights(shown: Shown):
    page = shown.page
    address = page.evaluate("document.querySelector('#runs a').href")
    page.open(address)
    page.wait_for("document.body?.innerText === 'the report'")
    assert page.evaluate("getComputedStyle(document.querySelector('p')).color") == "rgb(1, 2, 3)"
    assert page.evaluate("origin") == "null"
    page.open(shown.url)


def test_page_says_what_to_do_about_an_empty_folder_and_a_stopped_server(shown: Shown, tmp_path: Path):
    page = shown.page
    folder = tmp_path / "empty"
    folder.mkdir()
    with serve_in_thread(protect(make_watch_app(Watcher(folder)), "127.0.0.1")) as port:
        page.requests.clear()
        page.open(f"http://127.0.0.1:{port}/")
        page.wait_for("document.querySelector('#empty-command').innerText.includes('ssd-jax train')")
        assert str(folder) in page.evaluate("document.querySelector('#empty').innerText")
        assert page.evaluate("document.querySelector('#content').hidden")
    page.wait_for("!document.querySelector('#connection').hidden")
    assert "ssd-jax watch" in page.evaluate("document.querySelector('#connection').innerText")
    page.requests.clear()
    page.problems.clear()  # the browser logs that the server did not answer
