r"""Data sets whose files and classes have names that try to break a program, and checks of what is written about them.

The names contain what a file system allows: control codes of terminals, line breaks, characters that reverse the text
after them, bytes that are not UTF-8, formulas of spreadsheets and of matplotlib, markup, and up to 255 bytes.
"""

import csv
import html.parser
import json
import os
import random
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

MAX_STEM = 255 - len(".jpg")


def is_utf8(name: str) -> bool:
    """Return whether a name is valid in UTF-8."""
    return not any("\udc80" <= letter <= "\udcff" for letter in name)


STEMS = (
    "\x1b]0;title\x07", "\x1b[31mred\x1b[0m", "\x1b[A\x1b[2K", "a\nerror: forged", "b\rwarning: forged", "\x7f\x01t\t",
    os.fsdecode(b"caf\xe9"), os.fsdecode(b"\xff\xfe"), "\u202egpj.exe", "\u2028line", "\x9b31m", "שלום עולם", "قطة",
    "猫", "👩\u200d🚀", "=cmd|'calc'!A0", "@SUM(1)", "-5", "--help", "+1", "$5_$10", r"$\frac{$", r"a_b^c\d{e}",
    "\"';--", "<img src=x onerror=a()>", "{{ 7 * 7 }}", "%s%n %20", "~", "#a?b=c&d", "*[x]?", " space ",
    "x" * MAX_STEM, "猫" * (MAX_STEM // 3),
)  # fmt: skip
"""Names of files without their endings."""
CLASS_NAMES = (
    *(stem for stem in STEMS if is_utf8(stem)),
    "\x01",
    "\0",
    "=cmd|' /C calc'!A0",
    "a/b",
    "</style><script>",
)

_ALPHABETS = (
    "ab",
    "\x1b[]0;m\x07",
    "\n\r\t\x0b",
    "\u202e\u2066\u200f",
    "שק",
    "猫🐈",
    "=+-@",
    "$_^{}\\",
    "<>&\"'",
    "%~#?*",
    " .",
)


def make_random_name(rng: random.Random) -> str:
    """Return a random name of a file or class, with characters of up to three kinds."""
    letters = "".join(rng.sample(_ALPHABETS, rng.randint(1, 3)))
    name = "".join(rng.choices(letters, k=rng.choice((1, 3, 10, 60))))
    return name if name.strip(" .") else f"x{name}"


def _write_images(folder: Path, stems: Sequence[str]) -> list[Path]:
    """Write an image of 64 x 64 px for each stem, all different, and return their paths."""
    folder.mkdir(parents=True)
    files = [folder / f"{stem}.jpg" for stem in stems]
    for i, file in enumerate(files):
        pixels = np.random.default_rng([i, len(folder.name)]).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(file, "JPEG")
    return files


def write_voc(root: Path, stems: Sequence[str], class_names: Sequence[str]) -> None:
    """Write a data set without splits in VOC's format. XML cannot contain all class names; others become ``thing``."""
    files = _write_images(root / "JPEGImages", stems)
    (root / "Annotations").mkdir()
    for i, file in enumerate(files):
        name = class_names[i % len(class_names)]
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            name = "thing"
        (root / "Annotations" / f"{file.stem}.xml").write_text(
            "<annotation><size><width>64</width><height>64</height></size>"
            f"<object><name><![CDATA[{name}]]></name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>{30 + i % 20}</xmax>"
            "<ymax>40</ymax></bndbox></object></annotation>",
            encoding="utf-8",
        )


def write_yolo(root: Path, stems: Sequence[str], class_names: Sequence[str]) -> None:
    """Write a data set with the splits train and val in YOLO's format."""
    for split in ("train", "val"):
        files = _write_images(root / "images" / split, stems)
        (root / "labels" / split).mkdir(parents=True)
        for i, file in enumerate(files):
            line = f"{i % len(class_names)} 0.4 0.5 0.3 {0.2 + i / 100}\n"
            (root / "labels" / split / f"{file.stem}.txt").write_text(line)
    names = json.dumps(list(class_names))  # valid in YAML, too
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {names}\n")


def write_coco(root: Path, stems: Sequence[str], class_names: Sequence[str]) -> None:
    """Write a data set with the splits train and val in COCO's format, without file names that are not UTF-8.

    A string of a JSON file cannot hold them.
    """
    stems = list(filter(is_utf8, stems))
    (root / "annotations").mkdir(parents=True)
    categories = [{"id": i, "name": name} for i, name in enumerate(class_names, start=1)]
    for split in ("train", "val"):
        files = _write_images(root / split, stems)
        size = {"width": 64, "height": 64}
        images = [{"id": i, "file_name": file.name, **size} for i, file in enumerate(files, start=1)]
        objects = [
            {"id": i, "image_id": i, "category_id": 1 + i % len(class_names), "bbox": [5, 6, 20 + i % 20, 30]}
            for i in range(1, len(files) + 1)
        ]
        content = {"images": images, "annotations": objects, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


WRITERS: dict[str, Callable[[Path, Sequence[str], Sequence[str]], None]] = {
    "voc": write_voc,
    "yolo": write_yolo,
    "coco": write_coco,
}


# ---- checks ----


def assert_harmless_output(text: str) -> None:
    """Assert that no name controls the terminal or begins a line in the output of a command."""
    for line in text.split("\n"):
        assert not [letter for letter in line if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")], ascii(line)
        assert "\u202e" not in line and "forged" not in line[: len("warning: forged")], ascii(line)


def assert_harmless_files(folder: Path) -> int:
    """Assert that the CSV, HTML and JSON files below a folder are readable and harmless, and return their number."""
    count = 0
    for file in folder.rglob("*"):
        match file.suffix:
            case ".csv":
                with file.open(newline="", encoding="utf-8") as stream:
                    cells = [cell for row in csv.reader(stream) for cell in row]
                assert not [
                    cell for cell in cells if not cell.isprintable() and not cell.replace("\u200d", "").isprintable()
                ]
                assert not [c for c in cells if c.lstrip().startswith(("=", "+", "-", "@")) and not _is_number(c)]
            case ".html":
                _HarmlessPage().feed(file.read_text(encoding="ascii"))
            case ".json":
                json.loads(file.read_text(encoding="utf-8"))
            case ".jpg" | ".png":
                with Image.open(file) as image:
                    image.load()
                continue
            case _:
                continue
        count += 1
    return count


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class _HarmlessPage(html.parser.HTMLParser):
    """Parser that raises an error if a page contains a script, a link, or an attribute with a script."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "a", "link", "iframe", "object", "base"), tag
        for name, value in attrs:
            assert not name.startswith("on") and name != "href", name
            assert name != "src" or (value or "").startswith("data:image/jpeg;base64,"), value
