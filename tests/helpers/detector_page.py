"""Use the page with a detector in a browser, as a person would."""

import json
import time
from pathlib import Path
from typing import Any

from helpers.browser import BrowserError, Page

IS_READY = "document.documentElement.dataset.state === 'ready'"


def open_detector_page(page: Page, url: str) -> None:
    """Open the page, and wait until the detector is loaded or a message is shown."""
    page.open(url)
    page.wait_for(f"{IS_READY} || !document.getElementById('message').hidden")


def show_picture(page: Page, file: Path) -> str:
    """Choose a picture, and return what the page says about it: its status, or its message of an error."""
    start_waiting(page)
    page.choose_file("#file", file)
    return wait_for_result(page)


def start_waiting(page: Page) -> None:
    page.evaluate("document.getElementById('status').textContent = 'waiting …'; message.hidden = true")


def wait_for_result(page: Page) -> str:
    """Return what the page says about a picture, after waiting for it."""
    return page.wait_for("message.hidden ? !document.getElementById('status').textContent.endsWith('…') && "
                         "document.getElementById('status').textContent : message.textContent")  # fmt: skip


def set_lowest_score(page: Page, score: float) -> None:
    """Move the slider as far as it goes towards a score."""
    page.evaluate(f"score.value = {score}; score.dispatchEvent(new Event('input'))")


def save_detections(page: Page, folder: Path) -> dict[str, Any]:
    """Press the button that saves the detections, and return the content of the file."""
    before = set(folder.glob("*.json"))
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    page.evaluate("save.click()")
    end = time.monotonic() + 10
    while time.monotonic() < end:
        for file in set(folder.glob("*.json")) - before:
            return json.loads(file.read_text(encoding="utf-8")) | {"file": file.name}
        time.sleep(0.01)
    raise BrowserError("no file was saved")
