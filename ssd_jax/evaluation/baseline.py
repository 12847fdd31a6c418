"""The baseline that a detector is compared with: constant boxes, from the objects of the train split."""

from collections.abc import Sequence
from typing import Any

from ssd_jax.config import Config
from ssd_jax.data.run_splits import open_split
from ssd_jax.data.source import Annotation, Source
from ssd_jax.errors import UserError
from ssd_jax.metrics.constant_box import evaluate_constant_boxes
from ssd_jax.metrics.tables import format_percent

CHEAP_IMAGES = 2000
"""Number of images of a split up to which the baseline is always measured. For a larger one, reading the train split
may take longer than the evaluation, so that the baseline is only measured for the report."""


def measure_constant_boxes(
    config: Config, split: str, source: Source, annotations: Sequence[Annotation]
) -> dict[str, Any]:
    """Return the metrics of `ConstantBox` in a split as a dict, as ``evaluate`` writes them to metrics.json.

    The boxes are those of the train split or, if it cannot be read quickly, of the measured split itself.

    Args:
        config: Config of the run.
        split: Name of the measured split.
        source: The measured split.
        annotations: Annotations of the measured split.
    """
    origin, training = split, annotations
    if split != config.data.train_split:
        try:
            train_source = open_split(config, config.data.train_split)
        except UserError:  # the data set may have only the measured split
            train_source = None
        if train_source is not None and train_source.in_memory and train_source.annotated:
            origin, training = config.data.train_split, list(train_source.annotations())
    return evaluate_constant_boxes(origin, training, annotations, source.class_names)._asdict()


def format_constant_boxes(constant: dict[str, Any]) -> str:
    """Return a line about the metrics of the constant boxes, as ``evaluate`` prints it."""
    return (
        f"For comparison, the mean box of each class of {constant['split']} in every image: mAP "
        f"{format_percent(constant['voc_map_area'])} (area), precision {format_percent(constant['precision'])}, "
        f"recall {format_percent(constant['recall'])}"
    )
