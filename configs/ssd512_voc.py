"""SSD512 on PASCAL VOC 2007.

Published results, Table 1 (VOC2007 test, 11-point mAP), not measured with this implementation:

    | trained on           | mAP  |
    |----------------------|------|
    | VOC07 trainval       | 71.6 |  this file
    | VOC07+12 trainval    | 76.8 |  ssd512_voc0712.py
    | the same, zoom-out   | 79.8 |  Table 6, ssd512_voc0712.py
    | COCO, then VOC07+12  | 83.2 |  Table 6, ssd512_voc0712_from_coco.py

Schedule and splits are those of ssd300_voc.py (paper section 3.1: 40k, 10k and 10k steps with a batch size of 32),
which also explains the reasons. The side of the smallest default boxes is 0.07 of the image side (0.1 in SSD300), and
conv10_2 adds a seventh feature map (section 3.1). Caffe rounds the box sizes down to whole pixels; this file does
not, like the ports that reproduce the published mAP with the authors' weights (``truncate_sizes`` gives Caffe's
sizes).

    ssd-jax train ssd512_voc --data.root VOCdevkit/VOC2007 --train.pretrained vgg16_reducedfc.pth
    ssd-jax evaluate runs/ssd512_voc --checkpoint last
"""

from ssd_jax.config import SSD512_EXTRAS, SSD512_VOC_BOXES, Augment, Config, Data, Model, Optimizer, Train
from ssd_jax.data.class_names import VOC_CLASSES

ABOUT = {"data": "VOC07", "source": "Table 1"}


def get_config() -> Config:
    return Config(
        name="ssd512_voc",
        model=Model(class_names=VOC_CLASSES, default_boxes=SSD512_VOC_BOXES, extras=SSD512_EXTRAS),
        data=Data(root="VOCdevkit/VOC2007", train_split="trainval"),
        augment=Augment(expand_probability=0.0),
        optimizer=Optimizer(milestones=(40_000, 50_000)),
        train=Train(steps=60_000),
    )
