"""A small, fast detector for your own images of 160 px, trained from scratch on a CPU.

1. Put the images and annotations into a folder, in VOC, COCO or YOLO format.
2. ssd-jax train own_data_small --data.root FOLDER

Use it instead of own_data if the images are small, if the objects are large in their images, or for a first result
on a CPU: its input has 160 x 160 pixels, about a quarter of the pixels of own_data's. It can hardly find objects
whose side is below a twelfth of the image side. ``check-data`` says how many these are, and recommends one of
own_data_small, own_data and own_data_512.

The number of steps follows from the number of images, as with own_data: 15 epochs, but at least 600 steps of 16 images
(as for all sets of up to 640 images) and at most 6000. Three runs of 600 steps on two CPU cores, beside other programs,
took 9 to 19 minutes. They reached a VOC mAP (11-point) of 0.58 on shoes (75 training images, 12 test images), 0.99 on
raccoons (179, 21 val images) and 1.00 on toys (638, 41 test images). docs/own_data.md shows the curves.
"""

from ssd_jax.config import SMALL_BOXES, Augment, Config, Data, Extra, Loss, Model, Optimizer, Train

ABOUT = {"data": "yours", "source": "ssd-jax"}


def get_config() -> Config:
    return Config(
        name="own_data_small",
        model=Model(
            default_boxes=SMALL_BOXES,
            # The first stride is 1 where SSD300 has 2, so that objects of 54 to 82 px are matched to several boxes.
            extras=(Extra(256, 512, stride=1), Extra(128, 256), Extra(128, 256, stride=1, padding=0)),
            width=0.25,
            norm="group",
            std=(64, 64, 64),
            l2_norm_scale=5.0,
        ),
        data=Data(root="", max_image_size=320),
        augment=Augment(expand_probability=0.3, expand_max_ratio=1.5, crop_scale=(0.6, 1.0)),  # as in own_data
        loss=Loss(min_negatives=3),  # so that images without objects contribute
        optimizer=Optimizer(
            name="muon", learning_rate=1e-2, schedule="cosine", warmup_steps=30, weight_decay=0.02, clip_norm=10.0
        ),
        train=Train(
            epochs=15, steps_range=(600, 6000), batch_size=16, eval_every=None, checkpoint_every=100, ema_decay=0.998
        ),
    )
