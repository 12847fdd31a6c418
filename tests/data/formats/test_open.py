"""One data set in VOC, COCO and YOLO: the same items from each, and the same measurements of one checkpoint."""

import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import command, write_voc_folder
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.formats.open import find_format, open_source


def read_voc(root: Path, split: str):
    """Stem, image file, size, and class name with xyxy of each object, by ElementTree alone."""
    for stem in (root / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
        (image,) = (root / "JPEGImages").glob(f"{stem}.*")
        with Image.open(image) as picture:
            size = picture.size
        tree = ElementTree.parse(root / "Annotations" / f"{stem}.xml")
        objects = [
            (node.findtext("name"), [float(node.findtext(f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax")])
            for node in tree.iter("object")
        ]
        yield stem, image, size, objects


def to_coco(voc: Path, out: Path, splits: list[str], names: list[str]) -> Path:
    (out / "annotations").mkdir(parents=True)
    for split in splits:
        content = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 7 * k, "name": n} for k, n in enumerate(names)],
        }
        (out / split).mkdir()
        for number, (_, image, (width, height), objects) in enumerate(read_voc(voc, split), start=100):
            shutil.copy(image, out / split)
            content["images"].append({"id": number, "file_name": image.name, "width": width, "height": height})
            for name, (x1, y1, x2, y2) in objects:
                entry = {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": 7 * names.index(name),
                }
                content["annotations"].append(
                    entry | {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
                )
        (out / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return out


def to_yolo(voc: Path, out: Path, splits: list[str], names: list[str]) -> Path:
    for split in splits:
        for part in ("images", "labels"):
            (out / part / split).mkdir(parents=True)
        for stem, image, (width, height), objects in read_voc(voc, split):
            shutil.copy(image, out / "images" / split)
            lines = []
            for name, (x1, y1, x2, y2) in objects:
                box = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
                lines.append(" ".join([str(names.index(name)), *(f"{share:.8f}" for share in box)]))
            (out / "labels" / split / f"{stem}.txt").write_text("\n".join(lines))
    listed = "\n".join(f"  {k}: {name}" for k, name in enumerate(names))
    paths = "\n".join(f"{split}: images/{split}" for split in splits)
    (out / "data.yaml").write_text(f"path: .\n{paths}\nnames:\n{listed}\n")
    return out


def items(root: Path, split: str):
    source = open_source(Data(root=str(root)), split)
    found = list(source.annotations())
    return source, sorted(found, key=lambda a: Path(a.file).stem)


def assert_same_items(voc: Path, tmp_path: Path, splits: list[str], names: list[str]) -> None:
    roots = {
        "coco": to_coco(voc, tmp_path / "coco", splits, names),
        "yolo": to_yolo(voc, tmp_path / "yolo", splits, names),
    }
    for split in splits:
        source, expected = items(voc, split)
        for kind, root in roots.items():
            assert find_format(Data(root=str(root))) == kind
            other, found = items(root, split)
            assert other.class_names == source.class_names and len(found) == len(expected)
            for a, b in zip(found, expected, strict=True):
                assert Path(a.file).name == Path(b.file).name and (a.width, a.height) == (b.width, b.height)
                np.testing.assert_array_equal(a.labels, b.labels)
                # COCO keeps left and width, YOLO eight decimals of the share of the image.
                np.testing.assert_allclose(a.boxes_px, b.boxes_px, rtol=0, atol=2e-4)
                np.testing.assert_allclose(a.area_px, b.area_px, rtol=1e-3, atol=0.1)


def test_bccd_reads_the_same_in_three_formats(bccd, tmp_path):
    assert_same_items(bccd, tmp_path, ["val", "test"], ["Platelets", "RBC", "WBC"])


@pytest.fixture(scope="module")
def one_set(tmp_path_factory):
    base = tmp_path_factory.mktemp("formats")
    voc = write_voc_folder(base / "voc", {"train": 4, "test": 12})
    names = ["circle", "square", "star", "triangle"]
    return {
        "voc": voc, "coco": to_coco(voc, base / "coco", ["train", "test"], names),
        "yolo": to_yolo(voc, base / "yolo", ["train", "test"], names),
    }  # fmt: skip


def test_one_checkpoint_measures_the_same_in_three_formats(one_set, trained_run, tmp_path):
    measured = {}
    for kind, root in one_set.items():
        run = shutil.copytree(trained_run, tmp_path / kind)
        assert command("evaluate", run, "--data.root", root) == 0
        measured[kind] = json.loads((run / "metrics.json").read_text())
    assert measured["voc"]["images"] == 12 and measured["voc"]["voc_map_area"] > 0
    for kind in ("coco", "yolo"):
        for key, value in measured["voc"].items():
            if isinstance(value, float):
                assert measured[kind][key] == pytest.approx(value, abs=1e-9), (kind, key)
        assert measured[kind]["voc_classes"] == measured["voc"]["voc_classes"]
