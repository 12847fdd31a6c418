"""The benchmark tasks, implemented with torchvision and pycocotools.

As in ssd_jax_side.py, each function prepares a task and returns a function that runs the task once. This module imports
nothing from ssd_jax.
"""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision.models.detection.image_list import ImageList
from torchvision.transforms import v2

from benchmarks.speed.tasks import CHANNELS_LAST

Call = Callable[[], Any]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def read_scene(folder: Path) -> dict[str, np.ndarray]:
    """Return the arrays that `scene.write_scene` wrote, by name."""
    with np.load(folder / "scene.npz") as file:
        return dict(file)


def make_model(classes: int = 21) -> Any:
    """Return torchvision's SSD300 with random weights."""
    torch.manual_seed(0)
    return torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=classes).to(
        DEVICE
    )


def synchronize() -> None:
    """Wait until a GPU has finished its work."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def to_memory_format(network: Any, images: torch.Tensor, variant: str) -> tuple[Any, torch.Tensor]:
    """Return the network and the images in the memory format of a variant."""
    if variant != CHANNELS_LAST:
        return network, images
    return network.to(memory_format=torch.channels_last), images.contiguous(memory_format=torch.channels_last)


def make_image_tensor(scene: dict[str, np.ndarray]) -> torch.Tensor:
    """Return the images of a scene as a tensor (images, 3, h, w) with values from 0 to 1."""
    return torch.from_numpy(scene["images"]).to(DEVICE).permute(0, 3, 1, 2).contiguous() / 255


def make_targets(scene: dict[str, np.ndarray]) -> list[dict[str, torch.Tensor]]:
    """Return the boxes (in pixels) and labels of each image in the form that torchvision expects."""
    return [
        {"boxes": torch.from_numpy(boxes).to(DEVICE) * 300, "labels": torch.from_numpy(labels).to(DEVICE)}
        for boxes, labels in zip(scene["boxes"], scene["labels"], strict=True)
    ]


def prepare_forward(folder: Path, variant: str) -> Call:
    """Prepare the forward pass of the network on the images of the scene."""
    network, images = to_memory_format(make_model().eval(), make_image_tensor(read_scene(folder)), variant)

    @torch.no_grad()
    def run_task() -> int:
        boxes = network.head(list(network.backbone(images).values()))["bbox_regression"]
        synchronize()
        return boxes.shape[1]

    return run_task


def prepare_train(folder: Path, variant: str) -> Call:
    """Prepare a training step: forward pass, matching, loss and gradients."""
    scene = read_scene(folder)
    network, images = to_memory_format(make_model().train(), make_image_tensor(scene), variant)
    targets = make_targets(scene)

    def run_task() -> bool:
        network.zero_grad(set_to_none=True)
        loss = sum(network(list(images), targets).values())
        loss.backward()
        synchronize()
        return loss.item() > 0

    return run_task


def _prepare_detection(folder: Path, classes: int) -> Call:
    """Prepare decoding and NMS of the network outputs in the scene."""
    scene = read_scene(folder)
    network = make_model(classes).eval()
    outputs = {
        "bbox_regression": torch.from_numpy(scene[f"offsets_{classes}"]).to(DEVICE),
        "cls_logits": torch.from_numpy(scene[f"logits_{classes}"]).to(DEVICE),
    }
    anchors = make_anchors(network, len(scene["images"]))

    @torch.no_grad()
    def run_task() -> list[int]:
        detections = network.postprocess_detections(outputs, anchors, [(300, 300)] * len(anchors))
        return [len(image["scores"]) for image in detections]

    return run_task


def prepare_detect_21(folder: Path, variant: str) -> Call:
    """Prepare decoding and NMS with 21 classes."""
    return _prepare_detection(folder, 21)


def prepare_detect_91(folder: Path, variant: str) -> Call:
    """Prepare decoding and NMS with 91 classes."""
    return _prepare_detection(folder, 91)


def make_anchors(network: Any, images: int) -> list[torch.Tensor]:
    """Return the default boxes in pixels, once for each image."""
    maps = [torch.zeros(images, 1, side, side, device=DEVICE) for side in (38, 19, 10, 5, 3, 1)]
    empty = torch.zeros(images, 3, 300, 300, device=DEVICE)
    return network.anchor_generator(ImageList(empty, [(300, 300)] * images), maps)


def prepare_loss(folder: Path, variant: str) -> Call:
    """Prepare matching, hard negative mining and the loss of the network outputs in the scene."""
    scene = read_scene(folder)
    network, targets = make_model().train(), make_targets(scene)
    outputs = {
        "bbox_regression": torch.from_numpy(scene["offsets_21"]).to(DEVICE),
        "cls_logits": torch.from_numpy(scene["logits_21"]).to(DEVICE),
    }
    anchors = make_anchors(network, len(targets))

    @torch.no_grad()
    def run_task() -> float:
        matched = [
            network.proposal_matcher(torchvision.ops.box_iou(target["boxes"], boxes))
            for target, boxes in zip(targets, anchors, strict=True)
        ]
        return round(float(sum(network.compute_loss(targets, outputs, anchors, matched).values())), 2)

    return run_task


def prepare_augment(folder: Path, variant: str) -> Call:
    """Prepare the augmentation of torchvision's SSD recipe (references/detection/presets.py), followed by resizing."""
    torch.set_num_threads(1)
    scene = read_scene(folder)
    transform = v2.Compose(
        [
            v2.RandomPhotometricDistort(),
            v2.RandomZoomOut(fill={torchvision.tv_tensors.Image: (123, 117, 104), "others": 0}),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(p=0.5),
            v2.SanitizeBoundingBoxes(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Resize((300, 300), antialias=False),
        ]
    )
    images = [torchvision.tv_tensors.Image(torch.from_numpy(p).permute(2, 0, 1)) for p in scene["photos"]]
    size = images[0].shape[-2:]
    targets = [
        {
            "boxes": torchvision.tv_tensors.BoundingBoxes(
                torch.from_numpy(boxes * [size[1], size[0], size[1], size[0]]), format="XYXY", canvas_size=size
            ),
            "labels": torch.from_numpy(labels),
        }
        for boxes, labels in zip(scene["boxes"], scene["labels"], strict=True)
    ]

    def run_task() -> list[int]:
        augmented = [transform(image, target)[0] for image, target in zip(images, targets, strict=True)]
        return [len(augmented), *augmented[0].shape[1:], augmented[0].shape[0]]

    return run_task


def prepare_read(folder: Path, variant: str) -> Call:
    """Prepare reading of JPEG files as in torchvision's reference scripts: with Pillow, into uint8 tensors."""
    files = sorted(folder.glob("*.jpg"))

    def run_task() -> list[list[int]]:
        tensors = [v2.functional.pil_to_tensor(Image.open(file).convert("RGB")) for file in files]
        return [list(tensor.permute(1, 2, 0).shape) for tensor in tensors]

    return run_task


def prepare_large_photo(folder: Path, variant: str) -> Call:
    """Prepare reading a large JPEG file as in torchvision's reference scripts, followed by antialiased resizing."""
    torch.set_num_threads(1)
    file = folder / "large_photo.jpeg"

    def run_task() -> list[int]:
        tensor = v2.functional.pil_to_tensor(Image.open(file).convert("RGB"))
        return list(v2.functional.resize(tensor, [480, 640], antialias=True).permute(1, 2, 0).shape)

    return run_task


def prepare_coco(folder: Path, variant: str) -> Call:
    """Prepare the evaluation of the detections that `scene.write_coco` wrote."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, predictions = (json.loads((folder / name).read_text()) for name in ("truth.json", "detections.json"))
    rows = np.array([[d["image_id"], *d["bbox"], d["score"], d["category_id"]] for d in predictions])

    def run_task() -> list[float]:
        with contextlib.redirect_stdout(io.StringIO()):
            objects = COCO()
            objects.dataset = truth
            objects.createIndex()
            evaluation = COCOeval(objects, objects.loadRes(rows), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return [round(float(number), 3) for number in evaluation.stats]

    return run_task
