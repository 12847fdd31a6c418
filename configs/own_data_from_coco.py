"""A detector for your own images, fine-tuned from a detector for COCO's classes.

1. Put the images and annotations into a folder, in VOC, COCO or YOLO format.
2. Download torchvision's SSD300, ssd300_vgg16_coco-b556d3b4.pth (download.pytorch.org/models), or another weight
   file that docs/weights.md lists.
3. ssd-jax train own_data_from_coco --data.root FOLDER --train.pretrained FILE

Class names and splits are read from the folder. Predictors are copied by class name: a class that has the same
name in COCO, such as "person" or "car", starts with its trained predictors; other classes start with new predictors
on trained features. Mean and default boxes are torchvision's. If the weight file needs other values, a note names
them; set them, for example with --model.mean.

The network is SSD300 at full width, for a GPU. The learning rate is Caffe's 1e-3 for a batch of 32, divided by four
for a batch of 8. This config was not measured, because no published weight file was available. For the effect of
starting from a trained detector, measured on a small network, see docs/fine_tuning.md.
"""

import dataclasses

from ssd_jax.config import SSD300_COCO_BOXES, Augment, Config, Data, Loss, Model, Optimizer, Train

ABOUT = {"data": "yours+COCO", "source": "ssd-jax"}


def get_config() -> Config:
    return Config(
        name="own_data_from_coco",
        model=Model(
            default_boxes=dataclasses.replace(SSD300_COCO_BOXES, clip="sizes"), mean=(122.99925, 116.9991, 103.9992)
        ),
        data=Data(root=""),
        augment=Augment(expand_probability=0.3, expand_max_ratio=1.5, crop_scale=(0.6, 1.0)),  # as in own_data
        loss=Loss(min_negatives=3),  # so that images without objects contribute
        optimizer=Optimizer(learning_rate=2.5e-4, schedule="cosine", warmup_steps=100, clip_norm=10.0, freeze_blocks=1),
        train=Train(
            epochs=15,  # as in own_data.py
            steps_range=(1200, 12_000),
            batch_size=8,
            eval_every=None,
            checkpoint_every=200,
            pretrained="ssd300_vgg16_coco-b556d3b4.pth",
            transfer=True,
        ),
    )
