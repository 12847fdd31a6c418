"""Archives of VOC 2007 and COCO 2017 with a few small pictures, in the layout and under the names of the real ones.

What is in them stands in VOC and COCO below, as plain numbers: the truth for what reads a set made from them.
"""

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image


class Thing(NamedTuple):
    name: str
    box: tuple[float, float, float, float]
    """xyxy, pixels."""
    difficult: bool = False
    crowd: bool = False
    area: float = 0.0
    """COCO's, of the segment."""


class Picture(NamedTuple):
    stem: str
    size: tuple[int, int]
    """Width and height."""
    things: tuple[Thing, ...] = ()
    grey: bool = False


VOC: dict[str, tuple[Picture, ...]] = {
    "train": (
        Picture("000012", (60, 40), (Thing("car", (16, 10, 35, 27)), Thing("person", (1, 1, 60, 40), difficult=True))),
        Picture("000017", (48, 64), (Thing("horse", (19, 8, 41, 33)),), grey=True),
        Picture("000023", (50, 37)),
    ),
    "val": (Picture("000005", (51, 33), (Thing("chair", (26, 11, 32, 33)), Thing("dog", (5, 4, 7, 8)))),),
    "test": (
        Picture("000001", (35, 50), (Thing("dog", (4, 24, 19, 37)), Thing("person", (1, 1, 35, 50)))),
        Picture("000002", (33, 50), (Thing("train", (13, 20, 20, 30)),)),
    ),
}
COCO: dict[str, tuple[Picture, ...]] = {
    "train": (
        Picture("000000000009", (64, 48), (
            Thing("bowl", (1.08, 18.79, 61.29, 47.41), area=1205.7852),
            Thing("orange", (31.26, 0.4, 56.49, 23.6), area=0.53),
        )),
        Picture("000000000025", (40, 60)),
    ),
    "val": (
        Picture("000000000139", (50, 34), (
            Thing("tv", (23.69, 15.75, 41.22, 20.13), area=53.4),
            Thing("bowl", (0.0, 4.5, 50.0, 33.5), crowd=True, area=907.0),
        ), grey=True),
    ),
    "test": (Picture("000000000001", (32, 40)),),
}  # fmt: skip
COCO_IDS = {"bowl": 51, "orange": 55, "tv": 72}
"""COCO's numbers leave gaps: 80 classes from 1 to 90."""

VOC_ARCHIVES = {"VOCtrainval_06-Nov-2007.tar": ("train", "val"), "VOCtest_06-Nov-2007.tar": ("test",)}


def pixels(picture: Picture) -> np.ndarray:
    """Smooth, so that JPEG keeps them; each picture has its own blue."""
    width, height = picture.size
    y, x = np.mgrid[0:height, 0:width]
    blue = np.full_like(x, int(picture.stem) * 40 % 256)
    image = np.stack([x * 255 // width, y * 255 // height, blue], axis=-1).astype(np.uint8)
    return np.repeat(image[..., :1], 3, axis=-1) if picture.grey else image


def jpeg(picture: Picture) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels(picture))
    (image.convert("L") if picture.grey else image).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write_voc_2007(folder: Path) -> None:
    for archive, splits in VOC_ARCHIVES.items():
        top = "VOCdevkit/VOC2007"
        files = {f"{top}/ImageSets/Main/{split}.txt": _lines(VOC[split]) for split in splits}
        for picture in (picture for split in splits for picture in VOC[split]):
            files[f"{top}/JPEGImages/{picture.stem}.jpg"] = jpeg(picture)
            files[f"{top}/Annotations/{picture.stem}.xml"] = _voc_xml(picture)
        with tarfile.open(folder / archive, "w") as tar:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


def write_coco_2017(folder: Path) -> None:
    for split, pictures in COCO.items():
        images = {f"{split}2017/{picture.stem}.jpg": jpeg(picture) for picture in pictures}
        _write_zip(folder / f"{split}2017.zip", images)
    instances = {f"annotations/instances_{split}2017.json": _coco_json(COCO[split]) for split in ("train", "val")}
    _write_zip(folder / "annotations_trainval2017.zip", instances)
    _write_zip(folder / "image_info_test2017.zip", {"annotations/image_info_test2017.json": _coco_json(COCO["test"])})


def _lines(pictures: Sequence[Picture]) -> bytes:
    return "".join(f"{picture.stem}\n" for picture in pictures).encode()


def _voc_xml(picture: Picture) -> bytes:
    width, height = picture.size
    text = f"<annotation><size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    for thing in picture.things:
        edges = "".join(
            f"<{tag}>{x}</{tag}>" for tag, x in zip(("xmin", "ymin", "xmax", "ymax"), thing.box, strict=True)
        )
        text += (
            f"<object><name>{thing.name}</name><pose>Unspecified</pose><truncated>0</truncated>"
            f"<difficult>{int(thing.difficult)}</difficult><bndbox>{edges}</bndbox></object>"
        )
    return f"{text}</annotation>".encode()


def _coco_json(pictures: Sequence[Picture]) -> bytes:
    used = {number: name for name, number in COCO_IDS.items()}
    numbers = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    categories = [{"id": number, "name": used.get(number, f"class {number}")} for number in numbers]
    images = [
        {"id": int(p.stem), "file_name": f"{p.stem}.jpg", "width": p.size[0], "height": p.size[1]} for p in pictures
    ]
    annotations = [
        {
            "id": 100 * int(picture.stem) + number,
            "image_id": int(picture.stem),
            "category_id": COCO_IDS[thing.name],
            "bbox": [*thing.box[:2], thing.box[2] - thing.box[0], thing.box[3] - thing.box[1]],
            "area": thing.area,
            "iscrowd": int(thing.crowd),
        }
        for picture in pictures
        for number, thing in enumerate(picture.things)
    ]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode()


def _write_zip(file: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
