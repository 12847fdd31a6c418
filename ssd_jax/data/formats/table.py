"""Read text files and tables (CSV) as spreadsheets and scripts write them, in several encodings and dialects."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from ssd_jax.data.problems import Kind, Problems
from ssd_jax.errors import UserError
from ssd_jax.files import convert_read_errors, convert_to_utf8

_DELIMITERS = ",;\t"


def read_tolerant_text(file: Path, problems: Problems) -> str:
    """Return the content of a text file in a Unicode encoding or, with a warning, in Windows-1252.

    Raises:
        UserError: If the file cannot be read.
    """
    with convert_read_errors(file):
        data = convert_to_utf8(file.read_bytes())
    try:
        text = data.decode()
    except UnicodeDecodeError:
        problems.add(Kind.OTHER_ENCODING, file, "")
        text = data.decode("cp1252", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_floats(fields: Sequence[str], file: Path, where: str, minimum: int = 0) -> list[float]:
    """Return the finite numbers in some fields of a line. A comma may separate the decimals.

    Raises:
        UserError: If a field is not a finite number, or if there are fewer than ``minimum`` fields.
    """
    values = []
    for field in fields:
        try:
            values.append(float(field.replace(",", ".")))
        except ValueError:
            values.append(math.nan)
        if not math.isfinite(values[-1]):
            raise UserError(f"{file}: {where} has '{field}' in place of a number. Correct it, or remove the line.")
    if len(values) < minimum:
        raise UserError(f"{file}: {where} has {len(values)} numbers, but needs {minimum}. Correct it.")
    return values


def read_rows(text: str, file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the fields of each row of a table that is not empty.

    The delimiter is the comma, semicolon or tab that is most frequent in the first line.

    Raises:
        UserError: If the table is malformed.
    """
    first = text[:10_000].partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        for row in rows:
            if any(field.strip() for field in row):
                yield rows.line_num, [field.strip() for field in row]
    except csv.Error as error:
        raise UserError(f"{file}: line {rows.line_num} is not a row of a table ({error}). Correct it.") from None
