"""SSD512 on COCO.

Published results (test-dev2015, trained on trainval35k), not measured with this implementation:

    |                       | AP .50:.95 | .50  | .75  |
    |-----------------------|------------|------|------|
    | Table 5               | 26.8       | 46.5 | 27.8 |
    | zoom-out, Table 6     | 28.8       | 48.5 | 30.3 |  this file

The schedule and the options for the row of Table 5 are those of ssd300_coco.py. The authors published no script for
SSD512; the name of their weight file contains iter_360000, and the milestones are not published. The side of the
smallest default boxes is 0.04 of the image side (section 3.4).

    ssd-jax train ssd512_coco --data.root coco --train.pretrained vgg16_reducedfc.pth
    ssd-jax evaluate runs/ssd512_coco

For the splits, see ssd300_coco.py.
"""

from ssd_jax.config import SSD512_COCO_BOXES, SSD512_EXTRAS, Config, Data, Model, Optimizer, Train
from ssd_jax.data.class_names import COCO_CLASSES

ABOUT = {"data": "COCO", "source": "Table 6"}


def get_config() -> Config:
    return Config(
        name="ssd512_coco",
        model=Model(class_names=COCO_CLASSES, default_boxes=SSD512_COCO_BOXES, extras=SSD512_EXTRAS),
        data=Data(root="coco", train_split="trainval35k", val_split="minival", test_split="minival", max_objects=100),
        optimizer=Optimizer(milestones=(280_000, 360_000)),
        train=Train(steps=400_000),
    )
