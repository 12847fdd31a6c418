"""SSD300 on PASCAL VOC 2007.

Published results, Table 1 (VOC2007 test, 11-point mAP), not measured with this implementation:

    | trained on           | mAP  |
    |----------------------|------|
    | VOC07 trainval       | 68.0 |  this file
    | VOC07+12 trainval    | 74.3 |  ssd300_voc0712.py
    | the same, zoom-out   | 77.2 |  Table 6, ssd300_voc0712.py
    | COCO, then VOC07+12  | 81.2 |  Table 6, ssd300_voc0712_from_coco.py

The schedule is that of paper section 3.1: a batch size of 32, and a learning rate of 1e-3 for 40k steps, 1e-4 for 10k
and 1e-5 for 10k. Zoom-out was added later (section 3.6) and is off, as in the first row.

    ssd-jax train ssd300_voc --data.root VOCdevkit/VOC2007 --train.pretrained vgg16_reducedfc.pth
    ssd-jax evaluate runs/ssd300_voc --checkpoint last

The paper trains on trainval and uses the last checkpoint. The val split, which is evaluated during training, is part
of trainval: its mAP shows whether training works, but is not meaningful for new images.

The classes are VOC's. To use the same network for other data, give --model.class-names without a name, which reads
the class names from the data.
"""

from ssd_jax.config import Augment, Config, Data, Model, Optimizer, Train
from ssd_jax.data.class_names import VOC_CLASSES

ABOUT = {"data": "VOC07", "source": "Table 1"}


def get_config() -> Config:
    return Config(
        name="ssd300_voc",
        model=Model(class_names=VOC_CLASSES),
        data=Data(root="VOCdevkit/VOC2007", train_split="trainval"),
        augment=Augment(expand_probability=0.0),
        optimizer=Optimizer(milestones=(40_000, 50_000)),
        train=Train(steps=60_000),
    )
