"""The model card: a README.md with the task, the classes, the training and the measured accuracy of a detector.

`read_card_facts` reads a run folder, `make_card` writes the text. The card begins with YAML front matter, as the
Hugging Face Hub expects it.
"""

import functools
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import jinja2
import msgspec
import yaml

from ssd_jax import __version__
from ssd_jax.config import Config, Data, Model
from ssd_jax.errors import UserError, escape_text
from ssd_jax.files import convert_read_errors
from ssd_jax.runs import data_fingerprint
from ssd_jax.runs.data_fingerprint import Fingerprint

_SPECIAL = re.compile(r"([\\`*_\[\]<>|&~#$])")
"""Characters with a meaning in Markdown. A backslash before such a character removes the meaning."""

Interval = tuple[float, float]


class ClassAccuracy(msgspec.Struct, frozen=True):
    """VOC metrics of one class in metrics.json."""

    objects: int
    ap_11point: float | None
    ap_area: float | None


class ClassIntervals(msgspec.Struct, frozen=True):
    """95 % intervals of the AP of one class in metrics.json."""

    ap_11point: Interval | None = None
    ap_area: Interval | None = None


class AccuracyIntervals(msgspec.Struct, frozen=True):
    """95 % bootstrap intervals in metrics.json. Files of earlier versions have none."""

    resamples: int = 0
    map_11point: Interval | None = None
    map_area: Interval | None = None
    classes: dict[str, ClassIntervals] = {}


class Accuracy(msgspec.Struct, frozen=True):
    """The part of metrics.json that a card shows."""

    split: str
    images: int
    checkpoint_step: int
    voc_map_11point: float | None
    voc_map_area: float | None
    voc_classes: dict[str, ClassAccuracy]
    coco_ap: float | None
    coco_ap50: float | None
    coco_ap75: float | None
    voc_intervals: AccuracyIntervals = AccuracyIntervals()


class CardFacts(msgspec.Struct, frozen=True):
    """Facts about a detector, for its card."""

    config: Config
    """Config of the run."""
    step: int
    """Training step of the parameters."""
    accuracy: Accuracy | None = None
    """Metrics of these parameters, or None if they were not evaluated."""
    splits: Mapping[str, Fingerprint] = {}
    """Number of images and objects of the splits that the detector was trained and selected on, by name."""
    parameters: int | None = None
    """Number of parameters."""
    version: str = __version__
    """Version of this program."""


def read_card_facts(run: Path, config: Config, step: int, parameters: int | None = None) -> CardFacts:
    """Read what a run folder tells about a detector, in addition to its config and parameters.

    Args:
        run: Run folder.
        config: Config of the run.
        step: Training step of the parameters. Metrics of another step are left out.
        parameters: Number of parameters.

    Raises:
        UserError: If metrics.json cannot be read.
    """
    accuracy = _read_accuracy(run / "metrics.json")
    if accuracy is not None and accuracy.checkpoint_step != step:
        accuracy = None
    return CardFacts(config, step, accuracy, data_fingerprint.read_fingerprints(run), parameters)


def _read_accuracy(file: Path) -> Accuracy | None:
    """Return the metrics in a file, or None if it does not exist or has no metrics, as for an unannotated split."""
    with convert_read_errors(file):
        data = file.read_bytes() if file.exists() else b"{}"
    try:
        if "voc_map_area" not in msgspec.json.decode(data, type=dict[str, Any]):
            return None
        return msgspec.json.decode(data, type=Accuracy)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{file}: {error}. Evaluate the run again, or delete this file") from None


def make_card(
    facts: CardFacts,
    *,
    name: str,
    reference: str,
    license_id: str = "",
    picture: str = "",
    about_data: str = "",
    command: str = "",
) -> str:
    """Return a model card in Markdown with YAML front matter.

    Args:
        facts: What is known about the detector.
        name: Name of the detector, for the title.
        reference: What ``ssd_jax.load`` takes, such as ``hf://user/name`` or the name of a bundled detector.
        license_id: Identifier of the license of the weights, such as ``mit``. Empty if it is not known.
        picture: File name of a picture with detections, next to the card. Empty if there is none.
        about_data: Markdown about the data, such as its source and license.
        command: Command that trained the detector.
    """
    front_matter = yaml.safe_dump(
        _make_front_matter(facts, name, license_id), sort_keys=False, allow_unicode=True, width=120
    )
    model = facts.config.model
    return _read_template().render(
        front_matter=front_matter,
        facts=facts,
        config=facts.config,
        accuracy=facts.accuracy,
        rows=_make_class_rows(facts.accuracy),
        name=name,
        reference=escape_text(reference),
        license=license_id,
        picture=picture,
        about_data=about_data,
        command=escape_text(command),
        data_name=describe_data(facts.config.data),
        network=_describe_network(model),
        pretrained=PurePath(facts.config.train.pretrained).name,
    )


def describe_data(data: Data) -> str:
    """Return the name of a data set without the folders above it, which tell only about the machine."""
    if data.root == "shapes":
        return "shapes (generated images)"
    if data.root.startswith("tfds:"):
        return data.root
    return re.split(r"[\\/]", data.root.rstrip("\\/"))[-1] or "unnamed"


def _describe_network(model: Model) -> str:
    width = "" if model.width == 1 else f" with {model.width:g} times the channels"
    norm = "" if model.norm == "none" else ", GroupNorm and weight standardization"
    return f"SSD on VGG16{width}{norm}"


def _make_front_matter(facts: CardFacts, name: str, license_id: str) -> dict[str, Any]:
    """Return the metadata of the card. Its keys are those of the Hugging Face Hub."""
    accuracy = facts.accuracy
    tree: dict[str, Any] = {"license": license_id} if license_id else {}
    tree |= {
        "library_name": "ssd-jax",
        "pipeline_tag": "object-detection",
        "tags": ["object-detection", "ssd", "jax", "flax"],
    }
    if accuracy is None:
        return tree
    values = {
        "VOC mAP, 11-point, IoU 0.5": accuracy.voc_map_11point,
        "VOC mAP, area, IoU 0.5": accuracy.voc_map_area,
        "COCO AP, IoU 0.50:0.95": accuracy.coco_ap,
    }
    data = escape_text(describe_data(facts.config.data))
    result = {
        "task": {"type": "object-detection"},
        "dataset": {"name": data, "type": data, "split": escape_text(accuracy.split)},
        "metrics": [
            {"type": "map", "name": label, "value": round(value, 4)}
            for label, value in values.items()
            if value is not None
        ],
    }
    return tree | {"metrics": ["map"], "model-index": [{"name": escape_text(name), "results": [result]}]}


def _make_class_rows(accuracy: Accuracy | None) -> Sequence[tuple[str, ClassAccuracy, ClassIntervals]]:
    """Return the name, the metrics and the intervals of each class."""
    if accuracy is None:
        return []
    intervals = accuracy.voc_intervals.classes
    return [(name, one, intervals.get(name, ClassIntervals())) for name, one in accuracy.voc_classes.items()]


# ---- template ----


@functools.cache
def _read_template() -> jinja2.Template:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        finalize=_escape_if_text,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # for HTML. Markdown is escaped by `finalize`
    )
    environment.filters |= {"number": _format_number, "interval": _format_interval}
    text = importlib.resources.files("ssd_jax.model_zoo").joinpath("card.md.j2").read_text(encoding="utf-8")
    return environment.from_string(text)


def _escape_if_text(value: object) -> object:
    """Return a value of the template, with all characters of a text shown as they are. Markup stays as it is."""
    return escape_markdown(value) if type(value) is str else value


def escape_markdown(text: str) -> str:
    """Return a text in one line that Markdown shows as it is, also in a cell of a table."""
    return _SPECIAL.sub(r"\\\1", escape_text(text))


def _format_number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _format_interval(value: Interval | None) -> str:
    return "-" if value is None else f"{value[0]:.3f} to {value[1]:.3f}"
