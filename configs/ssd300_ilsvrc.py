"""SSD300 on ILSVRC2014 DET, the 200 classes of ImageNet's detection task.

Published (val2, mAP at IoU 0.5), not measured with this program: 43.4, trained on train and val1 (paper section
3.5). Published for SSD300 alone: the authors' list of models has also an SSD500 of the first versions with
46.4, without a script.

Schedule (section 3.5, and Caffe, examples/ssd/ssd_ilsvrc.py): batch 32, 1e-3 for 320k steps, 1e-4 for 80k, 1e-5
for 40k. Where paper and script differ this file is the script: its default boxes are VOC's, while section 3.5 has
"the same network architecture we used for COCO"; and it zooms out, of which section 3.5 says nothing
(--augment.expand-probability 0).

    python train.py configs/ssd300_ilsvrc.py --data.root ILSVRC --train.pretrained vgg16_reducedfc.pth
    python evaluate.py runs/ssd300_ilsvrc --checkpoint last

val1 and val2 are halves of val by Girshick et al. (R-CNN, arXiv 1311.2524): 9 917 images in val2. The script's mAP
is the area under the curve; evaluate.py prints that beside VOC's 11 points. val2, measured on the way, is the test
itself: the last checkpoint is the one not chosen on it. The classes are taken from the data.
"""

from ssd_jax.config import Config, Data, Optimizer, Train


def get_config() -> Config:
    return Config(
        name="ssd300_ilsvrc",
        data=Data(root="ILSVRC", train_split="train+val1", val_split="val2", test_split="val2"),
        optimizer=Optimizer(milestones=(320_000, 400_000)),
        train=Train(steps=440_000),
    )
