"""Write the figures of ``check-data`` about a data set."""

from pathlib import Path

import numpy as np

from ssd_jax.config import DefaultBoxes
from ssd_jax.data.check.checks import DataSetCheck
from ssd_jax.files import convert_write_errors, make_safe_file_name
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.report.draw import draw_data_set
from ssd_jax.report.pictures import write_samples


def write_data_set_figures(out: Path, check: DataSetCheck, box_config: DefaultBoxes) -> None:
    """Write data.png and ``<split>_samples.jpg`` to a folder, and remove sample images of earlier checks.

    Args:
        out: The folder, which must exist.
        check: Result of checking the data set.
        box_config: Config of the default boxes, whose widths and heights data.png compares with those of the objects.

    Raises:
        UserError: If a file cannot be written.
    """
    size = box_config.image_size
    shapes = np.unique(make_default_boxes(box_config)[:, 2:], axis=0) * size
    objects = {split: count.objects for split, count in check.counts.items()}
    with convert_write_errors(out / "data.png"):
        draw_data_set(objects, check.coverage.boxes * size, check.coverage.unmatched, shapes, out / "data.png")
    for stale in out.glob("*_samples.jpg"):
        stale.unlink()
    for split, source in check.splits.items():
        write_samples(out / f"{make_safe_file_name(split)}_samples.jpg", source)
