"""SSD300 on PASCAL VOC 2007 and 2012.

Published results (VOC2007 test, 11-point mAP; trained on trainval of both years), not measured with this
implementation:

    |                   | mAP  |
    |-------------------|------|
    | Table 1           | 74.3 |
    | zoom-out, Table 6 | 77.2 |  this file

The schedule with zoom-out is that of Caffe's examples/ssd/ssd_pascal.py: a batch size of 32, and a learning rate of
1e-3 for 80k steps, 1e-4 for 20k and 1e-5 for 20k. The network in the row of Table 1 was trained without zoom-out, for
40k, 10k and 10k steps (section 3.1). These options select that schedule:

    --augment.expand-probability 0 --optimizer.milestones 40000 50000 --train.steps 60000

VOCdevkit is the folder that contains VOC2007, with its test images, and VOC2012: 16 551 images for training and
4 952 for testing.

    ssd-jax train ssd300_voc0712 --data.root VOCdevkit --train.pretrained vgg16_reducedfc.pth
    ssd-jax evaluate runs/ssd300_voc0712 --checkpoint last

The paper uses the last checkpoint. The val split of VOC2007, which is evaluated during training, is part of the
training data: its mAP shows whether training works, but is not meaningful for new images.
"""

from ssd_jax.config import Config, Data, Model, Optimizer, Train
from ssd_jax.data.class_names import VOC_CLASSES

ABOUT = {"data": "VOC07+12", "source": "Table 6"}


def get_config() -> Config:
    return Config(
        name="ssd300_voc0712",
        model=Model(class_names=VOC_CLASSES),
        data=Data(
            root="VOCdevkit",
            train_split="VOC2007/trainval+VOC2012/trainval",
            val_split="VOC2007/val",
            test_split="VOC2007/test",
        ),
        optimizer=Optimizer(milestones=(80_000, 100_000)),
        train=Train(steps=120_000),
    )
