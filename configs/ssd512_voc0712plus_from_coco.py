"""SSD512 for the test set of PASCAL VOC 2012, fine-tuned from a run on COCO: "07++12+COCO".

Published results (VOC2012 test, mAP from the PASCAL VOC evaluation server), not measured with this implementation:

    |                   | mAP  |
    |-------------------|------|
    | Table 4           | 80.0 |
    | zoom-out, Table 6 | 82.2 |  this file

Everything else is as in ssd300_voc0712plus_from_coco.py, which also says what is not published. Network and boxes are
those of ssd512_coco.py.

    ssd-jax train ssd512_coco --data.root coco --train.pretrained vgg16_reducedfc.pth
    ssd-jax train ssd512_voc0712plus_from_coco --data.root VOCdevkit
    ssd-jax evaluate runs/ssd512_voc0712plus_from_coco --checkpoint last --results
"""

from ssd_jax.config import SSD512_COCO_BOXES, SSD512_EXTRAS, Config, Data, Model, Optimizer, Train
from ssd_jax.data.class_names import VOC_CLASSES, VOC_NAMES_IN_COCO

ABOUT = {"data": "VOC07++12+COCO", "source": "Table 6"}


def get_config() -> Config:
    return Config(
        name="ssd512_voc0712plus_from_coco",
        model=Model(class_names=VOC_CLASSES, default_boxes=SSD512_COCO_BOXES, extras=SSD512_EXTRAS),
        data=Data(
            root="VOCdevkit",
            train_split="VOC2007/trainval+VOC2007/test+VOC2012/trainval",
            val_split="VOC2012/val",
            test_split="VOC2012/test",
        ),
        optimizer=Optimizer(milestones=(120_000,)),
        train=Train(steps=160_000, pretrained="runs/ssd512_coco", transfer=True, transfer_names=VOC_NAMES_IN_COCO),
    )
