"""A detector for your own images, trained from scratch on a CPU or GPU, without pretrained weights.

1. Put the images and annotations into a folder, in VOC, COCO or YOLO format.
2. ssd-jax train own_data --data.root FOLDER

Class names and splits are read from the folder. The network is an SSD300 with a quarter of the paper's channels,
GroupNorm and weight standardization, for training from scratch. The default boxes are those of SSD300 on COCO, which
suit small objects: the side of the smallest ones is 21 px in an image of 300 px.

The number of steps follows from the number of images: 15 epochs, but at least 1200 steps (as for all sets of up to 640
images) and at most 12 000. docs/own_data.md shows the measurements behind this rule. For a thousand images or more, use
--model.width 0.5 or 1 on a GPU.
"""

from ssd_jax.config import SSD300_COCO_BOXES, Augment, Config, Data, Loss, Model, Optimizer, Train

ABOUT = {"data": "yours", "source": "ssd-jax"}


def get_config() -> Config:
    return Config(
        name="own_data",
        model=Model(default_boxes=SSD300_COCO_BOXES, width=0.25, norm="group", std=(64, 64, 64), l2_norm_scale=5.0),
        data=Data(root=""),
        # This is milder than the paper's augmentation, whose zoom-out of up to 4 and crops down to 0.3 need a much
        # longer schedule.
        augment=Augment(expand_probability=0.3, expand_max_ratio=1.5, crop_scale=(0.6, 1.0)),
        loss=Loss(min_negatives=3),  # so that images without objects contribute
        optimizer=Optimizer(
            name="muon", learning_rate=1e-2, schedule="cosine", warmup_steps=30, weight_decay=0.02, clip_norm=10.0
        ),
        train=Train(
            epochs=15, steps_range=(1200, 12_000), batch_size=8, eval_every=None, checkpoint_every=200, ema_decay=0.998
        ),
    )
