"""SSD500 on PASCAL VOC 2007: the layout that came before SSD512.

The final paper (arXiv 1512.02325v5) has no row for it: its tables replaced SSD500 by SSD512. Here for
weights and results that are named SSD_500x500; for new work take ssd512_voc.py. What is published is
of a run on VOC07 and VOC12: ssd500_voc0712.py.

Network and boxes: Caffe, examples/ssd/ssd_pascal_500.py of August 2016: the last source is the global
average of conv9_2 (pool6), cells are image over map wide, boxes are clipped to the image: 20097 of
them. Schedule: that script ends at 60k steps of batch 32; the steps of the rate are the paper's
(section 3.1: 40k, 10k, 10k). There was no zoom-out yet.

    python train.py configs/ssd500_voc.py --data.root VOCdevkit/VOC2007 --train.pretrained vgg16_reducedfc.pth
    python evaluate.py runs/ssd500_voc --checkpoint last

Splits as in ssd300_voc.py, where the reasons stand.
"""

from ssd_jax.config import SSD500_EXTRAS, SSD500_VOC_BOXES, Augment, Config, Data, Model, Optimizer, Train
from ssd_jax.data.class_names import VOC_CLASSES


def get_config() -> Config:
    return Config(
        name="ssd500_voc",
        model=Model(class_names=VOC_CLASSES, default_boxes=SSD500_VOC_BOXES, extras=SSD500_EXTRAS, global_pool=True),
        data=Data(root="VOCdevkit/VOC2007", train_split="trainval"),
        augment=Augment(expand_probability=0.0),
        optimizer=Optimizer(milestones=(40_000, 50_000)),
        train=Train(steps=60_000),
    )
