"""Templates of HTML pages. They escape the names of classes, images and runs in all values.

A page contains its style and its images, and runs no script.
"""

import base64
import functools
import importlib.resources
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from ssd_jax import __version__
from ssd_jax.errors import escape_text
from ssd_jax.runtime.task import format_duration


def render_page(template: str, context: Mapping[str, Any]) -> str:
    """Return the page as HTML.

    The text is ASCII with character references, so that it is read correctly whatever encoding a browser assumes.

    Args:
        template: File of the template in this package.
        context: Variables of the template. ``css`` and ``version`` are added.
    """
    common = {"css": read_stylesheet(), "version": __version__}
    page = _make_environment().get_template(template).render({**common, **context})
    return page.encode("ascii", "xmlcharrefreplace").decode("ascii")


def read_stylesheet() -> str:
    """Return the stylesheet of the report, which other pages share."""
    return _read_resource("page.css")


@functools.cache
def _make_environment() -> jinja2.Environment:
    """Return the template environment: strict, with markup and control characters escaped in all values."""
    loader = jinja2.FunctionLoader(_read_resource)
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        finalize=_escape_if_text,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _format_number,
        "listing": _format_listing,
        "count": _format_count,
        "data_uri": _make_data_uri,
        "duration": format_duration,
    }
    return environment


def _escape_if_text(value: object) -> object:
    """Return a value of the template with `escape_text` applied to texts. Markup stays as it is."""
    return escape_text(value) if type(value) is str else value


def _read_resource(name: str) -> str:
    return importlib.resources.files("ssd_jax.report").joinpath(name).read_text(encoding="utf-8")


# ---- filters of the template ----


def _format_number(value: float | None, digits: int = 3) -> str:
    """Return a number with a fixed number of decimals, or a dash for None."""
    return "\N{EN DASH}" if value is None else f"{value:.{digits}f}"


def _format_listing(parts: Sequence[str]) -> str:
    """Return the parts as one text, such as "a, b and c"."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def _format_count(number: int, singular: str, plural: str) -> str:
    """Return a number with its noun, such as "1 image" or "2 images"."""
    return f"{number:,} {singular if number == 1 else plural}"


def _make_data_uri(jpeg: bytes) -> str:
    """Return the content of a JPEG file as a data URI, which embeds it in the page."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
