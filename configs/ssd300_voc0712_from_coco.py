"""SSD300 on PASCAL VOC 2007 and 2012, started from a run on COCO: "07+12+COCO".

Published (VOC2007 test, 11-point mAP), not measured with this program:

    |                   | mAP  |
    |-------------------|------|
    | Table 1           | 79.6 |
    | zoom-out, Table 6 | 81.2 |  this file

Table 1: "first train on COCO trainval35k then fine-tune on 07+12". No more is published: neither the rate nor
when it falls. The name of the authors' weights, VOC0712 with ft, says 120k iterations. This file has steps and
rates of ssd300_voc0712.py, which are as many; of starting from a trained detector the author says (Caffe fork,
issue 120) to take a smaller rate, and no number: --optimizer.learning-rate. For Table 1's row, start from
a run on COCO of Table 5's and take the options in ssd300_voc0712.py.

Default boxes are those of the run on COCO, smaller than VOC's. The predictors of VOC's 20 classes start from
COCO's of the same name, or of that in VOC_NAMES_IN_COCO (ssd_jax/class_names.py); so do the authors' models
that VOC takes straight from COCO (Caffe, data/VOC0712/coco_voc_map.txt). Whether their fine-tuning started so,
or with new predictors, is not published.

    python train.py configs/ssd300_coco.py --data.root coco --train.pretrained vgg16_reducedfc.pth
    python train.py configs/ssd300_voc0712_from_coco.py --data.root VOCdevkit
    python evaluate.py runs/ssd300_voc0712_from_coco --checkpoint last

The run on COCO is sought in runs/ssd300_coco, another with --train.pretrained RUN; its best checkpoint is
taken. Splits as in ssd300_voc0712.py.
"""

from ssd_jax.config import SSD300_COCO_BOXES, Config, Data, Model, Optimizer, Train
from ssd_jax.data.class_names import VOC_CLASSES, VOC_NAMES_IN_COCO


def get_config() -> Config:
    return Config(
        name="ssd300_voc0712_from_coco",
        model=Model(class_names=VOC_CLASSES, default_boxes=SSD300_COCO_BOXES),
        data=Data(
            root="VOCdevkit",
            train_split="VOC2007/trainval+VOC2012/trainval",
            val_split="VOC2007/val",
            test_split="VOC2007/test",
        ),
        optimizer=Optimizer(milestones=(80_000, 100_000)),
        train=Train(steps=120_000, pretrained="runs/ssd300_coco", transfer=True, transfer_names=VOC_NAMES_IN_COCO),
    )
