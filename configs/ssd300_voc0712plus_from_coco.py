"""SSD300 for the test set of PASCAL VOC 2012, fine-tuned from a run on COCO: "07++12+COCO".

Published results (VOC2012 test, mAP from the PASCAL VOC evaluation server), not measured with this implementation:

    |                   | mAP  |
    |-------------------|------|
    | Table 4           | 77.5 |
    | zoom-out, Table 6 | 79.3 |  this file

The number of steps is that of ssd300_voc0712plus.py (section 3.3: 60k and 20k), doubled for zoom-out (section 3.6).
This gives 160k, which agrees with the name of the authors' weight file, VGG_VOC0712Plus_SSD_300x300_ft_iter_160000.
The milestones and the initial learning rate are not published; see also ssd300_voc0712_from_coco.py.

    ssd-jax train ssd300_coco --data.root coco --train.pretrained vgg16_reducedfc.pth
    ssd-jax train ssd300_voc0712plus_from_coco --data.root VOCdevkit
    ssd-jax evaluate runs/ssd300_voc0712plus_from_coco --checkpoint last --results

For the splits, and for a test set without public annotations, see ssd300_voc0712plus.py.
"""

from ssd_jax.config import SSD300_COCO_BOXES, Config, Data, Model, Optimizer, Train
from ssd_jax.data.class_names import VOC_CLASSES, VOC_NAMES_IN_COCO

ABOUT = {"data": "VOC07++12+COCO", "source": "Table 6"}


def get_config() -> Config:
    return Config(
        name="ssd300_voc0712plus_from_coco",
        model=Model(class_names=VOC_CLASSES, default_boxes=SSD300_COCO_BOXES),
        data=Data(
            root="VOCdevkit",
            train_split="VOC2007/trainval+VOC2007/test+VOC2012/trainval",
            val_split="VOC2012/val",
            test_split="VOC2012/test",
        ),
        optimizer=Optimizer(milestones=(120_000,)),
        train=Train(steps=160_000, pretrained="runs/ssd300_coco", transfer=True, transfer_names=VOC_NAMES_IN_COCO),
    )
