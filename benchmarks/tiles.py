"""Compare detection with and without tiles on large images that are mosaics of the images of a data set.

    python -m benchmarks.tiles RUN DATA --out runs/mosaics

1. Put the images of a split into mosaics of 4 x 4, in their order, as a data set in VOC's format. Images that do not
   fill a mosaic are left out.
2. Evaluate the detector on the single images, on the mosaics, and on the mosaics with tiles of each size.
3. Print a table with mAP, seconds of CPU per mosaic and the number of tiles, and write it to tiles.md.
"""

import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from PIL import Image
from tabulate import tabulate

from ssd_jax import files
from ssd_jax.config import Data
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.source import Source
from ssd_jax.evaluation.evaluator import compute_metrics, detect_split
from ssd_jax.inference.tiles import make_tiles
from ssd_jax.model_zoo.opening import load


@dataclass(frozen=True)
class Options:
    """Compare detection with and without tiles on mosaics."""

    run: Annotated[str, tyro.conf.Positional]
    """Run folder, or name of a model."""
    data: Annotated[Path, tyro.conf.Positional]
    """Folder of a data set."""
    out: Path = Path("runs/mosaics")
    """Folder for the mosaics and the table."""
    split: str = "test"
    """Split of the data set."""
    side: int = 4
    """Number of images in a row and in a column of a mosaic."""
    tiles: tuple[int, ...] = (320, 480, 640, 960, 1280)
    """Sides of the tiles in pixels."""
    overlap: float = 0.2
    """Least share of the side that neighbouring tiles have in common."""


def make_mosaic(images: Sequence[np.ndarray], boxes_px: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of s x s images of one size, and their boxes as xyxy in pixels of it."""
    side = round(len(images) ** 0.5)
    height, width = images[0].shape[:2]
    rows = [np.concatenate(images[row * side : (row + 1) * side], axis=1) for row in range(side)]
    moved = [
        boxes + np.tile([position % side * width, position // side * height], 2)
        for position, boxes in enumerate(boxes_px)
    ]
    return np.concatenate(rows), np.concatenate(moved)


def write_mosaics(source: Source, folder: Path, side: int) -> int:
    """Write the images of a split as mosaics in VOC's format, as the split ``test``. Return their number."""
    count = len(source) // side**2
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        positions = range(number * side**2, (number + 1) * side**2)
        annotations = [source.annotation(position) for position in positions]
        pixels, boxes = make_mosaic([source.image(i) for i in positions], [a.boxes_px for a in annotations])
        labels = np.concatenate([a.labels for a in annotations])
        Image.fromarray(pixels).save(folder / "JPEGImages" / f"{number}.png")
        root = ElementTree.Element("annotation")
        for label, box in zip(labels.tolist(), boxes.tolist(), strict=True):
            node = ElementTree.SubElement(root, "object")
            ElementTree.SubElement(node, "name").text = source.class_names[label - 1]
            corners = ElementTree.SubElement(node, "bndbox")
            for name, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
                ElementTree.SubElement(corners, name).text = str(value)
        ElementTree.ElementTree(root).write(folder / "Annotations" / f"{number}.xml")
    files.write_text(folder / "ImageSets/Main/test.txt", "".join(f"{number}\n" for number in range(count)))
    return count


def compare(options: Options) -> list[dict[str, Any]]:
    """Return a row for each way to detect."""
    detector = load(options.run)
    single = open_source(Data(root=str(options.data)), options.split, detector.class_names)
    folder = options.out / "mosaics"
    count = write_mosaics(single, folder, options.side)
    mosaics = open_source(Data(root=str(folder)), "test", detector.class_names)
    width, height = mosaics.annotation(0).width, mosaics.annotation(0).height
    # A tile as large as the image means that there are no tiles.
    ways = [("single images", single, max(width, height)), ("mosaics, no tiles", mosaics, max(width, height))]
    ways += [(f"mosaics, tiles of {tile} px", mosaics, tile) for tile in options.tiles]
    rows = []
    for name, source, tile in ways:
        warm = source.image(0)
        detector.tiled(warm, tile=tile, overlap=options.overlap)  # compiles
        start = time.process_time()
        detections = detect_split(detector, source, tile=tile, overlap=options.overlap)
        seconds = time.process_time() - start
        metrics = compute_metrics(detections, source)
        views = len(make_tiles(width, height, tile, options.overlap)) + (tile < max(width, height))
        rows.append({
            "images": name, "views": 1 if source is single else views,
            "mAP 11-point": metrics["voc_map_11point"], "mAP area": metrics["voc_map_area"],
            "COCO AP": metrics["coco_ap"], "s of CPU per image": seconds / len(source),
        })  # fmt: skip
    print(f"{count} mosaics of {width} x {height} px")
    return rows


def main() -> None:
    """Run the comparison with the options of the command line."""
    options = tyro.cli(Options, args=sys.argv[1:])
    table = tabulate(compare(options), headers="keys", floatfmt=".3f", tablefmt="github")
    print(table)
    files.write_text(options.out / "tiles.md", table + "\n")


if __name__ == "__main__":
    main()
