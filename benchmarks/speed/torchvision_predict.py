"""Run torchvision's detector on one image, with a script that is as simple as a user would write it.

python -m benchmarks.speed.torchvision_predict WEIGHTS --make          # write random weights
python -m benchmarks.speed.torchvision_predict WEIGHTS IMAGE OUTPUT    # write the image with the detected boxes
"""

import sys

import torch
from torchvision.io import read_image, write_jpeg
from torchvision.models.detection import ssd300_vgg16
from torchvision.utils import draw_bounding_boxes


def write_weights(weights: str) -> None:
    """Write random weights that give background a high score in most places, like a trained network."""
    torch.manual_seed(0)
    model = ssd300_vgg16(weights=None, weights_backbone=None)
    with torch.no_grad():
        for layer in model.head.classification_head.module_list:
            layer.bias.view(-1, 91)[:, 0] += 8
    torch.save(model.state_dict(), weights)


@torch.no_grad()
def predict(weights: str, photo: str, output: str) -> None:
    """Detect objects in an image file, and write the image with boxes and labels to a JPEG file."""
    model = ssd300_vgg16(weights=None, weights_backbone=None)
    model.load_state_dict(torch.load(weights))
    image = read_image(photo)
    (detections,) = model.eval()([image / 255])
    shown = detections["scores"] >= 0.5
    labels = [str(label) for label in detections["labels"][shown].tolist()]
    drawn = draw_bounding_boxes(image, detections["boxes"][shown], labels) if labels else image
    write_jpeg(drawn, output, quality=92)


if __name__ == "__main__":
    write_weights(sys.argv[1]) if sys.argv[2] == "--make" else predict(*sys.argv[1:])
