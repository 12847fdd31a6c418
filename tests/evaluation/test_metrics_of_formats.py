"""Tests that data sets of all formats are checked and evaluated by their folder alone, with the same numbers."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.label_files import SIZE, WRITERS, write_coco, write_wider_face

from ssd_jax import config
from ssd_jax.data.check.checks import check_data_set
from ssd_jax.evaluation import run
from ssd_jax.inference.detections import ImageDetections

Objects = dict[str, list[tuple[str, tuple[int, int, int, int]]]]
NAMES, FACES = ("cat", "dog"), ("face",)
METRICS = ("voc_map_11point", "voc_map_area", "coco_ap")


def sample_objects(names: tuple[str, ...], images: int = 8) -> Objects:
    """Return random objects, at least one of them in each image."""
    rng = np.random.default_rng(3)
    objects: Objects = {}
    for k in range(images):
        low = rng.integers(0, (SIZE[0] - 30, SIZE[1] - 30), (rng.integers(1, 5), 2))
        boxes = np.concatenate([low, low + rng.integers(8, 30, low.shape)], axis=1).tolist()
        objects[f"{k}.jpg"] = [(names[int(rng.integers(len(names)))], tuple(box)) for box in boxes]
    return objects


def sample_detections(objects: Objects, names: tuple[str, ...]) -> dict[str, ImageDetections]:
    """Return stored detections: most objects at slightly wrong places, and some boxes where no object is."""
    rng = np.random.default_rng(4)
    found = {}
    for image, own in objects.items():
        kept = [entry for entry in own if rng.random() < 0.8] + [(names[-1], (1, 2, 21, 17))]
        boxes = np.array([box for _, box in kept], np.float32) + rng.normal(0, 1.5, (len(kept), 4)).astype(np.float32)
        labels = np.array([names.index(name) + 1 for name, _ in kept], np.int32)
        found[image] = ImageDetections(boxes, np.sort(rng.random(len(kept)).astype(np.float32))[::-1], labels)
    return found


def evaluate(root: Path, names: tuple[str, ...], stored: dict[str, ImageDetections]) -> dict[str, float]:
    """Return metrics of stored detections on the val split of a folder, as ``ssd-jax evaluate`` computes them."""
    settings = config.Config(model=config.Model(class_names=names))
    model = SimpleNamespace(
        config=settings, check_checkpoint=lambda checkpoint: None, folder=None, program=None, short_name="stored"
    )

    def predict(model, config, source, checkpoint, **options):
        images = [stored[Path(annotation.file).name] for annotation in source.annotations()]
        return run.SplitPrediction(images, 0, None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "open_detector", lambda run: model)
        patch.setattr(run, "predict_with_model", predict)
        metrics = run.evaluate("stored", "val", data_root=str(root))
    return {name: metrics[name] for name in METRICS}


@pytest.fixture(scope="module")
def metrics_in_cocos_format(tmp_path_factory) -> dict[tuple[str, ...], dict[str, float]]:
    """Return the metrics of the sampled objects and detections in a data set in COCO's format, by the class names."""
    metrics = {}
    for names in (NAMES, FACES):
        objects = sample_objects(names)
        root = tmp_path_factory.mktemp("coco")
        write_coco(root / "val", objects)
        metrics[names] = evaluate(root, names, sample_detections(objects, names))
        assert 0.1 < metrics[names]["coco_ap"] < metrics[names]["voc_map_area"] < 0.9, "some detections are wrong"
    return metrics


ALL = [writer for writers in (*WRITERS.values(), [write_wider_face]) for writer in writers]


@pytest.mark.parametrize("writer", ALL, ids=lambda writer: writer.__name__.removeprefix("write_"))
def test_formats_have_the_metrics_of_the_same_data_set_in_cocos_format(writer, metrics_in_cocos_format, tmp_path):
    names = FACES if writer is write_wider_face else NAMES
    objects = sample_objects(names)
    writer(tmp_path / "val", objects)
    metrics = evaluate(tmp_path, names, sample_detections(objects, names))
    assert metrics == pytest.approx(metrics_in_cocos_format[names], abs=1e-12)
    data = config.Data(root=str(tmp_path), train_split="val", val_split="val")
    check = check_data_set(config.Config(data=data), read_images=False)
    assert sum(check.counts["val"].objects.values()) == sum(map(len, objects.values()))
