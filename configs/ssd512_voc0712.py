"""SSD512 on PASCAL VOC 2007 and 2012.

Published results (VOC2007 test, 11-point mAP; trained on trainval of both years), not measured with this
implementation:

    |                   | mAP  |
    |-------------------|------|
    | Table 1           | 76.8 |
    | zoom-out, Table 6 | 79.8 |  this file

Schedule, splits and the options for the row of Table 1 are those of ssd300_voc0712.py, which also explains the
reasons. The authors published no script for SSD512; the name of their weight file contains iter_120000, which is also
the number of steps in ssd300_voc0712.py. Network and boxes are those of ssd512_voc.py.

    ssd-jax train ssd512_voc0712 --data.root VOCdevkit --train.pretrained vgg16_reducedfc.pth
    ssd-jax evaluate runs/ssd512_voc0712 --checkpoint last
"""

from ssd_jax.config import SSD512_EXTRAS, SSD512_VOC_BOXES, Config, Data, Model, Optimizer, Train
from ssd_jax.data.class_names import VOC_CLASSES

ABOUT = {"data": "VOC07+12", "source": "Table 6"}


def get_config() -> Config:
    return Config(
        name="ssd512_voc0712",
        model=Model(class_names=VOC_CLASSES, default_boxes=SSD512_VOC_BOXES, extras=SSD512_EXTRAS),
        data=Data(
            root="VOCdevkit",
            train_split="VOC2007/trainval+VOC2012/trainval",
            val_split="VOC2007/val",
            test_split="VOC2007/test",
        ),
        optimizer=Optimizer(milestones=(80_000, 100_000)),
        train=Train(steps=120_000),
    )
