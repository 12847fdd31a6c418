"""A detector for small objects in your own images of 512 px, trained from scratch without pretrained weights.

1. Put the images and annotations into a folder, in VOC, COCO or YOLO format.
2. ssd-jax train own_data_512 --data.root FOLDER

Use it instead of own_data if many objects are too small for an input of 300 px, which ``check-data`` finds out. It
is own_data with the input, the default boxes and the layers of SSD512 on COCO: the side of the smallest default
boxes is 20 px in an image of 512 px, 4 % of the image side. The input has about three times as many pixels as that of
own_data, so that training takes more time and memory; a GPU is recommended. This config was not measured.
"""

from ssd_jax.config import SSD512_COCO_BOXES, SSD512_EXTRAS, Augment, Config, Data, Loss, Model, Optimizer, Train

ABOUT = {"data": "yours", "source": "ssd-jax"}


def get_config() -> Config:
    return Config(
        name="own_data_512",
        model=Model(
            default_boxes=SSD512_COCO_BOXES,
            extras=SSD512_EXTRAS,
            width=0.25,
            norm="group",
            std=(64, 64, 64),
            l2_norm_scale=5.0,
        ),
        data=Data(root="", max_image_size=1024, max_objects=128),
        augment=Augment(expand_probability=0.3, expand_max_ratio=1.5, crop_scale=(0.6, 1.0)),  # as in own_data
        loss=Loss(min_negatives=3),  # so that images without objects contribute
        optimizer=Optimizer(
            name="muon", learning_rate=1e-2, schedule="cosine", warmup_steps=30, weight_decay=0.02, clip_norm=10.0
        ),
        train=Train(  # as in own_data.py
            epochs=15, steps_range=(1200, 12_000), batch_size=8, eval_every=None, checkpoint_every=200, ema_decay=0.998
        ),
    )
