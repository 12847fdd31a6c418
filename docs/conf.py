"""Configuration of the documentation: guides in Markdown, and an API reference made from the docstrings.

``make docs`` builds the documentation. Every warning stops it as an error: a broken link, a missing reference, or a
docstring that cannot be parsed.
"""

import importlib
import pkgutil
import re
from importlib.metadata import version as installed_version
from pathlib import Path

from latex2mathml.converter import convert as latex_to_mathml
from sphinx.application import Sphinx

import ssd_jax

project = "ssd-jax"
author = "the ssd-jax authors"
copyright = author
version = release = installed_version("ssd-jax")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}

# ---- Markdown ----

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

# ---- docstrings ----

default_role = "code"  # `name` in a docstring is code, as in Markdown
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
nitpicky = True
# Two classes have the name Detections, and annotations within a module do not say which one they mean.
suppress_warnings = ["ref.python"]
# References to types of other libraries are not checked, because their inventories would have to be downloaded, nor
# are type variables and private types.
nitpick_ignore_regex = [(r"py:.*", r"(?!ssd_jax).*"), (r"py:class", r"ssd_jax\..*\.(T|R|_\w+)")]

# ---- pages ----

html_theme = "furo"
html_title = "ssd-jax"
html_static_path: list[str] = []
PAGE_FOLDER = Path(__file__).parents[1] / "build" / "page"  # written by `make site`
html_extra_path = [str(PAGE_FOLDER)] if PAGE_FOLDER.is_dir() else []
html_theme_options = {"source_repository": "", "navigation_with_keys": True}
copybutton_exclude = ".linenos, .gp, .go"

API_FOLDER = Path(__file__).parent / "api"


def write_api_pages(app: Sphinx) -> None:
    """Write one page for each package of ssd_jax, and one page for the modules outside of the packages."""
    API_FOLDER.mkdir(exist_ok=True)
    top = [module.name for module in pkgutil.iter_modules(ssd_jax.__path__)]
    packages = [name for name in top if hasattr(importlib.import_module(f"ssd_jax.{name}"), "__path__")]
    pages = {"ssd_jax": ["ssd_jax", *(f"ssd_jax.{name}" for name in top if name not in packages)]}
    for package in packages:
        path = importlib.import_module(f"ssd_jax.{package}").__path__
        modules = [module.name for module in pkgutil.walk_packages(path, f"ssd_jax.{package}.")]
        pages[package] = [f"ssd_jax.{package}", *modules]
    for page, modules in pages.items():
        modules = [module for module in modules if not module.endswith("__main__")]
        directives = "\n\n".join(_module_section(module) for module in modules)
        file = API_FOLDER / f"{page}.md"
        if not file.exists() or file.read_text(encoding="utf-8") != directives:
            file.write_text(directives, encoding="utf-8")


def _module_section(module: str) -> str:
    """Return the section about a module for its page: a heading and an autodoc directive."""
    is_package = hasattr(importlib.import_module(module), "__path__")
    level = "#" if module.count(".") < 2 and is_package else "##"
    members = "" if is_package else "\n   :members:"
    return f"{level} {module}\n\n```{{eval-rst}}\n.. automodule:: {module}{members}\n```\n"


def render_docstring_math(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Turn ``$formula$`` in a docstring into Sphinx' math role, and a line ``$$formula$$`` into its directive."""
    lines[:] = [re.sub(r"^(\s*)\$\$(.+)\$\$$", r"\1.. math:: \2", line) for line in lines]
    lines[:] = [re.sub(r"(?<![\w$`])\$([^$`]+)\$(?![\w$])", r":math:`\1`", line) for line in lines]


def keep_colons_of_attribute_docs(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Keep napoleon from reading the start of an attribute's docstring, up to a colon, as its type."""
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]  # an empty comment, in which there is no colon


def shorten_signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Return a signature with ``Array`` instead of the private name of JAX's array class."""
    return tuple(text and text.replace("jaxlib._jax.Array", "Array") for text in (signature, returns))  # type: ignore[return-value]


# ---- formulas as MathML, which browsers draw without a script from the network ----


def _visit_inline_math(translator, node) -> None:
    translator.body.append(latex_to_mathml(node.astext()))
    raise _skip()


def _visit_block_math(translator, node) -> None:
    translator.body.append(f'<div class="math">{latex_to_mathml(node.astext(), display="block")}</div>')
    raise _skip()


def _skip() -> Exception:
    from docutils.nodes import SkipNode

    return SkipNode()


def setup(app: Sphinx) -> None:
    if html_extra_path:
        app.tags.add("has_page")  # see web.md
    app.connect("builder-inited", write_api_pages)
    app.connect("autodoc-process-docstring", keep_colons_of_attribute_docs, priority=400)  # before napoleon's 500
    app.connect("autodoc-process-docstring", render_docstring_math)
    app.connect("autodoc-process-signature", shorten_signature)
    app.add_html_math_renderer("mathml", (_visit_inline_math, None), (_visit_block_math, None))


html_math_renderer = "mathml"
