"""SSD300 for the test set of PASCAL VOC 2012: trained on trainval of 2007 and 2012 and on test of 2007, "07++12".

Published results (VOC2012 test, mAP from the PASCAL VOC evaluation server), not measured with this implementation:

    |                   | mAP  |
    |-------------------|------|
    | Table 4           | 72.4 |  this file
    | zoom-out, Table 6 | 75.8 |

The schedule is that of paper section 3.3: a batch size of 32, and a learning rate of 1e-3 for 60k steps and 1e-4 for
20k. There are 21 503 training images. For the row with zoom-out, the paper says only that the number of steps is
doubled (section 3.6), while the name of the authors' weight file contains iter_240000. The milestones are not
published; therefore this file does not use zoom-out.

    ssd-jax train ssd300_voc0712plus --data.root VOCdevkit --train.pretrained vgg16_reducedfc.pth
    ssd-jax evaluate runs/ssd300_voc0712plus --checkpoint last --results

The annotations of VOC2012 test are not public: metrics are not computed, and --results writes the files
comp4_det_test_<class>.txt for the evaluation server. The val split of VOC2012, which is evaluated during training, is
part of the training data, as are all public annotations: its mAP shows only whether training works.
"""

from ssd_jax.config import Augment, Config, Data, Model, Optimizer, Train
from ssd_jax.data.class_names import VOC_CLASSES

ABOUT = {"data": "VOC07++12", "source": "Table 4"}


def get_config() -> Config:
    return Config(
        name="ssd300_voc0712plus",
        model=Model(class_names=VOC_CLASSES),
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
