"""Files of the page, and the config that it reads when it starts."""

import contextlib
import importlib.resources
import json
from pathlib import Path
from typing import Literal

import msgspec

import ssd_jax
from ssd_jax.drawing.boxes import class_colours
from ssd_jax.errors import UserError
from ssd_jax.files import convert_read_errors
from ssd_jax.report.template import read_stylesheet

CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",  # the second allows WebAssembly, not eval
        "worker-src 'self'",
        "connect-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
)
"""Policy of the page: no request to elsewhere, and no script or style inside of the HTML. It is in the page itself, and
a server may send it as a header, too."""
CONFIG_NAME = "config.json"
"""Name of the config beside the page."""
Backend = Literal["onnx", "server"]


class PageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the page has to know about a detector."""

    page: Literal["ssd-jax"] = "ssd-jax"
    """Mark by which the folder of a page is recognized."""
    backend: Backend
    """onnx: the browser runs the ONNX file ``model``. server: pictures are sent to ``detect_url``."""
    name: str
    """Name of the detector."""
    class_names: tuple[str, ...]
    """Names of the classes in the order of their indices from 0."""
    score_threshold: float
    """Score below which the detector returns nothing."""
    license: str = ""
    """License of the detector. Empty if it is not known."""
    about: str = ""
    """Sentence about the detector. Empty for none."""
    model: str = ""
    """ONNX file, relative to the page. Only for the backend onnx."""
    max_image_size: int = 0
    """Longest side in pixels to which pictures are reduced. Only for the backend onnx."""
    detect_url: str = ""
    """Address that a picture is sent to by POST, relative to the page. Only for the backend server."""


def encode_page_config(config: PageConfig) -> bytes:
    """Return a config as the JSON that the page reads. It also contains the colors of the classes, as in pictures that
    ``predict`` draws, and the version of this package."""
    by_name = class_colours(config.class_names)
    colors = ["#{:02x}{:02x}{:02x}".format(*by_name[name]) for name in config.class_names]
    extra = {"colors": colors, "writer": f"ssd-jax {ssd_jax.__version__}"}
    return json.dumps(msgspec.to_builtins(config) | extra, indent=1).encode()


def check_page_folder(folder: Path) -> None:
    """Raise an error if a folder has other content than a page, which would be mixed with the files of a page.

    Raises:
        UserError: If the folder is a file, or has files, but not the config of a page.
    """
    with convert_read_errors(folder):
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
        if not folder.is_dir():
            raise UserError(f"{folder}: this is a file. Name a folder for the page")
        config = folder / CONFIG_NAME
        content = config.read_bytes() if config.is_file() else b""
    with contextlib.suppress(msgspec.MsgspecError):
        msgspec.json.decode(content, type=PageConfig)
        return
    raise UserError(f"{folder}: the folder has files that are not those of a page. Name another folder")


def read_page_files() -> dict[str, bytes]:
    """Return the content of the files of the page by their names, without the config and the ONNX file."""
    folder = importlib.resources.files("ssd_jax.web_page") / "files"
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    files["index.html"] = files["index.html"].replace(b"{{ policy }}", CONTENT_SECURITY_POLICY.encode())
    files["page.css"] = read_stylesheet().encode()
    return files
