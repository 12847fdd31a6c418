"""Files with one record per image or detection: predictions.json and predictions.csv."""

import csv
import json
import os
import textwrap
from pathlib import Path
from typing import Any

from ssd_jax.data.earlier_output import BOXES_NOTE, JSON_FILE
from ssd_jax.errors import UserError
from ssd_jax.files import close_after_errors, convert_write_errors, make_cell, write_text
from ssd_jax.predictions.formats import CSV_FILE
from ssd_jax.predictions.prediction import OUT_ADVICE, Prediction, PredictionWriter

CSV_COLUMNS = ("file", "frame", "width", "height", "class", "score", "x1", "y1", "x2", "y2")


class JsonWriter(PredictionWriter):
    """Writer of ``predictions.json``: all images with their detections.

    The records are written to a temporary file, which replaces an earlier predictions.json at the end, if there is a
    record.

    Args:
        has_pictures: Whether there is a picture of each image.
    """

    def __init__(self, out: Path, class_names: tuple[str, ...], has_pictures: bool = True) -> None:
        super().__init__(out, class_names)
        self._has_pictures, self._count = has_pictures, 0
        self._file, self._temporary = out / JSON_FILE, out / f"{JSON_FILE}.tmp"
        if not self._file.exists():  # so that the folder can be used again, even if this process is stopped
            write_text(self._file, json.dumps({"boxes": BOXES_NOTE, "images": []}, indent=1) + "\n")
        with convert_write_errors(self._file, OUT_ADVICE):
            self._stream = self._temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n")
            self._stream.write(f'{{\n "boxes": {json.dumps(BOXES_NOTE)},\n "images": [')

    def write(self, prediction: Prediction) -> None:
        width, height = prediction.detections.size
        record: dict[str, Any] = {"file": prediction.file}
        if prediction.frame is not None:
            record["frame"] = prediction.frame
        record |= {"width": width, "height": height}
        if self._has_pictures and prediction.frame is None:
            record["picture"] = str(self.out / prediction.target)
        record["detections"] = [{"name": d.name, "score": d.score, "box": list(d.box)} for d in prediction.detections]
        text = textwrap.indent(json.dumps(record, indent=1), "  ")
        with convert_write_errors(self._file, OUT_ADVICE):
            self._stream.write(f"{',' if self._count else ''}\n{text}")
        self._count += 1

    def finish(self) -> None:
        with convert_write_errors(self._file, OUT_ADVICE):
            self._stream.write("\n ]\n}\n")
            self._stream.close()
            if self._count:
                os.replace(self._temporary, self._file)

    def close(self) -> None:
        close_after_errors(self._stream)
        self._temporary.unlink(missing_ok=True)


class CsvWriter(PredictionWriter):
    """Writer of ``predictions.csv``: a row per detection, written as soon as its image is done."""

    def __init__(self, out: Path, class_names: tuple[str, ...]) -> None:
        super().__init__(out, class_names)
        self._file = out / CSV_FILE
        with convert_write_errors(self._file, OUT_ADVICE):
            self._stream = self._file.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        self._writer = csv.writer(self._stream, lineterminator="\n")
        try:
            self._write_rows([CSV_COLUMNS])
        except UserError:
            self.close()
            raise

    def write(self, prediction: Prediction) -> None:
        width, height = prediction.detections.size
        frame = "" if prediction.frame is None else prediction.frame
        start = make_cell(prediction.file), frame, width, height
        # Nine significant digits identify a float32.
        self._write_rows(
            [*start, make_cell(d.name), *(f"{value:.9g}" for value in (d.score, *d.box))] for d in prediction.detections
        )

    def _write_rows(self, rows: Any) -> None:
        with convert_write_errors(self._file, OUT_ADVICE):
            self._writer.writerows(rows)
            self._stream.flush()

    def close(self) -> None:
        close_after_errors(self._stream)
