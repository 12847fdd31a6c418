"""Choice of the files that ``ssd-jax predict`` writes."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ssd_jax.data.earlier_output import MARKER
from ssd_jax.files import write_text
from ssd_jax.predictions.data_sets import DataSetWriter
from ssd_jax.predictions.formats import Format
from ssd_jax.predictions.pictures import DEFAULT_DRAWING, CropWriter, DrawingOptions, PictureWriter
from ssd_jax.predictions.prediction import PredictionWriter
from ssd_jax.predictions.tables import CsvWriter, JsonWriter


@contextmanager
def open_writers(
    formats: Sequence[Format], out: Path, class_names: tuple[str, ...], drawing: DrawingOptions = DEFAULT_DRAWING
) -> Iterator[list[PredictionWriter]]:
    """Yield the writers of some formats. Their files are complete after the ``with`` block.

    If the block raises an exception, predictions.json and COCO's file are not replaced; the other files contain the
    predictions up to then.

    Args:
        formats: Names of formats, without repetition.
        out: The output folder, which exists.
        class_names: Names of all classes, in the order of their labels.
        drawing: Appearance of boxes and labels.

    Raises:
        UserError: If a file cannot be written.
    """
    write_text(out / MARKER, "")
    with ExitStack() as stack:
        writers: list[PredictionWriter] = []
        for name in formats:
            if name == "pictures":
                writer: PredictionWriter = PictureWriter(out, class_names, drawing)
            elif name == "json":
                writer = JsonWriter(out, class_names, "pictures" in formats)
            elif name == "csv":
                writer = CsvWriter(out, class_names)
            elif name == "crops":
                writer = CropWriter(out, class_names)
            else:
                writer = DataSetWriter(out, class_names, name)
            stack.callback(writer.close)
            writers.append(writer)
        yield writers
        for writer in writers:
            writer.finish()
