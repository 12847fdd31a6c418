"""A detector for your own pictures, started from a detector of COCO's classes.

1. Put the pictures and their boxes into a folder, in VOC, COCO or YOLO layout.
2. Bring torchvision's SSD300, ssd300_vgg16_coco-b556d3b4.pth (download.pytorch.org/models), or another file of
   weights that docs/weights.md names.
3. python train.py configs/own_data_from_coco.py --data.root FOLDER --train.pretrained FILE

Class names and splits are found from the folder. Predictors are carried over by class name: what you call "person"
or "car" as COCO does is known from the start; other classes begin anew on features that know objects. Mean and
default boxes are torchvision's; of weights with others say so (--model.mean), a note tells the difference.

The network is SSD300 of full width: for a GPU. The rate is Caffe's 1e-3 for 32 pictures, divided by four for 8.
Not measured: no published file of weights could be had where this was written. What starting from a trained
detector brings, on a small network, is measured in docs/fine_tuning.md.
"""

import dataclasses

from ssd_jax.config import SSD300_COCO_BOXES, Augment, Config, Data, Loss, Model, Optimizer, Train


def get_config() -> Config:
    return Config(
        name="own_data_from_coco",
        model=Model(
            default_boxes=dataclasses.replace(SSD300_COCO_BOXES, clip="sizes"), mean=(122.99925, 116.9991, 103.9992)
        ),
        data=Data(root=""),
        augment=Augment(expand_probability=0.3, expand_max_ratio=1.5, crop_scale=(0.6, 1.0)),  # as in own_data.py
        loss=Loss(min_negatives=3),  # so that pictures without objects count
        optimizer=Optimizer(learning_rate=2.5e-4, schedule="cosine", warmup_steps=100, clip_norm=10.0, freeze_blocks=1),
        train=Train(
            steps=1200,
            batch_size=8,
            eval_every=200,
            checkpoint_every=200,
            pretrained="ssd300_vgg16_coco-b556d3b4.pth",
            transfer=True,
        ),
    )
