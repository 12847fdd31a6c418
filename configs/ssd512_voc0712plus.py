"""SSD512 for the test set of PASCAL VOC 2012: trained on trainval of 2007 and 2012 and on test of 2007, "07++12".

Published results (VOC2012 test, mAP from the PASCAL VOC evaluation server), not measured with this implementation:

    |                   | mAP  |
    |-------------------|------|
    | Table 4           | 74.9 |  this file
    | zoom-out, Table 6 | 78.5 |

Schedule (paper section 3.3: 60k and 20k steps with a batch size of 32) and splits are those of ssd300_voc0712plus.py,
which also explains how to use a test set without public annotations. Network and boxes are those of ssd512_voc.py.

    ssd-jax train ssd512_voc0712plus --data.root VOCdevkit --train.pretrained vgg16_reducedfc.pth
    ssd-jax evaluate runs/ssd512_voc0712plus --checkpoint last --results
"""

from ssd_jax.config import SSD512_EXTRAS, SSD512_VOC_BOXES, Augment, Config, Data, Model, Optimizer, Train
from ssd_jax.data.class_names import VOC_CLASSES

ABOUT = {"data": "VOC07++12", "source": "Table 4"}


def get_config() -> Config:
    return Config(
        name="ssd512_voc0712plus",
        model=Model(class_names=VOC_CLASSES, default_boxes=SSD512_VOC_BOXES, extras=SSD512_EXTRAS),
        data=Data(
            root="VOCdevkit",
            train_split="VOC2007/trainval+VOC2007/test+VOC2012/trainval",
            val_split="VOC2012/val",
            test_split="VOC2012/test",
        ),
        augment=Augment(expand_probability=0.0),
        optimizer=Optimizer(milestones=(60_000,)),
        train=Train(steps=80_000),
    )
