"""Headless Chromium, driven by its debugging protocol over two pipes, which needs no further package.

The protocol is described at chromedevtools.github.io/devtools-protocol.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # the pages are our own, and containers often have no user namespaces
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--remote-debugging-pipe",
)


class BrowserError(Exception):
    """Raised if the browser answers with an error, or not in time."""


class Page:
    """A page of a running browser.

    Attributes:
        requests: Addresses of all requests of the page so far, except those of its workers.
        problems: Texts of errors on its console, uncaught exceptions and violations of its policy.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to_browser, self._from_browser = to_browser, from_browser
        self._buffer, self._last_id, self._session = b"", 0, None
        self._answers: dict[int, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.problems: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, timeout_s: float = 30, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to_browser, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + timeout_s
        while self._last_id not in self._answers:
            self._read_messages(end, method)
        answer = self._answers.pop(self._last_id)
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, url: str) -> None:
        """Load a page, and wait until it is loaded."""
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, expression: str, timeout_s: float = 30) -> Any:
        """Return the value of an expression of JavaScript in the page. A promise is awaited."""
        result = self.call(
            "Runtime.evaluate",
            timeout_s,
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in result:
            raise BrowserError(result["exceptionDetails"]["exception"].get("description", str(result)))
        return result["result"].get("value")

    def wait_for(self, expression: str, timeout_s: float = 30) -> Any:
        """Wait until an expression is true in the page, and return its value."""
        end = time.monotonic() + timeout_s
        while not (value := self.evaluate(expression)):
            if time.monotonic() > end:
                raise BrowserError(f"not true after {timeout_s} s: {expression}; {self.problems}")
            time.sleep(0.02)
        return value

    def choose_file(self, selector: str, *files: Path) -> None:
        """Choose files in a file input, as a person would."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def set_size(self, width: int, height: int, *, scale: float = 1, mobile: bool = False, dark: bool = False) -> None:
        """Set the size of the window in CSS pixels, and whether the person prefers a dark page."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, file: Path, *, full_page: bool = False) -> None:
        """Write a picture of the window, or of the whole page, as a PNG file."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full_page)["data"]
        file.write_bytes(base64.b64decode(data))

    def _read_messages(self, end: float, method: str) -> None:
        ready, _, _ = select.select([self._from_browser], [], [], max(0.0, end - time.monotonic()))
        part = os.read(self._from_browser, 1 << 20) if ready else b""
        if not part:
            raise BrowserError(f"{method}: the browser {'has ended' if ready else 'does not answer'}")
        *messages, self._buffer = (self._buffer + part).split(b"\0")
        for text in messages:
            message = json.loads(text)
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._note_event(message["method"], message["params"])

    def _note_event(self, method: str, parameters: Mapping[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"):
            self.problems.append(str([argument.get("value", argument) for argument in parameters["args"]]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.problems.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")


@contextmanager
def run_browser(*options: str) -> Iterator[Page]:
    """Run headless Chromium during the ``with`` block. The test is skipped if there is none on this machine."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"needs Chromium: none of {', '.join(NAMES)} is installed")
    if os.name != "posix":
        pytest.skip("the pipes to the browser need a POSIX system")
    to_browser, from_browser = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(prefix="ssd_jax_browser_", ignore_cleanup_errors=True) as profile:
        # The browser reads from file descriptor 3 and writes to 4.
        script = f'exec "$0" "$@" 3<&{to_browser[0]} 4>&{from_browser[1]}'
        command = ["bash", "-c", script, program, *_OPTIONS, f"--user-data-dir={profile}", *options, "about:blank"]
        process = subprocess.Popen(
            command, pass_fds=(to_browser[0], from_browser[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_browser[0])
        os.close(from_browser[1])
        try:
            yield Page(to_browser[1], from_browser[0])
        finally:
            os.close(to_browser[1])  # the browser ends when its pipe is closed
            os.close(from_browser[0])
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
