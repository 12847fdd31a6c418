"""Answers of the server, which are written as JSON. The OpenAPI document is made from these classes."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from ssd_jax.inference.results import Detections


class DetectedObject(Struct, frozen=True):
    """A detected object."""

    class_name: Annotated[str, Meta(description="Name of the class.")]
    class_index: Annotated[int, Meta(description="Position of the class in the list of /model, from 0.", ge=0)]
    score: Annotated[float, Meta(description="Confidence from 0 to 1.", ge=0, le=1)]
    box: Annotated[
        tuple[float, float, float, float],
        Meta(description="x_min, y_min, x_max, y_max in pixels of the upright image, from its upper left corner."),
    ]


class ImageAnswer(Struct, frozen=True, omit_defaults=True):
    """The detections in an image."""

    width: Annotated[int, Meta(description="Width of the upright image in pixels.")]
    height: Annotated[int, Meta(description="Height of the upright image in pixels.")]
    detections: Annotated[list[DetectedObject], Meta(description="The detected objects, best first.")]
    milliseconds: Annotated[float, Meta(description="Time from the end of the request's body to the detections.")]
    notes: Annotated[list[str], Meta(description="Notes on the file, such as that a few rows are missing.")]
    name: Annotated[str | None, Meta(description="Name of the file in the form.")] = None


class ImageError(Struct, frozen=True, omit_defaults=True):
    """An image of a form in which no objects could be detected."""

    error: Annotated[str, Meta(description="What is wrong with the image.")]
    status: Annotated[int, Meta(description="HTTP status that the image would have got alone.")]
    name: Annotated[str | None, Meta(description="Name of the file in the form.")] = None


_ENTRY = {"anyOf": [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in (ImageAnswer, ImageError)]}


class FormAnswer(Struct, frozen=True, omit_defaults=True):
    """The answer to a form of files."""

    images: Annotated[
        list[Any],
        Meta(description="An entry for each file, in their order.", extra_json_schema={"items": _ENTRY}),
    ]
    detail: Annotated[str | None, Meta(description="The first error, if no image could be read.")] = None


class ErrorAnswer(Struct, frozen=True):
    """The answer to a request that failed."""

    detail: Annotated[str, Meta(description="What is wrong with the request.")]


class Health(Struct, frozen=True):
    """The state of the server."""

    status: Annotated[str, Meta(description="'ready', or 'starting' until the network is compiled.")]


class ModelAnswer(Struct, frozen=True):
    """The detector."""

    name: Annotated[str, Meta(description="Name of the run, model or file.")]
    config: Annotated[str, Meta(description="Name of the config that the network was trained with.")]
    step: Annotated[int, Meta(description="Training step of the parameters.")]
    class_names: Annotated[list[str], Meta(description="Names of the classes, in the order of class_index.")]
    image_size: Annotated[int, Meta(description="Side of the square input of the network in pixels.")]
    max_image_size: Annotated[int, Meta(description="Longest side of an image that is not shrunk at first.")]
    score_threshold: Annotated[float, Meta(description="Detections with scores up to this one are never returned.")]
    max_detections: Annotated[int, Meta(description="Largest number of detections in an image.")]


def list_objects(found: Detections) -> list[DetectedObject]:
    """Return detections as objects of an answer."""
    return [
        DetectedObject(detection.name, label - 1, detection.score, detection.box)
        for detection, label in zip(found, found.labels.tolist(), strict=True)
    ]
