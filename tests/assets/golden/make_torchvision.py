"""Write results of torchvision's ssd300_vgg16 for random weights and images, for tests that run without torch.

    python tests/assets/golden/make_torchvision.py        (torch 2.14.1, torchvision 0.29.1)

tests/helpers/torchvision_ssd.py generates the weights, images and objects from seeds. The file beside this script,
torchvision_ssd300.npz, holds samples of the results. The gradient is computed in float64.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from torchvision.models.detection.image_list import ImageList

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]

from helpers.torchvision_ssd import (  # noqa: E402
    CLASSES,
    GOLDEN_DETECTION_IMAGE,
    GOLDEN_IMAGE,
    GOLDEN_SCENE_SEED,
    GOLDEN_WEIGHTS_SEED,
    L2_NORM,
    draw_random_rows,
    list_layers,
    make_random_image,
    make_random_scene,
    make_random_state_dict,
)

Arrays = dict[str, np.ndarray]


def main() -> None:
    model = torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=CLASSES)
    state = make_random_state_dict(GOLDEN_WEIGHTS_SEED)
    model.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()}, strict=True)
    model.eval()
    arrays = (
        compute_forward_results(model)
        | compute_detection_results(model)
        | compute_training_results(model.double().train())
    )
    versions = np.array([f"torch {torch.__version__}", f"torchvision {torchvision.__version__}"])
    np.savez_compressed(HERE / "torchvision_ssd300.npz", versions=versions, **arrays)


def to_model_input(image: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1).to(dtype) / 255


def compute_forward_results(model: torch.nn.Module) -> Arrays:
    """Return mean, root mean square and samples of each layer after its ReLU, and samples of the predictions."""
    outputs: Arrays = {}

    def make_hook(name: str, is_predictor: bool):
        def record_output(module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            # The output must not be kept itself, because torchvision's ReLU changes it in place afterwards.
            output = output if is_predictor else output.relu()
            outputs[name] = output[0].permute(1, 2, 0).numpy().copy()

        return record_output

    hooks = [
        model.get_submodule(stem).register_forward_hook(make_hook(name, "mbox" in name))
        for name, (stem, *_) in list_layers().items()
    ]
    with torch.no_grad():
        inputs, _ = model.transform([to_model_input(make_random_image(*GOLDEN_IMAGE))])
        maps = list(model.backbone(inputs.tensors).values())
        head = model.head(maps)
        (anchors,) = model.anchor_generator(inputs, maps)
    for hook in hooks:
        hook.remove()
    outputs["conv4_3_norm"] = maps[0][0].permute(1, 2, 0).numpy()
    names = sorted(outputs)
    corners = anchors.double().numpy() / 300
    return {
        "layer_names": np.array(names),
        "layer_moments": np.array([compute_moments(outputs[name]) for name in names]),
        "layer_samples": np.stack([draw_random_rows(outputs[name].ravel(), 32) for name in names]),
        "logits": draw_random_rows(head["cls_logits"][0].numpy(), 100),
        "offsets": draw_random_rows(head["bbox_regression"][0].numpy(), 400),
        "default_boxes_xyxy": draw_random_rows(corners, 400).astype(np.float32),
    }


def compute_moments(x: np.ndarray) -> tuple[float, float]:
    return x.mean(dtype=np.float64), np.sqrt(np.square(x, dtype=np.float64).mean())


def compute_detection_results(model: torch.nn.Module) -> Arrays:
    """Return the detections in an image that the network has to resize."""
    with torch.no_grad():
        (detections,) = model([to_model_input(make_random_image(*GOLDEN_DETECTION_IMAGE))])
    return {f"found_{name}": detections[name].numpy() for name in ("boxes", "scores", "labels")}


def compute_training_results(model: torch.nn.Module) -> Arrays:
    """Return the matched objects, both parts of the loss, and norms and samples of the gradient."""
    boxes, labels = map(torch.from_numpy, make_random_scene(GOLDEN_SCENE_SEED))
    maps = [torch.zeros(1, 1, side, side) for side in (38, 19, 10, 5, 3, 1)]
    (anchors,) = model.anchor_generator(ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)]), maps)
    matched = model.proposal_matcher(torchvision.ops.box_iou(boxes, anchors))
    image = to_model_input(make_random_image(*GOLDEN_IMAGE), torch.float64)
    losses = model([image], [{"boxes": boxes.double(), "labels": labels}])
    sum(losses.values()).backward()
    gradient = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    assert L2_NORM in gradient and len(gradient) == 71
    names = sorted(gradient)
    return {
        "matched": matched.numpy().astype(np.int8),
        "loc_loss": np.array(losses["bbox_regression"].item()),
        "conf_loss": np.array(losses["classification"].item()),
        "gradient_names": np.array(names),
        "gradient_norms": np.array([np.linalg.norm(gradient[name]) for name in names]),
        "gradient_samples": np.stack([draw_random_rows(gradient[name].ravel(), 32) for name in names]).astype(
            np.float32
        ),
    }


if __name__ == "__main__":
    main()
