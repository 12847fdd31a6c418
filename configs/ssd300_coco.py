"""SSD300 on COCO.

Published results (test-dev2015, trained on trainval35k), not measured with this implementation:

    |                       | AP .50:.95 | .50  | .75  |
    |-----------------------|------------|------|------|
    | Table 5               | 23.2       | 41.2 | 23.4 |
    | zoom-out, Table 6     | 25.1       | 43.1 | 25.8 |  this file

The schedule with zoom-out is that of Caffe's examples/ssd/ssd_coco.py: a batch size of 32, and a learning rate of
1e-3 for 280k steps, 1e-4 for 80k and 1e-5 for 40k. The network in the row of Table 5 was trained without zoom-out,
for 160k, 40k and 40k steps (section 3.4). These options select that schedule:

    --augment.expand-probability 0 --optimizer.milestones 160000 200000 --train.steps 240000

The side of the smallest default boxes is 0.07 of the image side (0.1 for VOC), because COCO's objects are smaller
(section 3.4).

    ssd-jax train ssd300_coco --data.root coco --train.pretrained vgg16_reducedfc.pth
    ssd-jax evaluate runs/ssd300_coco
    ssd-jax evaluate runs/ssd300_coco --split test-dev2017 --results

trainval35k is train2017; with the files of 2014, it is train2014 and the images of val2014 that are not in minival.
minival is val2017. The best checkpoint is chosen on minival and also evaluated on it, because the annotations of
test-dev are not public. Results on minival cannot be compared with the table. The last command writes a result file
for COCO's evaluation server.
"""

from ssd_jax.config import SSD300_COCO_BOXES, Config, Data, Model, Optimizer, Train
from ssd_jax.data.class_names import COCO_CLASSES

ABOUT = {"data": "COCO", "source": "Table 6"}


def get_config() -> Config:
    return Config(
        name="ssd300_coco",
        model=Model(class_names=COCO_CLASSES, default_boxes=SSD300_COCO_BOXES),
        data=Data(root="coco", train_split="trainval35k", val_split="minival", test_split="minival", max_objects=100),
        optimizer=Optimizer(milestones=(280_000, 360_000)),
        train=Train(steps=400_000),
    )
