"""Fixtures of the tests of commands."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import run_command, write_voc_folder
from PIL import Image

from ssd_jax.config import Shapes
from ssd_jax.data.formats.shapes import CLASS_NAMES, ShapesSource

FailingCommand = Callable[..., str]


@pytest.fixture
def run_failing_command(capsys: pytest.CaptureFixture[str]) -> FailingCommand:
    """Return a function that runs a command, checks that the exit code is 2, and returns the output.

    The output must not contain a traceback.
    """

    def run_and_check(*argv: str | Path) -> str:
        capsys.readouterr()
        assert run_command(*argv) == 2
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return captured.err + captured.out

    return run_and_check


@pytest.fixture
def voc_folder(tmp_path: Path) -> Path:
    """Create a VOC folder with 8 train, 4 val and 6 test images, and return its path."""
    return write_voc_folder(tmp_path / "data", {"train": 8, "val": 4, "test": 6})


@pytest.fixture(scope="session")
def coco_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a COCO folder with annotated images in val2017 and the same images, unannotated, in test-dev2017.

    Image ids are descending, category ids are multiples of 10, one object is a crowd, and the areas of objects are
    smaller than those of the boxes, like areas of masks.
    """
    root = tmp_path_factory.mktemp("coco")
    source = ShapesSource(Shapes(val_images=6, image_size=64), "val")
    for folder in ("annotations", "val2017", "test2017"):
        (root / folder).mkdir()
    images, objects = [], []
    for i in range(6):
        annotation, name = source.annotation(i), f"{i:012d}.png"
        for folder in ("val2017", "test2017"):
            Image.fromarray(np.array(source.image(i))).save(root / folder / name)
        images.append({"id": 900 - 7 * i, "file_name": name, "width": 64, "height": 64})
        for label, (x1, y1, x2, y2) in zip(annotation.labels.tolist(), annotation.boxes_px.tolist(), strict=True):
            box = [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)]
            ids = {"id": len(objects) + 1, "image_id": images[-1]["id"], "category_id": 10 * label}
            objects.append({**ids, "bbox": box, "area": 0.7 * box[2] * box[3], "iscrowd": int(len(objects) == 3)})
    listed = {"images": images, "categories": [{"id": 10 * k, "name": n} for k, n in enumerate(CLASS_NAMES, start=1)]}
    (root / "annotations" / "image_info_test-dev2017.json").write_text(json.dumps(listed))
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps({**listed, "annotations": objects}))
    return root
