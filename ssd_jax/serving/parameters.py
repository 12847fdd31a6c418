"""Options of a request for detections, in the query of its address."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from starlette.datastructures import QueryParams

from ssd_jax.errors import UserError
from ssd_jax.inference.results import Detections, check_classes
from ssd_jax.serving.errors import RequestError

T = TypeVar("T")
DEFAULT_SCORE = 0.5
PARAMETERS: dict[str, dict[str, Any]] = {
    "score": {
        "description": "Smallest score of the detections.",
        "schema": {"type": "number", "minimum": 0, "maximum": 1, "default": DEFAULT_SCORE},
    },
    "classes": {
        "description": "Names of the classes to return, separated by commas, or one each if it is given several times. "
        "Default: all.",
        "schema": {"type": "array", "items": {"type": "string"}},
        "style": "form",
        "explode": True,
    },
    "max_detections": {
        "description": "Largest number of detections, the best ones. Default: that of the network.",
        "schema": {"type": "integer", "minimum": 1},
    },
}
"""The parameters as in an OpenAPI document, without their names and places."""


class Choice(NamedTuple):
    """The detections that a request wants."""

    score: float = DEFAULT_SCORE
    classes: tuple[str, ...] | None = None
    max_detections: int | None = None

    def select(self, found: Detections) -> Detections:
        """Return the chosen detections."""
        return found.filter(score_threshold=self.score, classes=self.classes)[: self.max_detections]


def parse_choice(query: QueryParams, class_names: Sequence[str]) -> Choice:
    """Return what the query of a request chooses.

    Raises:
        RequestError: If there is no such parameter or class, or a value is outside of its range.
    """
    unknown = [name for name in query if name not in PARAMETERS]
    if unknown:
        raise RequestError(422, f"there is no parameter '{unknown[0]}', only {', '.join(PARAMETERS)}")
    score = _parse(query, "score", float, "a number from 0 to 1")
    if score is not None and not 0 <= score <= 1:
        raise RequestError(422, f"score is {score:g}: expected a number from 0 to 1")
    most = _parse(query, "max_detections", int, "a number of at least 1")
    if most is not None and most < 1:
        raise RequestError(422, f"max_detections is {most}: expected a number of at least 1")
    return Choice(
        DEFAULT_SCORE if score is None else score, _parse_classes(query.getlist("classes"), class_names), most
    )


def _parse(query: QueryParams, name: str, kind: Callable[[str], T], expected: str) -> T | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        return kind(text)
    except ValueError:
        raise RequestError(422, f"{name} is '{text[:50]}': expected {expected}") from None


def _parse_classes(values: Sequence[str], class_names: Sequence[str]) -> tuple[str, ...] | None:
    # The name of a class may contain a comma.
    names = [name for value in values for name in ([value] if value in class_names else value.split(","))]
    try:
        return check_classes(names, class_names) if values else None
    except UserError as error:
        raise RequestError(422, str(error)) from error
