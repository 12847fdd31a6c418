"""Pictures of a data set, drawn by ``check-data``."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ssd_jax.config import DefaultBoxes
from ssd_jax.data.check.checks import BoxCoverage, SplitCount
from ssd_jax.data.source import Source
from ssd_jax.files import safe_file_name, user_errors_on_write
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.report.draw import draw_data_set
from ssd_jax.report.pictures import write_samples


def write_data_set_figures(
    out: Path,
    layout: DefaultBoxes,
    splits: Mapping[str, Source],
    counts: Mapping[str, SplitCount],
    coverage: BoxCoverage,
) -> None:
    """Writes data.png and ``<split>_samples.jpg`` into the existing folder ``out``."""
    shapes = np.unique(make_default_boxes(layout)[:, 2:], axis=0) * layout.image_size
    objects = {split: count.objects for split, count in counts.items()}
    with user_errors_on_write(out / "data.png"):
        draw_data_set(objects, coverage.boxes * layout.image_size, coverage.unmatched, shapes, out / "data.png")
    for stale in out.glob("*_samples.jpg"):
        stale.unlink()
    for split, source in splits.items():
        write_samples(out / f"{safe_file_name(split)}_samples.jpg", source)
