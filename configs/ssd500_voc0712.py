"""SSD500 on PASCAL VOC 2007 and 2012: the predecessor of SSD512.

The published result is an mAP of 75.1 on VOC2007 test for a 500 x 500 input, in the abstract of the paper's earlier
versions (arXiv 1512.02325); the final version replaced SSD500 by SSD512. It was not measured with this
implementation.

Data, network, boxes and schedule are from Caffe's examples/ssd/ssd_pascal_500.py of August 2016, which trains on
trainval of both years (VOC0712); see ssd500_voc.py.

    ssd-jax train ssd500_voc0712 --data.root VOCdevkit --train.pretrained vgg16_reducedfc.pth
    ssd-jax evaluate runs/ssd500_voc0712 --checkpoint last

For the splits, see ssd300_voc0712.py.
"""

from ssd_jax.config import SSD500_EXTRAS, SSD500_VOC_BOXES, Augment, Config, Data, Model, Optimizer, Train
from ssd_jax.data.class_names import VOC_CLASSES

ABOUT = {"data": "VOC07+12", "source": "Caffe script"}


def get_config() -> Config:
    return Config(
        name="ssd500_voc0712",
        model=Model(class_names=VOC_CLASSES, default_boxes=SSD500_VOC_BOXES, extras=SSD500_EXTRAS, global_pool=True),
        data=Data(
            root="VOCdevkit",
            train_split="VOC2007/trainval+VOC2012/trainval",
            val_split="VOC2007/val",
            test_split="VOC2007/test",
        ),
        augment=Augment(expand_probability=0.0),
        optimizer=Optimizer(milestones=(40_000, 50_000)),
        train=Train(steps=60_000),
    )
