"""Tests of the files and the config of the page with a detector."""

import json
import re
from pathlib import Path

import pytest
from helpers.pages import PageParser

from ssd_jax.drawing.boxes import PALETTE
from ssd_jax.errors import UserError
from ssd_jax.web_page.page import (
    CONTENT_SECURITY_POLICY,
    PageConfig,
    check_page_folder,
    encode_page_config,
    read_page_files,
)

CONFIG = PageConfig(backend="server", name="cells", class_names=("a", "b"), score_threshold=0.01, detect_url="detect")


def test_page_has_its_policy_and_no_script_or_style_of_its_own():
    page = read_page_files()["index.html"].decode()
    elements = PageParser(page.replace("<link ", "<meta ").replace("<input ", "<meta ")).elements
    policies = [a["content"] for name, a in elements if name == "meta" and a.get("http-equiv")]
    assert policies == [CONTENT_SECURITY_POLICY]
    assert "unsafe-inline" not in page and "unsafe-eval" not in CONTENT_SECURITY_POLICY.replace(
        "'wasm-unsafe-eval'", ""
    )
    assert not [a for _, a in elements if "style" in a or any(name.startswith("on") for name in a)]
    assert [a["src"] for name, a in elements if name == "script"] == ["main.js"]


def test_all_files_that_the_page_names_are_there():
    files = read_page_files()
    text = {name: content.decode() for name, content in files.items()}
    named = set(re.findall(r'(?:src|href)="([^"]+)"', text["index.html"]))
    for content in text.values():
        named |= set(re.findall(r'from "\./([^"]+)"', content))
        named |= set(re.findall(r'new URL\("([^"]+)"', content))
        assert not re.search(r"https?://(?!localhost|www\.w3\.org)", content), "nothing is loaded from elsewhere"
    # The last two are those of onnxruntime-web, which only an exported page has.
    assert named - set(files) == {"onnxruntime.js", "ort-wasm-simd-threaded.wasm"}
    assert "--paper" in text["page.css"], "the stylesheet of the report"


def test_config_has_the_colors_that_predict_draws_with():
    content = json.loads(encode_page_config(CONFIG))
    assert content["colors"] == ["#{:02x}{:02x}{:02x}".format(*color) for color in PALETTE[:2]]
    assert (content["backend"], content["class_names"], content["detect_url"]) == ("server", ["a", "b"], "detect")


def test_page_is_not_written_into_a_folder_with_other_files(tmp_path: Path):
    check_page_folder(tmp_path / "new")
    check_page_folder(tmp_path)
    (tmp_path / "config.json").write_bytes(encode_page_config(CONFIG))
    (tmp_path / "index.html").touch()
    check_page_folder(tmp_path)
    for content in ("{}", '{"page": "other"}', "no json"):
        (tmp_path / "config.json").write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match="Name another folder"):
            check_page_folder(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        check_page_folder(tmp_path / "index.html")
