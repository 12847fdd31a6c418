"""Write archives like those of VOC 2007 and COCO 2017, with the same layout and names but only a few small images.

The constants VOC and COCO describe the images and objects of each split. Tests compare the data that they read with
these constants.
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


class ObjectSpec(NamedTuple):
    """An object in an image."""

    name: str
    box: tuple[float, float, float, float]
    """Box, xyxy in pixels."""
    difficult: bool = False
    crowd: bool = False
    area: float = 0.0
    """Area of the segment in COCO, in square pixels."""


class ImageSpec(NamedTuple):
    """An image and its objects."""

    stem: str
    size: tuple[int, int]
    """Width and height in pixels."""
    objects: tuple[ObjectSpec, ...] = ()
    grey: bool = False


VOC: dict[str, tuple[ImageSpec, ...]] = {
    "train": (
        ImageSpec(
            "000012",
            (60, 40),
            (ObjectSpec("car", (16, 10, 35, 27)), ObjectSpec("person", (1, 1, 60, 40), difficult=True)),
        ),
        ImageSpec("000017", (48, 64), (ObjectSpec("horse", (19, 8, 41, 33)),), grey=True),
        ImageSpec("000023", (50, 37)),
    ),
    "val": (ImageSpec("000005", (51, 33), (ObjectSpec("chair", (26, 11, 32, 33)), ObjectSpec("dog", (5, 4, 7, 8)))),),
    "test": (
        ImageSpec("000001", (35, 50), (ObjectSpec("dog", (4, 24, 19, 37)), ObjectSpec("person", (1, 1, 35, 50)))),
        ImageSpec("000002", (33, 50), (ObjectSpec("train", (13, 20, 20, 30)),)),
    ),
}
COCO: dict[str, tuple[ImageSpec, ...]] = {
    "train": (
        ImageSpec("000000000009", (64, 48), (
            ObjectSpec("bowl", (1.08, 18.79, 61.29, 47.41), area=1205.7852),
            ObjectSpec("orange", (31.26, 0.4, 56.49, 23.6), area=0.53),
        )),
        ImageSpec("000000000025", (40, 60)),
    ),
    "val": (
        ImageSpec("000000000139", (50, 34), (
            ObjectSpec("tv", (23.69, 15.75, 41.22, 20.13), area=53.4),
            ObjectSpec("bowl", (0.0, 4.5, 50.0, 33.5), crowd=True, area=907.0),
        ), grey=True),
    ),
    "test": (ImageSpec("000000000001", (32, 40)),),
}  # fmt: skip
COCO_IDS = {"bowl": 51, "orange": 55, "tv": 72}
"""Category ids of the classes in the constant COCO, as in the real data set: its 80 classes have ids from 1 to 90."""

VOC_ARCHIVES = {"VOCtrainval_06-Nov-2007.tar": ("train", "val"), "VOCtest_06-Nov-2007.tar": ("test",)}


def make_pixels(spec: ImageSpec) -> np.ndarray:
    """Return the pixels of a smooth image, which JPEG hardly changes. The amount of blue depends on the stem."""
    width, height = spec.size
    y, x = np.mgrid[0:height, 0:width]
    blue = np.full_like(x, int(spec.stem) * 40 % 256)
    image = np.stack([x * 255 // width, y * 255 // height, blue], axis=-1).astype(np.uint8)
    return np.repeat(image[..., :1], 3, axis=-1) if spec.grey else image


def encode_jpeg(spec: ImageSpec) -> bytes:
    """Return an image as the content of a JPEG file."""
    buffer = io.BytesIO()
    image = Image.fromarray(make_pixels(spec))
    (image.convert("L") if spec.grey else image).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write_voc_2007(folder: Path) -> None:
    """Write the archives of VOC 2007 to a folder."""
    for archive, splits in VOC_ARCHIVES.items():
        top = "VOCdevkit/VOC2007"
        files = {f"{top}/ImageSets/Main/{split}.txt": _format_stems(VOC[split]) for split in splits}
        for spec in (spec for split in splits for spec in VOC[split]):
            files[f"{top}/JPEGImages/{spec.stem}.jpg"] = encode_jpeg(spec)
            files[f"{top}/Annotations/{spec.stem}.xml"] = _make_voc_xml(spec)
        with tarfile.open(folder / archive, "w") as tar:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


def write_coco_2017(folder: Path) -> None:
    """Write the archives of COCO 2017 to a folder."""
    for split, specs in COCO.items():
        images = {f"{split}2017/{spec.stem}.jpg": encode_jpeg(spec) for spec in specs}
        _write_zip(folder / f"{split}2017.zip", images)
    instances = {f"annotations/instances_{split}2017.json": _make_coco_json(COCO[split]) for split in ("train", "val")}
    _write_zip(folder / "annotations_trainval2017.zip", instances)
    _write_zip(
        folder / "image_info_test2017.zip", {"annotations/image_info_test2017.json": _make_coco_json(COCO["test"])}
    )


def _format_stems(specs: Sequence[ImageSpec]) -> bytes:
    return "".join(f"{spec.stem}\n" for spec in specs).encode()


def _make_voc_xml(spec: ImageSpec) -> bytes:
    width, height = spec.size
    text = f"<annotation><size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    for entry in spec.objects:
        edges = "".join(
            f"<{tag}>{x}</{tag}>" for tag, x in zip(("xmin", "ymin", "xmax", "ymax"), entry.box, strict=True)
        )
        text += (
            f"<object><name>{entry.name}</name><pose>Unspecified</pose><truncated>0</truncated>"
            f"<difficult>{int(entry.difficult)}</difficult><bndbox>{edges}</bndbox></object>"
        )
    return f"{text}</annotation>".encode()


def _make_coco_json(specs: Sequence[ImageSpec]) -> bytes:
    names = {number: name for name, number in COCO_IDS.items()}
    ids = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    categories = [{"id": number, "name": names.get(number, f"class {number}")} for number in ids]
    images = [{"id": int(s.stem), "file_name": f"{s.stem}.jpg", "width": s.size[0], "height": s.size[1]} for s in specs]
    annotations = [
        {
            "id": 100 * int(spec.stem) + number,
            "image_id": int(spec.stem),
            "category_id": COCO_IDS[entry.name],
            "bbox": [*entry.box[:2], entry.box[2] - entry.box[0], entry.box[3] - entry.box[1]],
            "area": entry.area,
            "iscrowd": int(entry.crowd),
        }
        for spec in specs
        for number, entry in enumerate(spec.objects)
    ]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode()


def _write_zip(file: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
