"""The OpenAPI document of the server, and the page that shows it."""

import importlib.resources
from collections.abc import Mapping
from typing import Any

import jinja2
import msgspec

import ssd_jax
from ssd_jax.serving import answers
from ssd_jax.serving.parameters import PARAMETERS

_SCHEMA_PLACE = "#/components/schemas/{name}"
_JSON = "application/json"
_TEMPLATE = "api.html.j2"
_DETECT_ERRORS = {
    "401": "A token is needed, see the option --token.",
    "408": "The request was not complete in time.",
    "413": "The body, the number of files or the number of pixels is too large.",
    "415": "The body is compressed.",
    "422": "The file cannot be read as an image, or a parameter is wrong.",
    "503": "Too many images are waiting. The header Retry-After says after how many seconds to try again.",
}


def make_document(name: str) -> dict[str, Any]:
    """Return the OpenAPI document.

    Args:
        name: Name of the detector.
    """
    kinds = [kind for kind in vars(answers).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
    _, schemas = msgspec.json.schema_components(
        [kind for kind in kinds if kind is not msgspec.Struct], ref_template=_SCHEMA_PLACE
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Detection with {name}",
            "version": ssd_jax.__version__,
            "description": "Detects objects in images with a network that ssd-jax trained.",
        },
        "security": [{}, {"token": []}],  # a token may be needed
        "paths": {
            "/detect": {"post": _make_detect()},
            "/model": _make_get("Names and sizes of the detector.", _JSON, answers.ModelAnswer),
            "/health": _make_get(
                "Whether requests are answered at once: status 200, or 503 while the network is compiled.",
                _JSON,
                answers.Health,
                "The network is being compiled.",
            ),
            "/metrics": _make_get("Metrics for Prometheus.", "text/plain"),
            "/openapi.json": _make_get("This description for programs.", _JSON),
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _make_detect() -> dict[str, Any]:
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    form = {"type": "object", "additionalProperties": {"anyOf": [file, {"type": "array", "items": file}]}}
    answer = {"anyOf": [_refer(answers.ImageAnswer), _refer(answers.FormAnswer)]}
    return {
        "summary": "Detect objects in one or several images.",
        "description": "The body is an image file, with any content type, or a form of the type multipart/form-data "
        "with several files. The answer to a form has a list with an entry for each file, in their order; an image of "
        "it that cannot be read has an entry with an error. The status is then that of the first error if no image "
        "could be read, and 200 otherwise.",
        "parameters": [{"name": name, "in": "query", **content} for name, content in PARAMETERS.items()],
        "requestBody": {
            "required": True,
            "content": {"image/*": {"schema": file}, "multipart/form-data": {"schema": form}},
        },
        "responses": {"200": _make_response("The detections.", _JSON, answer), **_make_errors(_DETECT_ERRORS)},
    }


def _make_get(summary: str, content_type: str, kind: type | None = None, while_starting: str = "") -> dict[str, Any]:
    schema = _refer(kind) if kind else {}
    responses = {"200": _make_response(summary, content_type, schema)}
    if while_starting:
        responses["503"] = _make_response(while_starting, content_type, schema)
    return {"get": {"summary": summary, "responses": responses}}


def _make_errors(errors: Mapping[str, str]) -> dict[str, Any]:
    return {status: _make_response(text, _JSON, _refer(answers.ErrorAnswer)) for status, text in errors.items()}


def _make_response(text: str, content_type: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {content_type: {"schema": schema}}}


def _refer(kind: type) -> dict[str, str]:
    return {"$ref": _SCHEMA_PLACE.format(name=kind.__name__)}


def render_document(document: Mapping[str, Any]) -> str:
    """Return an OpenAPI document as an HTML page, which loads only ``page.css`` and ``api.css`` beside it."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["type"] = _describe_type
    return environment.from_string(_read(_TEMPLATE)).render(document=document)


def read_style() -> str:
    """Return the stylesheet ``api.css`` of the page, which it needs beside ``page.css``."""
    return _read("api.css")


def _read(name: str) -> str:
    return importlib.resources.files("ssd_jax.serving").joinpath(name).read_text(encoding="utf-8")


def _describe_type(schema: Mapping[str, Any]) -> str:
    """Return the type of a schema in a few words, such as "array of number"."""
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(map(_describe_type, schema["anyOf"]))
    if "prefixItems" in schema:
        return f"array of {', '.join(map(_describe_type, schema['prefixItems']))}"
    if schema.get("type") == "array":
        return f"array of {_describe_type(schema.get('items', {}))}"
    if schema.get("contentMediaType"):
        return "bytes of an image file"
    return str(schema.get("type", "any"))
