"""SSD512 for PASCAL VOC 2012's test: trained on trainval of 2007 and 2012 and on test of 2007, "07++12".

Published (VOC2012 test, mAP by its server), not measured with this program:

    |                   | mAP  |
    |-------------------|------|
    | Table 4           | 74.9 |  this file
    | zoom-out, Table 6 | 78.5 |

Schedule (paper section 3.3: 60k and 20k steps, batch 32) and splits, and what to do about a test without public
boxes: those of ssd300_voc0712plus.py, where the reasons stand. Network and boxes as in ssd512_voc.py.

    python train.py configs/ssd512_voc0712plus.py --data.root VOCdevkit --train.pretrained vgg16_reducedfc.pth
    python evaluate.py runs/ssd512_voc0712plus --checkpoint last --results
"""

from ssd_jax.config import SSD512_EXTRAS, SSD512_VOC_BOXES, Augment, Config, Data, Model, Optimizer, Train
from ssd_jax.data.class_names import VOC_CLASSES


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
