"""SSD300 on PASCAL VOC 2007 and 2012, fine-tuned from a run on COCO: "07+12+COCO".

Published results (VOC2007 test, 11-point mAP), not measured with this implementation:

    |                   | mAP  |
    |-------------------|------|
    | Table 1           | 79.6 |
    | zoom-out, Table 6 | 81.2 |  this file

Table 1: "first train on COCO trainval35k then fine-tune on 07+12". The schedule of the fine-tuning is not published.
The authors' weight file is named VGG_VOC0712_SSD_300x300_ft_iter_120000; this file uses the schedule of
ssd300_voc0712.py, which also has 120k steps. In issue 120 of the Caffe fork, the author recommends a smaller learning
rate for starting from a trained detector, but gives no number: set it with --optimizer.learning-rate. For the row of
Table 1, start from a run on COCO without zoom-out (Table 5) and add the options in ssd300_voc0712.py.

The default boxes are those of the run on COCO, which are smaller than VOC's. The predictors of VOC's 20 classes start
from those of the COCO class with the same name, or with the name in VOC_NAMES_IN_COCO
(ssd_jax/data/class_names.py). The authors' models that apply COCO detectors to VOC do the same (Caffe,
data/VOC0712/coco_voc_map.txt). Whether their fine-tuning started this way or with new predictors is not published.

    ssd-jax train ssd300_coco --data.root coco --train.pretrained vgg16_reducedfc.pth
    ssd-jax train ssd300_voc0712_from_coco --data.root VOCdevkit
    ssd-jax evaluate runs/ssd300_voc0712_from_coco --checkpoint last

The run on COCO is expected in runs/ssd300_coco; name another one with --train.pretrained RUN. Its best checkpoint is
used. For the splits, see ssd300_voc0712.py.
"""

from ssd_jax.config import SSD300_COCO_BOXES, Config, Data, Model, Optimizer, Train
from ssd_jax.data.class_names import VOC_CLASSES, VOC_NAMES_IN_COCO

ABOUT = {"data": "VOC07+12+COCO", "source": "Table 6"}


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
