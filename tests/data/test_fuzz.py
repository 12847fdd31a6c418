"""Random changes of valid data sets: reading them ends with a message for users, and no object is lost silently."""

import json
import os
import random
import re
import shutil
import unicodedata
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
from helpers.label_files import WRITERS as LABELLING_WRITERS
from helpers.label_files import write_wider_face
from PIL import Image

from ssd_jax.config import Config, Data
from ssd_jax.data.check.checks import check_data_set
from ssd_jax.data.problems import Problems, Severity
from ssd_jax.errors import UserError

IMAGES = 4  # images of train; val has half as many
BOXES = ((2, 3, 20, 17), (8, 5, 36, 28))  # xyxy boxes of the two objects of each image of 40 x 30 pixels
OBJECTS = 2 * (IMAGES + IMAGES // 2)
ODD_TEXTS = (
    "",
    " ",
    "nan",
    "-1",
    "1e400",
    "\u732b",
    "a\nb",
    "\x1b[31m",
    "null",
    "=cmd",
    "../x",
    "99999999999999999999",
    "a" * 300,
)


def write_voc(root: Path) -> None:
    for split, stems in list_stems().items():
        for stem in stems:
            objects = "".join(
                f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
                "</bndbox></object>"
                for name, (x1, y1, x2, y2) in zip(("cat", "dog"), BOXES, strict=True)
            )
            write(
                root / "Annotations" / f"{stem}.xml",
                f"<annotation><filename>{stem}.jpg</filename>{objects}</annotation>",
            )
            write_image(root / "JPEGImages" / f"{stem}.jpg")
        write(root / "ImageSets" / "Main" / f"{split}.txt", "\n".join(stems) + "\n")


def write_coco(root: Path) -> None:
    for split, stems in list_stems().items():
        images = [{"id": k, "file_name": f"{stem}.jpg", "width": 40, "height": 30} for k, stem in enumerate(stems, 1)]
        annotations = [
            {
                "id": 2 * image["id"] + k,
                "image_id": image["id"],
                "category_id": k + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
            }
            for image in images
            for k, (x1, y1, x2, y2) in enumerate(BOXES)
        ]
        categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        write(root / "annotations" / f"instances_{split}.json", json.dumps(content, indent=1))
        for stem in stems:
            write_image(root / split / f"{stem}.jpg")


def write_yolo(root: Path) -> None:
    for split, stems in list_stems().items():
        for stem in stems:
            lines = [
                f"{k} {(x1 + x2) / 80} {(y1 + y2) / 60} {(x2 - x1) / 40} {(y2 - y1) / 30}"
                for k, (x1, y1, x2, y2) in enumerate(BOXES)
            ]
            write(root / "labels" / split / f"{stem}.txt", "\n".join(lines) + "\n")
            write_image(root / "images" / split / f"{stem}.jpg")
    write(root / "data.yaml", "train: images/train\nval: images/val\nnames: [cat, dog]\n")


def list_stems() -> dict[str, list[str]]:
    return {"train": [f"p{k}" for k in range(IMAGES)], "val": [f"q{k}" for k in range(IMAGES // 2)]}


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def write_image(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), "navy").save(file, "JPEG")


# ---- changes ----


def pick_file(root: Path, rng: random.Random, *, only_text: bool = False) -> Path:
    files = sorted(file for file in root.rglob("*") if file.is_file() and not (only_text and file.suffix == ".jpg"))
    return rng.choice(files)


def cut_file(root: Path, rng: random.Random) -> None:
    file = pick_file(root, rng)
    data = file.read_bytes()
    file.write_bytes(data[: rng.randrange(len(data))])


def flip_bytes(root: Path, rng: random.Random) -> None:
    file = pick_file(root, rng, only_text=True)
    data = bytearray(file.read_bytes())
    for _ in range(rng.randint(1, 5)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    file.write_bytes(data)


def replace_value(root: Path, rng: random.Random) -> None:
    """Replace a number or a word in a text file by an odd text."""
    file = pick_file(root, rng, only_text=True)
    text = file.read_text()
    match = rng.choice(list(re.finditer(r"[\w.]+", text)))
    file.write_text(text[: match.start()] + rng.choice(ODD_TEXTS) + text[match.end() :])


def remove_line(root: Path, rng: random.Random) -> None:
    file = pick_file(root, rng, only_text=True)
    lines = file.read_text().splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    file.write_text("".join(lines))


def remove_file(root: Path, rng: random.Random) -> None:
    pick_file(root, rng).unlink()


def rename_file(root: Path, rng: random.Random) -> None:
    """Give a file a name in another spelling or with odd characters."""
    file = pick_file(root, rng)
    odd = rng.choice(
        ("\x1b[31m", "caf\u00e9", "\u05d0\u05d1", "\U0001f431", "a b", "x" * 200, os.fsdecode(b"\xe9"), "$x_^")
    )
    name = rng.choice((file.name.upper(), unicodedata.normalize("NFD", f"\u00e9{file.name}"), odd + file.suffix))
    file.rename(file.with_name(name))


def change_encoding(root: Path, rng: random.Random) -> None:
    file = pick_file(root, rng, only_text=True)
    file.write_bytes(
        file.read_text().replace("cat", "caf\u00e9").encode(rng.choice(("utf-16", "latin-1", "utf-8-sig")))
    )


def add_leftovers(root: Path, rng: random.Random) -> None:
    for file in list(root.rglob("*")):
        if file.is_file():
            file.with_name(f"._{file.name}").write_bytes(b"\x00\x05\x16\x07")
    write(root / ".idea" / "workspace.xml", "<project><annotation/></project>")
    write(root / rng.choice(("Thumbs.db", "desktop.ini", "__MACOSX/a.jpg")), "")


def rename_folder(root: Path, rng: random.Random) -> None:
    folder = rng.choice(sorted(place for place in root.rglob("*") if place.is_dir()))
    folder.rename(folder.with_name(rng.choice((folder.name.upper(), f"my_{folder.name}", "stuff"))))


CHANGES: tuple[Callable[[Path, random.Random], None], ...] = (
    cut_file, flip_bytes, replace_value, remove_line, remove_file, rename_file, change_encoding, add_leftovers,
    rename_folder,
)  # fmt: skip


def write_splits(root: Path, writer: Callable[[Path, object], None]) -> None:
    """Write the same images and objects by a writer of `helpers.label_files`, with a folder for each split."""
    for split, stems in list_stems().items():
        writer(root / split, {f"{stem}.jpg": list(zip(("cat", "dog"), BOXES, strict=True)) for stem in stems})


WRITERS: dict[str, Callable[[Path], None]] = {"voc": write_voc, "coco": write_coco, "yolo": write_yolo}
LABELLING_TOOLS = {
    writer.__name__.removeprefix("write_"): partial(write_splits, writer=writer)
    for writers in (*LABELLING_WRITERS.values(), [write_wider_face])
    for writer in writers
}
ALL_WRITERS = WRITERS | LABELLING_TOOLS


def count_objects(root: Path) -> tuple[int, bool]:
    """Return the number of objects that are read, and whether a problem or an error was reported.

    Notes do not count as problems, because they are about data that is read.
    """
    problems = Problems(raise_errors=False)
    try:
        check = check_data_set(Config(data=Data(root=str(root))), read_images=False, problems=problems)
    except UserError:
        return 0, True
    is_reported = any(problem.kind.severity is not Severity.NOTE for problem in problems.collected)
    return sum(sum(count.objects.values()) for count in check.counts.values()), is_reported


def assert_nothing_is_lost(root: Path, seed: int, writers: Mapping[str, Callable[[Path], None]] = WRITERS) -> None:
    rng = random.Random(seed)
    kind = rng.choice(sorted(writers))
    writers[kind](root)
    changes = rng.choices(CHANGES, k=rng.choice((1, 1, 2)))
    for change in changes:
        try:
            change(root, rng)
        except (ValueError, IndexError):
            continue  # the change does not apply to this file, such as one that is not in UTF-8 any more
    objects, is_reported = count_objects(root)
    names = [change.__name__ for change in changes]
    # A removed line may be a whole object with its line, which nothing can notice.
    if "remove_line" not in names and "cut_file" not in names:
        assert objects >= OBJECTS or is_reported, f"seed {seed}: {kind}, {names}: {objects} of {OBJECTS} objects"


@pytest.mark.parametrize("kind", sorted(ALL_WRITERS))
def test_unchanged_data_sets_are_read_without_problems(tmp_path, kind):
    ALL_WRITERS[kind](tmp_path)
    assert count_objects(tmp_path) == (OBJECTS, False)


@pytest.mark.parametrize("start", range(0, 60, 20))
def test_changed_data_sets_are_read_or_reported(tmp_path, start):
    for seed in range(start, start + 20):
        assert_nothing_is_lost(tmp_path / str(seed), seed)


def test_changed_files_of_labelling_tools_are_read_or_reported(tmp_path):
    for seed in range(60):
        assert_nothing_is_lost(tmp_path / str(seed), seed, LABELLING_TOOLS)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(60, 2060, 200))
def test_many_changed_data_sets_are_read_or_reported(tmp_path, start):
    for seed in range(start, start + 200):
        for writers in (WRITERS, LABELLING_TOOLS):
            root = tmp_path / str(seed)
            assert_nothing_is_lost(root, seed, writers)
            shutil.rmtree(root)
