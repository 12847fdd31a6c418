"""Text tables of metrics, for the terminal."""

from collections.abc import Mapping
from typing import Any

from tabulate import SEPARATING_LINE, tabulate

from ssd_jax.errors import escape_text
from ssd_jax.metrics.average_precision import VocResult
from ssd_jax.metrics.diagnosis import ErrorType, TideError

COCO_LABELS = {
    "coco_ap": "AP @ IoU .50:.95",
    "coco_ap50": "AP @ IoU .50",
    "coco_ap75": "AP @ IoU .75",
    "coco_ap_small": "AP, small objects (area < 32^2 px)",
    "coco_ap_medium": "AP, medium objects",
    "coco_ap_large": "AP, large objects (area > 96^2 px)",
    "coco_ar1": "AR, 1 detection per image",
    "coco_ar10": "AR, 10 detections per image",
    "coco_ar100": "AR, 100 detections per image",
    "coco_ar_small": "AR, small objects",
    "coco_ar_medium": "AR, medium objects",
    "coco_ar_large": "AR, large objects",
}
"""Label of each COCO metric in the table."""


def format_voc(result: VocResult | Mapping[str, Any]) -> str:
    """Return a table with the VOC metrics of each class and their means."""
    header = ["class", "objects", "detections", "AP 11-point", "AP area"]
    classes: Mapping[str, Any] = result["voc_classes"]
    rows: list[Any] = [
        [escape_text(name), c["objects"], c["detections"], c["ap_11point"], c["ap_area"]] for name, c in classes.items()
    ]
    objects, detections = (sum(c[key] for c in classes.values()) for key in ("objects", "detections"))
    rows += [SEPARATING_LINE, ["all, mean", objects, detections, result["voc_map_11point"], result["voc_map_area"]]]
    return tabulate(
        rows,
        header,
        floatfmt=".4f",
        missingval="-",
        colalign=("left", *["right"] * (len(header) - 1)),
        disable_numparse=[0],  # a class may be named by a number
    )


def format_coco(metrics: Mapping[str, Any]) -> str:
    """Return a table with the twelve COCO metrics."""
    rows = [[label, metrics[key]] for key, label in COCO_LABELS.items()]
    return tabulate(rows, ["COCO metric", ""], floatfmt=".4f", missingval="-", colalign=("left", "right"))


def format_metrics(metrics: Mapping[str, Any]) -> str:
    """Return the tables of the VOC and the COCO metrics, as printed by ``evaluate``."""
    return f"{format_voc(metrics)}\n\n{format_coco(metrics)}"


def format_errors(tide: Mapping[ErrorType, TideError]) -> str:
    """Return a line with the number of errors of each of TIDE's types and the AP that they cost, costliest first."""
    rows = sorted(tide.items(), key=lambda item: -item[1].gain)
    parts = [f"{kind} {error.errors} (+{max(error.gain, 0):.3f})" for kind, error in rows]
    return f"Errors by type (gain in AP at IoU 0.5 without them): {', '.join(parts)}"


def format_percent(value: float | None) -> str:
    """Return a metric in percent, such as "61.2 %", or "-" if it could not be computed."""
    return "-" if value is None else f"{100 * value:.1f} %"
