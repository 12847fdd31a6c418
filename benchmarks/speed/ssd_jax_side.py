"""The benchmark tasks, implemented with ssd_jax.

The function prepare_<name of the task> prepares a task and returns a function that runs the task once. The returned
function blocks until everything is computed, and returns numbers to compare with those of torchvision_side.py. All
prepare functions take the folder of the scene and the name of a variant, which is not used here.
"""

import contextlib
import dataclasses
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.speed.scene import COCO_CLASSES
from ssd_jax.aot.flops import count_flops
from ssd_jax.config import Augment, DefaultBoxes, Detect, Model
from ssd_jax.data.image import read_reduced_image, reduce_to_fit
from ssd_jax.data.source import Annotation
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics.average_precision import evaluate_coco
from ssd_jax.models.ssd import SSD
from ssd_jax.ops.augmentation import augment as augment_image
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.ops.detection import detect
from ssd_jax.ops.loss import multibox_loss
from ssd_jax.ops.matching import match
from ssd_jax.runtime import compilation

Call = Callable[[], Any]
MODEL = Model(class_names=tuple(f"class {i}" for i in range(1, 21)))
BOXES = DefaultBoxes()


def read_scene(folder: Path) -> dict[str, np.ndarray]:
    """Return the arrays that `write_scene` wrote, by name."""
    with np.load(folder / "scene.npz") as file:
        return dict(file)


def compile_function(function: Callable) -> Callable:
    """Return a function wrapped in jax.jit, with the compiler options that the commands of ssd-jax use."""
    compilation.release_compiler_memory()  # the commands do this, too
    return jax.jit(function, compiler_options=compilation.compiler_options())


def describe_program(program: Any, images: int, *arguments: Any) -> dict[str, Any]:
    """Return the FLOPs of a program per image, and the platform and kind of the device."""
    device = jax.devices()[0]
    flops = count_flops(program.trace(*arguments).jaxpr, 1) / images
    return {"flops": flops, "platform": device.platform, "device": device.device_kind}


def make_network(model: Model = MODEL) -> tuple[SSD, Any]:
    """Return the module of a model and random parameters."""
    module, size = SSD(model), model.image_size
    init = jax.jit(module.init)
    return module, init(jax.random.key(0, impl="rbg"), jnp.zeros((1, size, size, 3)))["params"]


def prepare_forward(folder: Path, variant: str) -> Call:
    """Prepare the forward pass of the network on the images of the scene."""
    images = jnp.asarray(read_scene(folder)["images"], jnp.float32)
    module, params = make_network()
    program = compile_function(lambda params, images: module.apply({"params": params}, images))
    result = describe_program(program, len(images), params, images)
    return lambda: jax.block_until_ready(program(params, images)) and result


def prepare_train(folder: Path, variant: str) -> Call:
    """Prepare a training step: forward pass, matching, loss and gradients."""
    return _prepare_training(read_scene(folder), MODEL)


def prepare_train_narrow(folder: Path, variant: str) -> Call:
    """Prepare a training step of the network in configs/own_data.py: a quarter of the channels, with GroupNorm."""
    return _prepare_training(read_scene(folder), dataclasses.replace(MODEL, width=0.25, norm="group"))


def _prepare_training(scene: dict[str, np.ndarray], model: Model) -> Call:
    """Prepare a training step of a model on the images and objects of the scene."""
    module, params = make_network(model)
    defaults = make_default_boxes(model.default_boxes)

    def compute_loss(params: Any, images: jax.Array, boxes: jax.Array, labels: jax.Array) -> jax.Array:
        targets = jax.vmap(partial(match, default_boxes=defaults))(boxes, labels)
        predictions: Any = module.apply({"params": params}, images)
        return multibox_loss(predictions.offsets, predictions.logits, targets)[0]

    program = compile_function(jax.value_and_grad(compute_loss))
    arrays = jnp.asarray(scene["images"], jnp.float32), jnp.asarray(scene["boxes"]), jnp.asarray(scene["labels"])
    result = describe_program(program, len(arrays[0]), params, *arrays)
    return lambda: jax.block_until_ready(program(params, *arrays)) and result


def _prepare_detection(folder: Path, classes: int) -> Call:
    """Prepare decoding and NMS of the network outputs in the scene."""
    scene = read_scene(folder)
    defaults = make_default_boxes(BOXES)
    detect_one = partial(detect, default_boxes=defaults, variances=BOXES.variances, config=Detect())
    program = compile_function(jax.vmap(detect_one))
    arrays = jnp.asarray(scene[f"offsets_{classes}"]), jnp.asarray(scene[f"logits_{classes}"])
    return lambda: jax.block_until_ready(program(*arrays)).valid.sum(axis=1).tolist()


def prepare_detect_21(folder: Path, variant: str) -> Call:
    """Prepare decoding and NMS with 21 classes."""
    return _prepare_detection(folder, 21)


def prepare_detect_91(folder: Path, variant: str) -> Call:
    """Prepare decoding and NMS with 91 classes."""
    return _prepare_detection(folder, 91)


def prepare_loss(folder: Path, variant: str) -> Call:
    """Prepare matching, hard negative mining and the loss of the network outputs in the scene."""
    scene = read_scene(folder)
    defaults = make_default_boxes(BOXES)

    def compute_loss(offsets: jax.Array, logits: jax.Array, boxes: jax.Array, labels: jax.Array) -> jax.Array:
        targets = jax.vmap(partial(match, default_boxes=defaults))(boxes, labels)
        return multibox_loss(offsets, logits, targets)[0]

    program = compile_function(compute_loss)
    arrays = [jnp.asarray(scene[name]) for name in ("offsets_21", "logits_21", "boxes", "labels")]
    return lambda: round(float(program(*arrays)), 2)


def prepare_augment(folder: Path, variant: str) -> Call:
    """Prepare the augmentation of the images of the scene, with a new seed in each call."""
    scene = read_scene(folder)

    def augment_one(key: jax.Array, image: jax.Array, boxes: jax.Array, labels: jax.Array) -> Any:
        return augment_image(key, image, 300, boxes, labels, Augment())

    program = compile_function(
        lambda seed, *arrays: jax.vmap(augment_one)(
            jax.random.split(jax.random.key(seed), len(scene["photos"])), *arrays
        )
    )
    arrays = [jnp.asarray(scene[name]) for name in ("photos", "boxes", "labels")]
    seeds = iter(range(10**9))
    return lambda: list(jax.block_until_ready(program(next(seeds), *arrays))[0].shape)


def prepare_read(folder: Path, variant: str) -> Call:
    """Prepare reading of the JPEG files of the scene, as in the loader."""
    files = sorted(folder.glob("*.jpg"))
    return lambda: [list(read_reduced_image(file, None, (640, 640))[0].shape) for file in files]


def prepare_large_photo(folder: Path, variant: str) -> Call:
    """Prepare reading of a large image as in the loader, for a canvas of 640 pixels."""
    file, canvas = folder / "large_photo.jpeg", (640, 640)
    return lambda: list(reduce_to_fit(read_reduced_image(file, None, canvas)[0], canvas).shape)


def prepare_coco(folder: Path, variant: str) -> Call:
    """Prepare the evaluation of the detections that `scene.write_coco` wrote."""
    truth, predictions = (json.loads((folder / name).read_text()) for name in ("truth.json", "detections.json"))
    names = [category["name"] for category in truth["categories"]]
    objects, detections = group_by_image(truth["annotations"]), group_by_image(predictions)
    annotations = [make_annotation(image, objects[image["id"]]) for image in truth["images"]]
    images = [
        ImageDetections(d["boxes"].astype(np.float32), d["scores"].astype(np.float32), d["labels"])
        for d in (detections[image["id"]] for image in truth["images"])
    ]
    assert len(names) == COCO_CLASSES

    def evaluate() -> list[float]:
        with contextlib.redirect_stdout(io.StringIO()):
            numbers = evaluate_coco(images, annotations, names)
        return [round(number, 3) for number in numbers.values() if number is not None]

    return evaluate


def group_by_image(entries: list[dict[str, Any]]) -> dict[int, dict[str, np.ndarray]]:
    """Return a dict from each image id to the entries of the image in a COCO file, converted by `to_arrays`."""
    entries_of_image: dict[int, list[dict[str, Any]]] = {}
    for entry in entries:
        entries_of_image.setdefault(entry["image_id"], []).append(entry)
    return {image: to_arrays(rows) for image, rows in entries_of_image.items()}


def to_arrays(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Return the boxes (xyxy in pixels), labels and scores of some entries of a COCO file as arrays."""
    boxes = np.array([row["bbox"] for row in rows])
    boxes[:, 2:] += boxes[:, :2]
    labels = np.array([row["category_id"] for row in rows], np.int32)
    return {"boxes": boxes, "labels": labels, "scores": np.array([row.get("score", 0) for row in rows])}


def make_annotation(image: dict[str, Any], objects: dict[str, np.ndarray]) -> Annotation:
    """Return the annotation of an image, made from the entry and the objects of the image in a COCO file."""
    boxes, labels = objects["boxes"].astype(np.float32), objects["labels"]
    none = np.zeros(len(labels), bool)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    name = str(image["id"])
    return Annotation(name, name, image["width"], image["height"], boxes, labels, none, none, area, image["id"])
