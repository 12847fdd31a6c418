"""SSD512 on PASCAL VOC 2007 and 2012, fine-tuned from a run on COCO: "07+12+COCO".

Published results (VOC2007 test, 11-point mAP), not measured with this implementation:

    |                   | mAP  |
    |-------------------|------|
    | Table 1           | 81.6 |
    | zoom-out, Table 6 | 83.2 |  this file

Everything else is as in ssd300_voc0712_from_coco.py, which also says what is not published. Network and boxes are
those of ssd512_coco.py.

    ssd-jax train ssd512_coco --data.root coco --train.pretrained vgg16_reducedfc.pth
    ssd-jax train ssd512_voc0712_from_coco --data.root VOCdevkit
    ssd-jax evaluate runs/ssd512_voc0712_from_coco --checkpoint last
"""

from ssd_jax.config import SSD512_COCO_BOXES, SSD512_EXTRAS, Config, Data, Model, Optimizer, Train
from ssd_jax.data.class_names import VOC_CLASSES, VOC_NAMES_IN_COCO

ABOUT = {"data": "VOC07+12+COCO", "source": "Table 6"}


def get_config() -> Config:
    return Config(
        name="ssd512_voc0712_from_coco",
        model=Model(class_names=VOC_CLASSES, default_boxes=SSD512_COCO_BOXES, extras=SSD512_EXTRAS),
        data=Data(
            root="VOCdevkit",
            train_split="VOC2007/trainval+VOC2012/trainval",
            val_split="VOC2007/val",
            test_split="VOC2007/test",
        ),
        optimizer=Optimizer(milestones=(80_000, 100_000)),
        train=Train(steps=120_000, pretrained="runs/ssd512_coco", transfer=True, transfer_names=VOC_NAMES_IN_COCO),
    )
