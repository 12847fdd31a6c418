"""Helpers of the tests of HTML pages: a parser, and a source of images for them."""

import html.parser

import numpy as np

from ssd_jax.data.source import FolderSource
from ssd_jax.errors import UserError


class GreyImages(FolderSource):
    """Source of uniform grey images of 100 x 80 px. If there are several images, the last one cannot be read."""

    def image(self, index: int) -> np.ndarray:
        if index == len(self) - 1 > 0:
            raise UserError("cut short")
        return np.full((80, 100, 3), 128, np.uint8)


class PageParser(html.parser.HTMLParser):
    """Parser that collects the text and the elements of a page, and raises an error at a wrong end tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(page)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes {self.open}"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())
