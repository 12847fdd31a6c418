"""SSD300 on COCO.

Published (test-dev2015, trained on trainval35k), not measured with this program:

    |                       | AP .50:.95 | .50  | .75  |
    |-----------------------|------------|------|------|
    | Table 5               | 23.2       | 41.2 | 23.4 |
    | zoom-out, Table 6     | 25.1       | 43.1 | 25.8 |  this file

Schedule with zoom-out, Caffe's examples/ssd/ssd_coco.py: batch 32, 1e-3 for 280k steps, 1e-4 for 80k,
1e-5 for 40k. (Without zoom-out the paper, section 3.4, has 160k, 40k and 40k.) Default boxes start at
0.07 of the side in place of VOC's 0.1: objects are smaller (section 3.4).

    python train.py configs/ssd300_coco.py --data.root coco
    python evaluate.py runs/ssd300_coco

Splits are those of 2017: train2017 in place of trainval35k, val2017 both to choose the best checkpoint
and to measure it, since test-dev has no public boxes; results on val2017 are not the table's.
"""

from ssd_jax.config import SSD300_COCO_BOXES, Config, Data, Model, Optimizer, Train


def get_config() -> Config:
    return Config(
        name="ssd300_coco",
        model=Model(default_boxes=SSD300_COCO_BOXES),
        data=Data(root="coco", train_split="train2017", val_split="val2017", max_objects=100),
        optimizer=Optimizer(milestones=(280_000, 360_000)),
        train=Train(steps=400_000),
    )
