"""SSD500 on PASCAL VOC 2007: the predecessor of SSD512.

The final version of the paper (arXiv 1512.02325v5) has no results for SSD500, because SSD512 replaced it in the
tables. This config is for weights and results named SSD_500x500; for new work, use ssd512_voc.py. The published
result is for training on VOC07 and VOC12: see ssd500_voc0712.py.

Network and boxes are from Caffe's examples/ssd/ssd_pascal_500.py of August 2016: the last feature map is the global
average of conv9_2 (pool6), the distance between cell centres is image size / feature map size, and the 20097 boxes
are clipped to the image. That script ends after 60k steps with a batch size of 32; the milestones are the paper's
(section 3.1: 40k, 10k and 10k steps). The script does not use zoom-out, nor does this file.

    ssd-jax train ssd500_voc --data.root VOCdevkit/VOC2007 --train.pretrained vgg16_reducedfc.pth
    ssd-jax evaluate runs/ssd500_voc --checkpoint last

For the splits, see ssd300_voc.py.
"""

from ssd_jax.config import SSD500_EXTRAS, SSD500_VOC_BOXES, Augment, Config, Data, Model, Optimizer, Train
from ssd_jax.data.class_names import VOC_CLASSES

ABOUT = {"data": "VOC07", "source": "Caffe script"}


def get_config() -> Config:
    return Config(
        name="ssd500_voc",
        model=Model(class_names=VOC_CLASSES, default_boxes=SSD500_VOC_BOXES, extras=SSD500_EXTRAS, global_pool=True),
        data=Data(root="VOCdevkit/VOC2007", train_split="trainval"),
        augment=Augment(expand_probability=0.0),
        optimizer=Optimizer(milestones=(40_000, 50_000)),
        train=Train(steps=60_000),
    )
