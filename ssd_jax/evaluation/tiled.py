"""Comparison of the metrics of a split with and without tiles."""

from collections.abc import Mapping
from typing import Any

COMPARED = {"voc_map_11point": "mAP (VOC, 11-point)", "voc_map_area": "mAP (VOC, area)", "coco_ap": "COCO AP"}
"""Metrics that are shown with and without tiles, and their names."""


def format_comparison(tiled: Mapping[str, Any], plain: Mapping[str, Any]) -> str:
    """Return a line with the most important metrics with and without tiles."""

    def format_value(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    pairs = [
        f"{name} {format_value(tiled[key])} (without tiles {format_value(plain[key])})"
        for key, name in COMPARED.items()
    ]
    return f"With tiles: {', '.join(pairs)}"
