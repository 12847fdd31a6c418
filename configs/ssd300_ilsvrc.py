"""SSD300 on ILSVRC2014 DET, the 200 classes of ImageNet's detection task.

The published result is an mAP of 43.4 at IoU 0.5 on val2, after training on train and val1 (paper section 3.5). It
was not measured with this implementation. The paper reports only SSD300. The authors' list of models also names an
SSD500, from the first versions of the paper, with an mAP of 46.4; they published no script for it.

The schedule is that of section 3.5 and of Caffe's examples/ssd/ssd_ilsvrc.py: a batch size of 32, and a learning rate
of 1e-3 for 320k steps, 1e-4 for 80k and 1e-5 for 40k. Where paper and script differ, this file follows the script:
its default boxes are VOC's, while section 3.5 says "the same network architecture we used for COCO"; and it uses
zoom-out, which section 3.5 does not mention (--augment.expand-probability 0 disables it).

    ssd-jax train ssd300_ilsvrc --data.root ILSVRC --train.pretrained vgg16_reducedfc.pth
    ssd-jax evaluate runs/ssd300_ilsvrc --checkpoint last

val1 and val2 are the two halves into which Girshick et al. split val (R-CNN, arXiv 1311.2524); val2 has 9 917 images.
The script's mAP is the area under the curve; `evaluate` prints it beside VOC's 11-point mAP. During training, val2 is
also evaluated to choose the best checkpoint; therefore use the last checkpoint for results. The classes are read from
the data.
"""

from ssd_jax.config import Config, Data, Optimizer, Train

ABOUT = {"data": "ILSVRC DET", "source": "section 3.5"}


def get_config() -> Config:
    return Config(
        name="ssd300_ilsvrc",
        data=Data(root="ILSVRC", train_split="train+val1", val_split="val2", test_split="val2"),
        optimizer=Optimizer(milestones=(320_000, 400_000)),
        train=Train(steps=440_000),
    )
